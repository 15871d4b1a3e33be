"""Waiting for a side that stumbles: told in the log, and ended at once by whoever cancels it."""

from __future__ import annotations

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from tests.fakes.clock import FakeClock
from worker.clock import SystemClock
from worker.core.errors import NotFound, RateLimited, Unreachable
from worker.patience import patiently


class Stumbling:
    """Answers "here" after `failures`."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.asked = 0

    async def __call__(self) -> str:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return "here"


def test_each_wait_is_told_once_with_its_reason() -> None:
    ask = Stumbling(Unreachable("The forge is gone."), RateLimited("Too fast.", retry_after_s=2))
    with capture_logs() as told:
        assert asyncio.run(patiently(ask, clock=FakeClock(), forge="github", what="a change")) == "here"
    first, second = told
    assert (first["event"], first["forge"], first["what"]) == ("forge.retry_scheduled", "github", "a change")
    assert (first["attempt"], first["error_type"], first["error"]) == (1, "Unreachable", "The forge is gone.")
    assert (second["attempt"], second["error_type"]) == (2, "RateLimited")
    assert second["wait_s"] >= 2


def test_what_cannot_succeed_later_is_not_asked_again() -> None:
    ask = Stumbling(NotFound("No such change."))
    with pytest.raises(NotFound):
        asyncio.run(patiently(ask, clock=FakeClock(), what="a change"))
    assert ask.asked == 1


def test_a_wait_ends_at_once_when_it_is_cancelled() -> None:
    ask = Stumbling(RateLimited("Too fast.", retry_after_s=20))

    async def stopped() -> None:
        asking = asyncio.create_task(patiently(ask, clock=SystemClock(), what="a change"))
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    started = time.monotonic()
    asyncio.run(stopped())
    assert time.monotonic() - started < 1
    assert ask.asked == 1
