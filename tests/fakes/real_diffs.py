"""Diffs of real code, this repository's own: read, damaged and written without the program's reader of diffs."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random

from tests.fakes.git_repository import GitRepository

ROOT = Path(__file__).parents[2]
ENOUGH = 5
_COMMITS = 40
_LARGEST_BYTES = 60_000
_HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@(.*)")
ODD_TEXTS = (
    b"",
    b"|+|",
    b"|-|x",
    b"1|+|x = 1",
    b"12| |y",
    b"F1 x",
    b"F2 worker/settings.py",
    b"@@ -1,1 +1,1 @@ def f():",
    b"+++ b/x.py",
    b"--- a/x.py",
    b"diff --git a/x b/x",
    b"\\ No newline at end of file",
    b"[end unit 0000000000000000]",
    b"kind: verdicts",
    b"C1 x.py:1 (high, bug)",
    b"null \x00 byte",
    b"one\rtwo",
    b"ends with CR\r",
    b"\x0c",
    b"\x1b[31mred",
    "line\u2028separator\u2029\u0085".encode(),
    b"latin \xe9\xff\xfe",
    "中文 😀".encode(),
    b"key = 'AKIA" + b"Q7WERTYUIOPASDFG'",
    b"x" * 3_000,
)


@dataclass(frozen=True)
class RawHunk:
    """Numbers as in git's header; `rows` with their sign and without line feed."""

    old: int
    new: int
    section: bytes
    rows: tuple[bytes, ...]


@dataclass(frozen=True)
class RawFile:
    """`head` is everything before the first hunk."""

    path: str
    head: bytes
    hunks: tuple[RawHunk, ...]


@dataclass(frozen=True)
class ChangedLine:
    """`number` is of the new file; None for a removed line."""

    sign: str
    number: int | None
    text: bytes


@cache
def real_diffs() -> tuple[bytes, ...]:
    """Of this repository's latest commits; of a repository made of its sources where there is no history."""
    found = _diffs(GitRepository(ROOT)) if (ROOT / ".git").exists() else ()
    return found if len(found) >= ENOUGH else diffs_without_history()


def diffs_without_history() -> tuple[bytes, ...]:
    with tempfile.TemporaryDirectory() as folder:
        return _diffs(_made(Path(folder)))


def read(diff: bytes) -> list[RawFile]:
    """Line by line; the counts of a hunk's header say where it ends."""
    files: list[RawFile] = []
    rows = diff.split(b"\n")[:-1]
    at = 0
    while at < len(rows):
        start = at
        at += 1
        while at < len(rows) and not rows[at].startswith((b"diff --git ", b"@@ -")):
            at += 1
        head = b"".join(row + b"\n" for row in rows[start:at])
        hunks: list[RawHunk] = []
        while at < len(rows) and (said := _HUNK.fullmatch(rows[at])):
            olds, news = (int(said[group] or 1) for group in (2, 4))
            at += 1
            first = at
            while olds or news or (at < len(rows) and rows[at].startswith(b"\\")):
                sign = rows[at][:1]
                olds -= sign in (b"-", b" ")
                news -= sign in (b"+", b" ")
                at += 1
            hunks.append(RawHunk(int(said[1]), int(said[3]), said[5], tuple(rows[first:at])))
        files.append(RawFile(_path(head), head, tuple(hunks)))
    return files


def written(files: Sequence[RawFile]) -> bytes:
    out: list[bytes] = []
    for file in files:
        out.append(file.head)
        for hunk in file.hunks:
            olds = sum(row[:1] in (b"-", b" ") for row in hunk.rows)
            news = sum(row[:1] in (b"+", b" ") for row in hunk.rows)
            out.append(b"@@ -%d,%d +%d,%d @@%s\n" % (hunk.old, olds, hunk.new, news, hunk.section))
            out.extend(row + b"\n" for row in hunk.rows)
    return b"".join(out)


def changed_lines(file: RawFile) -> list[ChangedLine]:
    lines: list[ChangedLine] = []
    for hunk in file.hunks:
        # A side without lines carries the number of the line before it.
        has_new = any(row[:1] in (b"+", b" ") for row in hunk.rows)
        number = hunk.new if has_new else hunk.new + 1
        for row in hunk.rows:
            if row[:1] == b"-":
                lines.append(ChangedLine("-", None, row[1:]))
            elif row[:1] == b"+":
                lines.append(ChangedLine("+", number, row[1:]))
            number += row[:1] in (b"+", b" ")
    return lines


def damaged(files: Sequence[RawFile], random: Random) -> list[RawFile]:
    """Some of `files` in another order, with other numbers, other texts, and hunks that were cut in two."""
    chosen = random.sample(list(files), k=random.randint(1, min(8, len(files))))
    return [replace(file, hunks=_damaged_hunks(file.hunks, random)) for file in chosen]


def _damaged_hunks(hunks: Sequence[RawHunk], random: Random) -> tuple[RawHunk, ...]:
    is_modified = all(hunk.old > 0 and hunk.new > 0 for hunk in hunks)
    shift = random.choice((0, 0, 7, 995, 99_990, 1_000_000)) if is_modified else 0
    out: list[RawHunk] = []
    for hunk in hunks:
        rows = [_damaged_row(row, random) for row in hunk.rows]
        shifted = RawHunk(hunk.old + shift, hunk.new + shift, hunk.section, tuple(rows))
        out.extend(_halves(shifted, random) if random.random() < 0.3 else [shifted])
        shift += random.choice((0, 0, 1, 40)) if is_modified else 0
    return tuple(out)


def _damaged_row(row: bytes, random: Random) -> bytes:
    if row[:1] == b"\\" or random.random() > 0.06:
        return row
    odd = random.choice(ODD_TEXTS)
    return row[:1] + random.choice((odd, odd + row[1:], row[1:] + odd))


def _halves(hunk: RawHunk, random: Random) -> list[RawHunk]:
    """Two hunks of one, both of which change something and have lines on both sides; else the one."""
    at = random.randint(0, len(hunk.rows))
    first, second = hunk.rows[:at], hunk.rows[at:]
    for half in (first, second):
        signs = {row[:1] for row in half}
        if b" " not in signs or signs <= {b" "} or half[0][:1] == b"\\":
            return [hunk]
    olds = sum(row[:1] in (b"-", b" ") for row in first)
    news = sum(row[:1] in (b"+", b" ") for row in first)
    # A gap, since git would have made one hunk of two that touch.
    return [replace(hunk, rows=first), RawHunk(hunk.old + olds + 1, hunk.new + news + 1, b" def g():", second)]


def _path(head: bytes) -> str:
    """The new path, else the old one; names in these repositories need no quotes."""
    for mark in (b"+++ b/", b"--- a/", b"rename to "):
        if found := re.search(rb"^" + re.escape(mark) + rb"(.*)$", head, re.MULTILINE):
            return found[1].decode()
    return head.split(b"\n", 1)[0].rpartition(b" b/")[2].decode()


def _diffs(repository: GitRepository) -> tuple[bytes, ...]:
    commits = repository.git("rev-list", "--no-merges", f"--max-count={_COMMITS}", "HEAD").split()
    shown = (repository.git("show", "--format=", "--no-color", "--find-renames", commit) for commit in commits)
    return tuple(diff for diff in shown if 0 < len(diff) <= _LARGEST_BYTES and b"\n@@ " in diff)


def _made(folder: Path) -> GitRepository:
    """Sources of ours, of which each commit changes some a little."""
    repository = GitRepository.create(folder / "repository")
    sources = sorted((ROOT / "worker").rglob("*.py"))[:60]
    for step in range(8):
        for index, source in enumerate(sources):
            lines = source.read_bytes().splitlines(keepends=True)
            kept = [line for row, line in enumerate(lines) if not step or (row + index) % 37 != step]
            if not step or (index + step) % 9 == 0:
                repository.write(str(source.relative_to(ROOT)), b"".join(kept))
        repository.commit(f"step {step}")
    return repository
