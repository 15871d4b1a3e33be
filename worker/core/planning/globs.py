"""Path patterns as `.gitignore` and `.gitattributes` write them (gitignore(5), gitattributes(5))."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

# A pattern comes from a repository: more wildcards than this could make the search slow on purpose.
_MOST_WILDCARDS: Final = 12
_LONGEST_PATTERN: Final = 400
_MARK: Final = re.compile(r"^(?P<off>[-!]?)linguist-(?P<name>generated|vendored)(?:=(?P<value>\S+))?$")


@dataclass(frozen=True, slots=True)
class Marks:
    """What `.gitattributes` says of one path; None where it says nothing."""

    generated: bool | None = None
    vendored: bool | None = None


NO_MARKS: Final = Marks()


@dataclass(frozen=True, slots=True)
class MarkLine:
    """One mark of one line of a `.gitattributes` file."""

    folder: str
    """Where the file lies, ended by a slash; empty at the root. The pattern speaks of what is below it."""
    pattern: re.Pattern[str]
    name: str
    value: bool | None

    def matches(self, path: str) -> bool:
        return path.startswith(self.folder) and self.pattern.match(path, len(self.folder)) is not None


@dataclass(frozen=True, slots=True)
class Attributes:
    """The linguist marks of `.gitattributes` files, in order; a later line outranks an earlier one."""

    lines: tuple[MarkLine, ...] = ()

    @classmethod
    def parse(cls, text: bytes, *, folder: str = "") -> Attributes:
        """Read the marks of one file, which lies in `folder`.

        Lines that are no use to us, macros and negative patterns are passed over, as git does.
        """
        lines = []
        below = f"{folder}/" if folder else ""
        for row in text.decode("utf-8", "replace").split("\n"):
            pattern, *words = row.split() or [""]
            if not pattern or pattern[0] in "#!" or pattern.startswith("[attr]"):
                continue
            for word in words:
                if (mark := _MARK.match(word)) and (compiled := compiled_glob(pattern)):
                    lines.append(MarkLine(below, compiled, mark["name"], _value(mark["off"], mark["value"])))
        return cls(tuple(lines))

    def marks(self, path: str) -> Marks:
        if not self.lines:
            return NO_MARKS
        found: dict[str, bool | None] = {}
        for line in self.lines:
            if line.matches(path):
                found[line.name] = line.value
        return Marks(**found)


def _value(off: str, value: str | None) -> bool | None:
    if off:
        return False if off == "-" else None
    return value is None or value.lower() not in ("false", "0", "no")


def matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether any of `patterns` matches `path`."""
    return bool(patterns) and any((compiled := compiled_glob(pattern)) and compiled.match(path) for pattern in patterns)


@cache
def compiled_glob(pattern: str) -> re.Pattern[str] | None:
    """The pattern for a whole path from the repository's root; None for one that is not accepted.

    Without a slash (but at its end) it matches at any depth; one that names a folder matches all within.
    """
    if not pattern or len(pattern) > _LONGEST_PATTERN:
        return None
    bare = pattern.rstrip("/")
    anchored = "/" in bare
    bare = re.sub(r"\*{3,}", "**", bare.lstrip("/"))
    if bare.count("*") > _MOST_WILDCARDS:
        return None
    head = "" if anchored else "(?:.*/)?"
    try:
        return re.compile(f"{head}{_body(bare)}(?:/.*)?\\Z", re.DOTALL)
    except re.error:
        return None


def _body(glob: str) -> str:
    out = []
    at = 0
    while at < len(glob):
        if glob.startswith("**/", at) and (at == 0 or glob[at - 1] == "/"):
            out.append("(?:.*/)?")
            at += 3
        elif glob.startswith("**", at):
            out.append(".*")
            at += 2
        elif glob[at] == "*":
            out.append("[^/]*")
            at += 1
        elif glob[at] == "?":
            out.append("[^/]")
            at += 1
        elif glob[at] == "[" and (end := glob.find("]", at + 2)) > 0:
            inner = glob[at + 1 : end].replace("\\", r"\\").replace("[", r"\[")
            out.append("[" + ("^" + inner[1:] if inner[0] in "!^" else inner) + "]")
            at = end + 1
        elif glob[at] == "\\" and at + 1 < len(glob):
            out.append(re.escape(glob[at + 1]))
            at += 2
        else:
            out.append(re.escape(glob[at]))
            at += 1
    return "".join(out)
