"""A suggestion is shown only where applying it does what the reader sees."""

from __future__ import annotations

import pytest

from worker.core.diff.model import Hunk
from worker.core.finding import Anchor
from worker.core.suggestion import is_applicable

# New lines 10 to 14: context, added, (removed), added, context.
FIRST = Hunk(10, 3, 10, 4, b"", b" ten\n+eleven\n-old\n+twelve\n thirteen\n", 2, 1)
SECOND = Hunk(40, 1, 41, 2, b"", b" forty-one\n+forty-two\n", 1, 0)


def applicable(start: int, line: int, text: str = "new", side: str = "RIGHT") -> bool:
    return is_applicable(text, Anchor("a.py", side, start, line), (FIRST, SECOND))  # type: ignore[arg-type]


@pytest.mark.parametrize(("start", "line"), [(10, 10), (10, 11), (11, 11), (12, 13), (41, 42)])
def test_lines_in_one_hunk_with_nothing_removed_between_can_be_replaced(start: int, line: int) -> None:
    assert applicable(start, line)


@pytest.mark.parametrize(
    ("start", "line"), [(11, 12), (10, 13), (13, 41), (20, 20), (9, 10), (12, 11), (0, 0), (10**9, 10**9)]
)
def test_lines_across_a_removed_one_across_hunks_or_outside_cannot(start: int, line: int) -> None:
    assert not applicable(start, line)


def test_the_old_side_cannot_be_replaced() -> None:
    assert not applicable(11, 11, side="LEFT")


def test_a_suggestion_that_changes_nothing_is_none() -> None:
    assert not applicable(11, 11, "eleven\n")
    assert not applicable(12, 13, "twelve\nthirteen")
    assert applicable(12, 13, "twelve\n  thirteen")
