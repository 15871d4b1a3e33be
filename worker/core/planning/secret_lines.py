"""Where a change adds or removes a secret: for a finding that names the place and never the value."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from worker.core.diff.model import FileDiff, Hunk, Side
from worker.core.masking import HINTS, PRIVATE_KEY, find
from worker.core.showing import shown

_HINTS: Final = tuple(hint.encode() for hint in HINTS)


@dataclass(frozen=True, slots=True)
class SecretLine:
    """A changed line that holds a secret. `line` counts from 1 on its side: RIGHT for added, LEFT for removed."""

    path: str
    side: Side
    line: int
    kind: str


def secret_lines(files: Iterable[FileDiff]) -> tuple[SecretLine, ...]:
    """In order, one for each changed line and kind; a private key's rows are one, its first."""
    found: dict[SecretLine, None] = {}
    for file in files:
        for hunk in file.hunks:
            if any(hint in hunk.body for hint in _HINTS):
                found.update(dict.fromkeys(_in_hunk(file.path, hunk)))
    return tuple(found)


def _in_hunk(path: str, hunk: Hunk) -> Iterable[SecretLine]:
    text = shown(hunk.body)
    rows = text.split("\n")[:-1]
    starts = [0, *accumulate(len(row) + 1 for row in rows)]
    lines = iter(hunk.lines())
    numbered = [None if row[:1] == "\\" else next(lines) for row in rows]
    last = (-2, "")
    for span in find(text):
        index = bisect_right(starts, span.start) - 1
        is_next_row_of_a_key = span.kind == last[1] and index == last[0] + 1 and span.kind == PRIVATE_KEY
        last = (index, span.kind)
        line = numbered[index]
        if line is None or line.sign == " " or is_next_row_of_a_key:
            continue
        if line.new_number is not None:
            yield SecretLine(path, "RIGHT", line.new_number, span.kind)
        elif line.old_number is not None:
            yield SecretLine(path, "LEFT", line.old_number, span.kind)
