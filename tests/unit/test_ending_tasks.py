"""A task that is told to end ends, whether or not it heard the first time."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from worker.ending import end


def test_a_task_that_did_not_hear_is_told_again() -> None:
    async def hard_of_hearing() -> None:
        # As `asyncio.wait_for` does up to Python 3.11 when its call ends at the same moment.
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    async def main() -> None:
        task = asyncio.create_task(hard_of_hearing())
        await asyncio.sleep(0)
        await end([task], again_s=0.01)
        assert task.cancelled()

    asyncio.run(main())


def test_a_task_that_cleans_up_is_left_to_it() -> None:
    async def tidy() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            tidied.append(time.monotonic())

    async def main() -> None:
        task = asyncio.create_task(tidy())
        await asyncio.sleep(0)
        await end([task])

    tidied: list[float] = []
    asyncio.run(main())
    assert tidied


def test_what_an_ended_task_raised_is_raised_to_nobody() -> None:
    async def fails() -> None:
        raise ValueError

    async def main() -> None:
        task = asyncio.create_task(fails())
        await asyncio.wait([task])
        await end([task])

    asyncio.run(main())
