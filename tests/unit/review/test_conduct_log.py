"""What the log says of a review that has ended."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from tests.unit.review.test_conduct import OPEN, REF, Desk, MemoryCheckout
from tests.unit.review.test_examine import ONE_FILE
from worker.core.change import Snapshot

LOCK = ("poetry.lock", "lock file", 56)
FAILED = ("big.py", "left out by the forge's API", 12)
UNREAD = ("huge.csv", "larger than 10,000,000 bytes, not fetched", 0)


@pytest.mark.parametrize(
    ("cut", "expected"),
    [((), (0, 0, True)), ((LOCK,), (1, 0, False)), ((LOCK, FAILED, UNREAD), (1, 2, False)), ((UNREAD,), (0, 1, False))],
)
def test_what_failed_is_counted_apart_from_what_a_rule_left_out(
    cut: tuple[tuple[str, str, int], ...], expected: tuple[int, int, bool]
) -> None:
    async def run() -> None:
        desk = Desk(checkout=MemoryCheckout(is_away=True))
        desk.forge.diffs[REF] = Snapshot(head=OPEN.head, base="b" * 40, diff=ONE_FILE, cut=cut)
        await desk.conduct(await desk.claimed(attempt=3))

    with capture_logs() as lines:
        asyncio.run(run())
    (line,) = [line for line in lines if line["event"] == "review.finished"]
    assert (line["left_out_by_rule"], line["not_reviewed"], line["complete"]) == expected
