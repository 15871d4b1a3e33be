"""Where a forge takes comments: computed with git itself and a few lines of code that share nothing with ours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.git_server import git

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


@dataclass(frozen=True, slots=True)
class FileLines:
    """One changed file. `hunks` has for each hunk the lines of both sides: ({"LEFT": …, "RIGHT": …})."""

    path: str
    previous: str | None
    status: str
    """As GitHub says it: added, removed, modified, renamed."""
    hunks: tuple[dict[str, frozenset[int]], ...]
    patch: str | None
    additions: int
    deletions: int


def changed_files(repository: Path, *, base: str, head: str) -> dict[str, FileLines]:
    """By path, for the diff between the merge base and `head`, as a pull request shows it."""
    merge_base = git(repository, "merge-base", base, head)
    names = git(repository, "diff", "--name-status", "-z", "-M", merge_base, head).split("\0")
    files: dict[str, FileLines] = {}
    at = 0
    while at + 1 < len(names):
        letter = names[at][:1]
        renamed = letter in "RC"
        old, new = (names[at + 1], names[at + 2]) if renamed else (names[at + 1], names[at + 1])
        at += 3 if renamed else 2
        text = git(repository, "diff", "-M", "-U3", "--no-ext-diff", merge_base, head, "--", *dict.fromkeys((old, new)))
        start = text.find("\n@@ ")
        patch = text[start + 1 :] if start >= 0 else None
        hunks, added, removed = _hunks(patch or "")
        status = {"A": "added", "D": "removed", "R": "renamed", "C": "copied"}.get(letter, "modified")
        files[new] = FileLines(new, old if renamed else None, status, hunks, patch, added, removed)
    return files


def _hunks(patch: str) -> tuple[tuple[dict[str, frozenset[int]], ...], int, int]:
    hunks: list[dict[str, set[int]]] = []
    old = new = added = removed = 0
    for row in patch.split("\n"):
        if (head := _HUNK.match(row)) is not None:
            old, new = int(head[1]), int(head[3])
            hunks.append({"LEFT": set(), "RIGHT": set()})
        elif row.startswith("+"):
            hunks[-1]["RIGHT"].add(new)
            new, added = new + 1, added + 1
        elif row.startswith("-"):
            hunks[-1]["LEFT"].add(old)
            old, removed = old + 1, removed + 1
        elif row.startswith(" "):
            hunks[-1]["RIGHT"].add(new)
            old, new = old + 1, new + 1
    closed = tuple({side: frozenset(lines) for side, lines in hunk.items()} for hunk in hunks)
    return closed, added, removed
