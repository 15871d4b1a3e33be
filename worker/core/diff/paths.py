"""File names as the headers of a diff carry them: quoted, prefixed, dated."""

from __future__ import annotations

import re
from dataclasses import dataclass

# What git puts before the two names: the default, `diff.mnemonicPrefix` (index, worktree, commit,
# object) and the two sides of --no-index; each also the other way round, for `-R`.
_PREFIX_PAIRS = frozenset(
    pair
    for old, new in (
        (b"a/", b"b/"),
        (b"i/", b"w/"),
        (b"c/", b"i/"),
        (b"c/", b"w/"),
        (b"o/", b"w/"),
        (b"1/", b"2/"),
    )
    for pair in ((old, new), (new, old))
)
_QUOTED = re.compile(rb'"((?:[^"\\\n]|\\.)*)"')
_ESCAPE = re.compile(rb"\\([0-3][0-7]{2}|.)")
_ESCAPED = {b"a": b"\a", b"b": b"\b", b"t": b"\t", b"n": b"\n", b"v": b"\v", b"f": b"\f", b"r": b"\r"}
_DEV_NULL = b"/dev/null"
_MOST_READINGS = 64
"""How many blanks in a line of names are tried as the one between them."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Both names without their prefixes, and the prefixes; None for a side that does not exist."""

    old: bytes | None
    new: bytes | None
    old_prefix: bytes = b""
    new_prefix: bytes = b""


def in_utf8(text: str) -> str:
    """`text` for readers of UTF-8: bytes that are none came as surrogate escapes, and are shown as `\\xff`."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def unquote(name: bytes) -> bytes:
    """A name as `core.quotePath` wrote it, turned back; one without quotes is returned as it is."""
    quoted = _QUOTED.fullmatch(name)
    if quoted is None:
        return name
    return _ESCAPE.sub(_unescaped, quoted[1])


def _unescaped(escape: re.Match[bytes]) -> bytes:
    code = escape[1]
    return bytes([int(code, 8)]) if len(code) == 3 else _ESCAPED.get(code, code)


def header_path(name: bytes) -> bytes | None:
    """The name in a `---` or `+++` line, prefix kept; None for /dev/null.

    git ends a name that has a blank in it with a tab, and `diff -u` puts the date behind one.
    """
    quoted = _QUOTED.match(name) if name.startswith(b'"') else None
    name = unquote(quoted[0]) if quoted else name.partition(b"\t")[0]
    return None if name == _DEV_NULL else name


def git_line_paths(names: bytes) -> Paths | None:
    """Both names of a `diff --git` line; None when they cannot be told apart.

    git writes that line for machines that read the other lines: two names with blanks in them have no
    mark between them. They are almost always one name twice, and then the middle is the mark.
    """
    halves = _quoted_halves(names)
    if halves is not None:
        return _stripped(*halves)
    middle = len(names) // 2
    if len(names) % 2 and names[middle : middle + 1] == b" ":
        paths = _stripped(names[:middle], names[middle + 1 :])
        if paths.old == paths.new:
            return paths
    candidates: list[Paths] = []
    at = names.find(b" ")
    while at > 0 and len(candidates) < _MOST_READINGS:
        candidates.append(_stripped(names[:at], names[at + 1 :]))
        at = names.find(b" ", at + 1)
    same = [paths for paths in candidates if paths.old == paths.new]
    if len(same) == 1:
        return same[0]
    prefixed = [paths for paths in candidates if paths.old_prefix]
    if len(prefixed) == 1:
        return prefixed[0]
    return candidates[0] if len(candidates) == 1 else None


def plain_paths(names: bytes) -> Paths | None:
    """The names in `A and B` of a "Binary files A and B differ" line; None when they cannot be told apart."""
    candidates: list[tuple[bytes | None, bytes | None]] = []
    at = names.find(b" and ")
    while at >= 0 and len(candidates) < _MOST_READINGS:
        old, new = unquote(names[:at]), unquote(names[at + 5 :])
        candidates.append(strip_prefixes(None if old == _DEV_NULL else old, None if new == _DEV_NULL else new))
        at = names.find(b" and ", at + 1)
    paired = [pair for pair in candidates if None in pair or pair[0] == pair[1]] if len(candidates) > 1 else candidates
    return Paths(*paired[0]) if len(paired) == 1 else None


def strip_prefixes(
    old: bytes | None, new: bytes | None, *, git_line: Paths | None = None
) -> tuple[bytes | None, bytes | None]:
    """Names of `---` and `+++` lines without their prefixes.

    `git_line` tells the prefixes where only one of the names exists; a diff that has no such line and
    one name only is taken to have git's default prefixes when the name begins with one.
    """
    if old is not None and new is not None:
        if (old[:2], new[:2]) in _PREFIX_PAIRS:
            return old[2:], new[2:]
        paths = _stripped(old, new)
        return paths.old, paths.new
    if git_line is not None:
        old_prefix, new_prefix = git_line.old_prefix, git_line.new_prefix
    else:
        old_prefix, new_prefix = b"a/", b"b/"
    return (
        None if old is None else old.removeprefix(old_prefix),
        None if new is None else new.removeprefix(new_prefix),
    )


def _quoted_halves(names: bytes) -> tuple[bytes, bytes] | None:
    """The two names when at least one of them is quoted."""
    first = _QUOTED.match(names)
    if first is not None and names[first.end() : first.end() + 1] == b" ":
        return unquote(first[0]), unquote(names[first.end() + 1 :])
    if names.endswith(b'"'):
        at = names.find(b' "')
        if at > 0 and _QUOTED.fullmatch(names, at + 1):
            return names[:at], unquote(names[at + 1 :])
    return None


def _stripped(old: bytes, new: bytes) -> Paths:
    """Take known prefixes away, or unknown ones (`--src-prefix`) when the rest is the same name."""
    if old == new:
        return Paths(old, new)
    if (old[:2], new[:2]) in _PREFIX_PAIRS:
        return Paths(old[2:], new[2:], old[:2], new[:2])
    old_first, _, old_rest = old.partition(b"/")
    new_first, _, new_rest = new.partition(b"/")
    if old_rest and old_rest == new_rest:
        return Paths(old_rest, new_rest, old_first + b"/", new_first + b"/")
    return Paths(old, new)
