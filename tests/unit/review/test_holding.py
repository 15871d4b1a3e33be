"""What follows from each way in which work on a job can end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.fakes.jobs import FakeJobs
from worker.clock import SystemClock
from worker.core.change import ChangeRef
from worker.core.errors import (
    ConfigurationError,
    LeaseLost,
    NoBalance,
    NotAuthorised,
    OutcomeUnknown,
    QuotaUsedUp,
    RateLimited,
    ReviewError,
    Superseded,
    Unreachable,
    WrittenByNewer,
)
from worker.core.job import Intent, Job, NotClaimed, State
from worker.review import holding
from worker.review.holding import Holder, seconds_until
from worker.review.lease import Lease

REF = ChangeRef("github", "octo/cat", 7)
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)

Work = Callable[[FakeJobs, Lease], Awaitable[None]]


def held(work: Work, *, lease_s: float = 5.0, deadline_s: float = 5.0) -> tuple[Job, list[str]]:
    """Run `work` on a fresh job; the job afterwards and its log of decisions."""

    async def story() -> tuple[Job, list[str]]:
        jobs = FakeJobs(lease_s=lease_s)
        made = await jobs.accept(Intent(REF, "a" * 40))
        holder = Holder(jobs=jobs, clock=SystemClock(), worker="w1", deadline_s=deadline_s)
        await holder.hold(made.job, lambda lease: work(jobs, lease), states=[State.QUEUED, State.RUNNING])
        job = await jobs.get(made.job)
        assert job is not None
        return job, [line.event for line in await jobs.decisions(made.job)]

    return asyncio.run(story())


def raising(error: Exception) -> Work:
    async def work(jobs: FakeJobs, lease: Lease) -> None:
        raise error

    return work


def test_work_that_moves_the_job_itself_is_left_as_it_is() -> None:
    async def work(jobs: FakeJobs, lease: Lease) -> None:
        await jobs.release(lease.claim, State.REVIEWED, reason="the report is stored")

    job, _ = held(work)
    assert (job.state, job.reason) == (State.REVIEWED, "the report is stored")


@pytest.mark.parametrize(
    "error",
    [
        NotAuthorised("GitHub declines the token"),
        ConfigurationError(["GITHUB_TOKEN: is not set"]),
        ReviewError("no more to say"),
    ],
)
def test_what_can_never_succeed_becomes_a_dead_letter_with_its_reason(error: ReviewError) -> None:
    job, _ = held(raising(error))
    assert (job.state, job.reason) == (State.FAILED, str(error))


def test_what_only_a_newer_version_can_go_on_with_is_left_to_it_and_no_attempt_counts() -> None:
    job, log = held(raising(WrittenByNewer("the report cannot be read by this version")))
    assert (job.state, job.attempt, job.is_left) == (State.QUEUED, 0, True)
    assert job.reason == "the report cannot be read by this version"
    assert "job.left" in log
    assert "attempt.died" not in log


def test_what_may_pass_is_tried_again_after_a_wait() -> None:
    job, _ = held(raising(Unreachable("GitHub does not answer")))
    assert job.state is State.QUEUED
    assert 0.5 <= job.not_before - job.updated_at <= 3
    assert job.attempt == 1


def test_the_other_sides_wish_is_waited_for() -> None:
    job, _ = held(raising(RateLimited("GitHub", retry_after_s=90)))
    assert job.not_before - job.updated_at >= 90


def test_an_unknown_outcome_is_looked_at_later() -> None:
    job, _ = held(raising(OutcomeUnknown("the answer to the post was lost")))
    assert job.state is State.QUEUED
    assert job.not_before - job.updated_at >= holding.LOOK_AGAIN_S


def test_a_used_up_quota_defers_the_job_until_it_is_there_again() -> None:
    job, _ = held(raising(QuotaUsedUp("no tokens left", until=datetime.now(UTC) + timedelta(hours=2))))
    assert job.state is State.DEFERRED
    assert 7100 < job.not_before - job.updated_at < 7300


def test_nobody_knows_when_money_comes() -> None:
    job, _ = held(raising(NoBalance("the account is empty")))
    assert job.not_before - job.updated_at == pytest.approx(holding.UNTIL_UNKNOWN_S, rel=0.01)
    assert seconds_until(NOW - timedelta(hours=1), now=NOW) == 1.0


def test_a_newer_head_ends_the_job_without_a_failure() -> None:
    job, _ = held(raising(Superseded("it moved on", by="b" * 40)))
    assert job.state is State.SUPERSEDED


def test_a_fault_of_ours_counts_as_a_death_and_its_text_stays_in_the_log() -> None:
    job, events = held(raising(KeyError("a secret of the change")))
    assert job.state is State.QUEUED
    assert "attempt.died" in events
    assert "secret" not in job.reason
    assert "KeyError" in job.reason


def test_an_attempt_that_takes_too_long_is_ended_and_tried_again() -> None:
    async def work(jobs: FakeJobs, lease: Lease) -> None:
        await asyncio.sleep(30)

    job, _ = held(work, deadline_s=0.3)
    assert job.state is State.QUEUED
    assert "did not end" in job.reason


def test_the_heartbeat_keeps_the_lease_while_the_work_goes_on() -> None:
    async def work(jobs: FakeJobs, lease: Lease) -> None:
        for _ in range(6):
            await asyncio.sleep(0.2)
            assert isinstance(await jobs.claim(lease.job.id, worker="w2", states=[State.RUNNING]), NotClaimed)
        await jobs.advance(lease.claim, State.DONE, reason="posted")

    job, _ = held(work, lease_s=0.9)
    assert (job.state, job.attempt) == (State.DONE, 1)


def test_a_worker_that_lost_its_lease_is_cut_short_and_writes_nothing() -> None:
    reached: list[str] = []

    async def work(jobs: FakeJobs, lease: Lease) -> None:
        other = await jobs.claim(lease.job.id, worker="w2", states=[State.RUNNING])
        assert isinstance(other, NotClaimed)
        jobs._records[lease.job.id].token += 1  # another worker took over
        await asyncio.sleep(5)
        reached.append("end")

    job, _ = held(work, lease_s=1.2)
    assert job.state is State.RUNNING
    assert reached == []


def test_losing_the_lease_inside_the_work_is_no_failure() -> None:
    job, _ = held(raising(LeaseLost("another worker has it")))
    assert job.state is State.RUNNING


@pytest.mark.parametrize(("blame", "attempt"), [(None, 0), ("its worker held 3,000 MB for it alone", 1)])
def test_a_worker_that_is_asked_to_stop_hands_its_job_back_at_once(blame: str | None, attempt: int) -> None:
    """The attempt counts where the job is why the worker ends: else it would come back for ever."""

    async def story() -> Job | None:
        jobs = FakeJobs()
        made = await jobs.accept(Intent(REF, "a" * 40))
        stopping = asyncio.Event()
        blamed = {made.job: blame}
        holder = Holder(
            jobs=jobs, clock=SystemClock(), worker="w1", is_stopping=stopping.is_set, blames=lambda job: blamed[job]
        )

        async def work(lease: Lease) -> None:
            stopping.set()
            await asyncio.sleep(30)

        async with asyncio.timeout(2):
            await holder.hold(made.job, work, states=[State.QUEUED])
        return await jobs.get(made.job)

    job = asyncio.run(story())
    assert job is not None
    assert (job.state, job.attempt) == (State.QUEUED, attempt)


def test_a_post_that_was_begun_is_given_its_time_when_the_worker_stops() -> None:
    async def story() -> Job | None:
        jobs = FakeJobs()
        made = await jobs.accept(Intent(REF, "a" * 40))
        stopping = asyncio.Event()
        holder = Holder(jobs=jobs, clock=SystemClock(), worker="w1", is_stopping=stopping.is_set, grace_s=5)

        async def work(lease: Lease) -> None:
            stopping.set()
            with lease.unbroken():
                await asyncio.sleep(0.6)
                await jobs.advance(lease.claim, State.DONE, reason="posted")

        await holder.hold(made.job, work, states=[State.QUEUED])
        return await jobs.get(made.job)

    job = asyncio.run(story())
    assert job is not None
    assert job.state is State.DONE


@pytest.mark.parametrize("grace_s", [0.5, 60.0], ids=["the-post-takes-too-long", "the-post-was-answered"])
def test_a_stopping_worker_hands_a_publishing_back_when_the_grace_or_the_post_is_over(grace_s: float) -> None:
    async def story() -> Job | None:
        jobs = FakeJobs()
        made = await jobs.accept(Intent(REF, "a" * 40))
        stopping = asyncio.Event()
        holder = Holder(jobs=jobs, clock=SystemClock(), worker="w1", is_stopping=stopping.is_set, grace_s=grace_s)

        async def work(lease: Lease) -> None:
            stopping.set()
            with lease.unbroken():
                await asyncio.sleep(30 if grace_s < 1 else 0.3)
            await asyncio.sleep(30)  # the next question to a forge that is away

        async with asyncio.timeout(3):
            await holder.hold(made.job, work, states=[State.QUEUED])
        return await jobs.get(made.job)

    job = asyncio.run(story())
    assert job is not None
    assert (job.state, job.attempt) == (State.QUEUED, 0)


def test_a_job_that_another_worker_has_is_left_alone() -> None:
    async def work(jobs: FakeJobs, lease: Lease) -> None:
        ran: list[Lease] = []

        async def second(lease: Lease) -> None:
            ran.append(lease)

        await Holder(jobs=jobs, clock=SystemClock(), worker="w2").hold(lease.job.id, second, states=[State.RUNNING])
        assert ran == []
        await jobs.advance(lease.claim, State.DONE, reason="posted")

    assert held(work)[0].state is State.DONE
