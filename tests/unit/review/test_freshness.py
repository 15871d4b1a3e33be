"""Which head counts when the forge, its deliveries and our records do not agree."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.forge import MemoryForge
from tests.fakes.jobs import FakeJobs
from worker.core.change import Change, ChangeRef
from worker.core.errors import Superseded, Unreachable
from worker.core.job import Intent, Job, NotClaimed, State
from worker.review.freshness import HEAD_LAG_S, LAGGING_ATTEMPTS, Freshness

REF = ChangeRef("github", "acme/shop", 7)
FIRST, SECOND, UNKNOWN = "a" * 40, "b" * 40, "c" * 40


class World:
    """Two heads were delivered, and the job of the second is being worked on."""

    def __init__(self, *, shows: str) -> None:
        self.clock = FakeClock()
        self.jobs = FakeJobs(now=self.clock.monotonic)
        self.forge = MemoryForge()
        self.forge.open(Change(ref=REF, head=shows, base="d" * 40))

    async def attempt(self, number: int = 1) -> Job:
        for head in (FIRST, SECOND):
            accepted = await self.jobs.accept(Intent(ref=REF, head=head))
        claim = await self.jobs.claim(accepted.job, worker="w", states=(State.QUEUED,))
        assert not isinstance(claim, NotClaimed)
        return replace(claim.job, attempt=number)

    async def look(self, job: Job) -> Change:
        return await Freshness(self.forge, self.jobs, self.clock).change_at(job, SECOND)

    async def current(self) -> set[str]:
        return {job.head for job in await self.jobs.find(REF) if not job.state.is_final and not job.superseded_by}


def test_a_forge_that_lags_behind_its_own_delivery_is_waited_for() -> None:
    async def scenario() -> None:
        world = World(shows=FIRST)
        with pytest.raises(Unreachable, match="still shows the earlier head aaaaaaaaaaaa"):
            await world.look(await world.attempt())
        assert await world.current() == {SECOND}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "now", [Change(ref=REF, head=SECOND, base="d" * 40), Change(ref=REF, head=FIRST, base="d" * 40, state="closed")]
)
def test_a_forge_that_lags_for_a_moment_is_asked_once_more(now: Change) -> None:
    async def scenario() -> None:
        world = World(shows=FIRST)
        job = await world.attempt()
        ask = world.forge.change

        async def lagging(ref: ChangeRef) -> Change:
            shown = await ask(ref)
            world.forge.open(now)
            return shown

        world.forge.change = lagging  # type: ignore[method-assign]
        assert await world.look(job) == now
        assert world.clock.slept == [HEAD_LAG_S]
        assert await world.current() == {SECOND}

    asyncio.run(scenario())


def test_a_change_that_is_closed_is_not_waited_for_whatever_its_head() -> None:
    async def scenario() -> None:
        world = World(shows=UNKNOWN)
        closed = world.forge.open(Change(ref=REF, head=UNKNOWN, base="d" * 40, state="closed"))
        assert await world.look(await world.attempt()) == closed
        assert world.clock.slept == []

    asyncio.run(scenario())


def test_a_later_head_is_not_taken_for_an_earlier_one_though_it_has_its_job_already() -> None:
    async def scenario() -> None:
        world = World(shows=UNKNOWN)
        job = await world.attempt()
        await world.jobs.accept(Intent(ref=REF, head=UNKNOWN))
        with pytest.raises(Superseded):
            await world.look(job)

    asyncio.run(scenario())


def test_a_branch_that_stays_at_an_earlier_head_was_moved_back() -> None:
    async def scenario() -> None:
        world = World(shows=FIRST)
        with pytest.raises(Superseded):
            await world.look(await world.attempt(LAGGING_ATTEMPTS))
        assert await world.current() == {FIRST}

    asyncio.run(scenario())


def test_a_head_that_nobody_told_of_takes_over_at_once() -> None:
    async def scenario() -> None:
        world = World(shows=UNKNOWN)
        with pytest.raises(Superseded):
            await world.look(await world.attempt())
        assert await world.current() == {UNKNOWN}

    asyncio.run(scenario())
