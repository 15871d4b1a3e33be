"""Upkeep: who is due is woken, a window at a time; dead letters are told once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tests.fakes.clock import FakeClock
from tests.fakes.jobs import FakeJobs
from worker.clock import SystemClock
from worker.core.change import ChangeRef
from worker.core.errors import NotAuthorised, Unreachable
from worker.core.job import Claim, Due, Intent, Job, Priority, State
from worker.review import upkeep
from worker.review.upkeep import Upkeep


@dataclass
class Messages:
    """Implements `ports.Wake` as two lists."""

    reviews: list[str] = field(default_factory=list)
    publications: list[str] = field(default_factory=list)
    priorities: list[Priority] = field(default_factory=list)
    """Of the reviews."""
    firsts: list[str] = field(default_factory=list)
    before: int = 0
    """Messages that wait already, in each queue."""

    async def review(self, job_id: str, priority: Priority) -> None:
        self.reviews.append(job_id)
        self.priorities.append(priority)

    async def publish(self, job_id: str, priority: Priority) -> None:
        self.publications.append(job_id)

    async def first(self, due: Due) -> None:
        self.firsts.append(due.job)

    async def waiting(self, priority: Priority) -> int:
        return self.before


class Time:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


async def waiting_jobs(jobs: FakeJobs, count: int) -> list[str]:
    return [(await jobs.accept(Intent(ChangeRef("github", "a/b", n), "a" * 40))).job for n in range(count)]


async def claimed(jobs: FakeJobs, job: str) -> Claim:
    claim = await jobs.claim(job, worker="w", states=list(State))
    assert isinstance(claim, Claim)
    return claim


def test_a_job_whose_wake_up_was_lost_is_woken_and_not_every_second() -> None:
    async def story() -> None:
        now, wake = Time(), Messages()
        jobs = FakeJobs(now=now)
        made = await waiting_jobs(jobs, 1)
        keeper = Upkeep(jobs=jobs, wake=wake, clock=SystemClock(), who="one")
        assert await keeper.tick() == 0
        now.at += 3
        assert await keeper.tick() == 1
        assert await keeper.tick() == 0
        now.at += upkeep.REWAKE_S + 1
        assert await keeper.tick() == 1
        assert wake.reviews == made * 2

    asyncio.run(story())


def test_a_reviewed_job_is_woken_for_publishing() -> None:
    async def story() -> None:
        now, wake = Time(), Messages()
        jobs = FakeJobs(now=now)
        [job] = await waiting_jobs(jobs, 1)
        await jobs.release(await claimed(jobs, job), State.REVIEWED, reason="stored")
        now.at += 3
        await Upkeep(jobs=jobs, wake=wake, clock=SystemClock(), who="one").tick()
        assert (wake.reviews, wake.publications) == ([], [job])

    asyncio.run(story())


def test_a_queue_that_is_full_enough_gets_no_more_messages() -> None:
    async def story() -> None:
        now, wake = Time(), Messages(before=upkeep.ROOM - 2)
        jobs = FakeJobs(now=now)
        await waiting_jobs(jobs, 5)
        now.at += 3
        keeper = Upkeep(jobs=jobs, wake=wake, clock=SystemClock(), who="one")
        assert await keeper.tick() == 2
        wake.before = upkeep.ROOM
        assert await keeper.tick() == 0

    asyncio.run(story())


def test_a_batch_job_has_its_turn_among_interactive_ones_that_never_end() -> None:
    async def story() -> None:
        now, wake = Time(), Messages(before=upkeep.ROOM)
        jobs = FakeJobs(now=now)
        ref = ChangeRef("github", "a/night", 1)
        batch = (await jobs.accept(Intent(ref, "a" * 40, priority=Priority.BATCH))).job
        clock = FakeClock()
        keeper = Upkeep(jobs=jobs, wake=wake, clock=clock, who="one")
        taken: list[float] = []
        for second in range(100):
            if await keeper.tick():
                taken.append(second)
            now.at += 1
            await clock.sleep(1)
        assert wake.reviews == [batch] * 3
        assert taken == [30, 60, 90]
        assert set(wake.priorities) == {Priority.INTERACTIVE}
        # With nobody before it, it goes the usual way.
        wake.before = 0
        now.at += upkeep.REWAKE_S
        await keeper.tick()
        assert wake.priorities[-1] is Priority.BATCH

    asyncio.run(story())


def test_a_job_whose_worker_died_goes_before_all_others_and_again_within_seconds() -> None:
    async def story() -> None:
        now, wake = Time(), Messages(before=upkeep.ROOM)
        jobs = FakeJobs(now=now, lease_s=15)
        made = await waiting_jobs(jobs, 5)
        await claimed(jobs, made[2])
        keeper = Upkeep(jobs=jobs, wake=wake, clock=SystemClock(), who="one")
        await keeper.tick()
        assert wake.firsts == []
        now.at += 16
        await keeper.tick()
        await keeper.tick()
        assert wake.firsts == [made[2]]
        now.at += upkeep.URGENT_AGAIN_S
        await keeper.tick()
        assert wake.firsts == [made[2]] * 2
        # Where nobody takes messages, they do not pile up.
        wake.before = 2 * upkeep.ROOM
        now.at += upkeep.URGENT_AGAIN_S
        await keeper.tick()
        assert len(wake.firsts) == 2

    asyncio.run(story())


def test_only_one_process_does_upkeep() -> None:
    async def story() -> None:
        now, wake = Time(), Messages()
        jobs = FakeJobs(now=now)
        await waiting_jobs(jobs, 1)
        now.at += 3
        assert await jobs.leads("other", for_s=5)
        keeper = Upkeep(jobs=jobs, wake=wake, clock=SystemClock(), who="one")
        assert await keeper.tick() == 0
        now.at += 6
        assert await keeper.tick() == 1

    asyncio.run(story())


def test_the_change_of_a_dead_letter_is_told_once_also_after_a_time_out() -> None:
    async def story() -> None:
        now, told = Time(), list[str]()
        jobs = FakeJobs(now=now)
        made = await waiting_jobs(jobs, 2)
        for job in made:
            await jobs.release(await claimed(jobs, job), State.FAILED, reason="no such model")

        async def tell(job: Job) -> None:
            told.append(job.id)
            if job.id == made[0] and told.count(job.id) == 1:
                raise Unreachable("GitHub does not answer")
            if job.id == made[1]:
                raise NotAuthorised("the token may not write")

        keeper = Upkeep(jobs=jobs, wake=Messages(), clock=SystemClock(), who="one", tell=tell)
        await keeper.tick()
        now.at += upkeep.TELL_AGAIN_S + 1
        await keeper.tick()
        now.at += upkeep.TELL_AGAIN_S + 1
        await keeper.tick()
        assert sorted(told) == sorted([made[0], made[0], made[1]])

    asyncio.run(story())
