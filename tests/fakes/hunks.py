"""Hunks cut by lines, for tests that think in lines where the program thinks in bytes."""

from __future__ import annotations

from collections.abc import Sequence

from worker.core.diff.model import Hunk
from worker.core.diff.split import cut_at


def split_hunk(hunk: Hunk, at: Sequence[int]) -> tuple[Hunk, ...]:
    """Cut `hunk` before each line whose index (from 0, as `hunk.lines()` yields them) is in `at`."""
    starts: list[int] = []
    offset = 0
    for row in hunk.body.split(b"\n")[:-1]:
        if not row.startswith(b"\\"):
            starts.append(offset)
        offset += len(row) + 1
    return cut_at(hunk, [starts[line] for line in sorted(set(at)) if 0 < line < len(starts)])
