"""What every store of job records promises about who may work and write: leases, fences, attempts."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.job_steps import PUBLISH, REF, REVIEW, A, B, Story, claimed, lease_ends, refused, state_of
from worker.core.errors import LeaseLost, NotFound
from worker.core.job import Claim, Intent, State
from worker.ports import Jobs


def test_a_job_is_had_by_one_worker_at_a_time(patient_store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        answers = await asyncio.gather(*(jobs.claim(made.job, worker=f"w{n}", states=REVIEW) for n in range(50)))
        assert sum(isinstance(answer, Claim) for answer in answers) == 1

    patient_store(story)


def test_the_heartbeat_keeps_the_lease_and_without_it_another_takes_over(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        first = await claimed(jobs, made.job)
        for _ in range(4):
            await asyncio.sleep(0.06)
            await jobs.renew(first)
        assert "leased by w1" in await refused(jobs, made.job)
        await lease_ends()
        second = await claimed(jobs, made.job, worker="w2")
        assert second.token > first.token
        assert second.job.attempt == 2

    store(story)


def test_a_late_writer_is_refused_everywhere(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        late = await claimed(jobs, made.job)
        await lease_ends()
        await claimed(jobs, made.job, worker="w2")
        assert not await jobs.is_current(late)
        for write in (
            jobs.renew(late),
            jobs.save(late, "report", b"mine"),
            jobs.advance(late, State.DONE),
            jobs.release(late, State.REVIEWED, reason="mine"),
            jobs.hand_back(late, reason="mine"),
            jobs.died(late, reason="mine"),
            jobs.note_head(late, B),
        ):
            with pytest.raises(LeaseLost):
                await write
        assert await jobs.load(made.job) == {}
        assert await state_of(jobs, made.job) is State.RUNNING

    store(story)


def test_an_end_ends_the_lease(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        claim = await claimed(jobs, made.job)
        await jobs.advance(claim, State.DONE, reason="posted")
        with pytest.raises(LeaseLost):
            await jobs.save(claim, "report", b"late")
        assert "already done" in await refused(jobs, made.job)

    store(story)


def test_settling_twice_says_the_same(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        claim = await claimed(jobs, made.job)
        await jobs.release(claim, State.REVIEWED, reason="stored")
        await jobs.release(claim, State.REVIEWED, reason="stored")
        assert await state_of(jobs, made.job) is State.REVIEWED

    store(story)


def test_checkpoints_are_kept_byte_for_byte_over_attempts(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        await jobs.save(await claimed(jobs, made.job), "unit:1", b"\x00\xff\n")
        await lease_ends()
        await jobs.save(await claimed(jobs, made.job), "unit:2", b"")
        assert await jobs.load(made.job) == {"unit:1": b"\x00\xff\n", "unit:2": b""}

    store(story)


def test_three_attempts_that_died_make_a_dead_letter_with_a_reason(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        for attempt in (1, 2, 3):
            assert (await claimed(jobs, made.job)).job.attempt == attempt
            await lease_ends()
        assert "died 3 times" in await refused(jobs, made.job)
        job = await jobs.get(made.job)
        assert job is not None
        assert job.state is State.FAILED
        assert "w1" in job.reason
        assert [dead.id for dead in await jobs.list(states=[State.FAILED])] == [made.job]

    store(story)


def test_a_fault_of_ours_counts_like_a_death(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        for _ in range(3):
            await jobs.died(await claimed(jobs, made.job), reason="KeyError in attempt 1")
        assert await state_of(jobs, made.job) is State.FAILED

    store(story)


def test_waiting_for_the_other_side_is_no_death(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        for attempt in range(1, 6):
            claim = await claimed(jobs, made.job)
            assert claim.job.attempt == attempt
            await jobs.release(claim, State.QUEUED, reason="the forge is away")
        assert await state_of(jobs, made.job) is State.QUEUED

    store(story)


def test_a_job_that_is_handed_back_has_lost_no_attempt(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        for _ in range(5):
            claim = await claimed(jobs, made.job)
            assert claim.job.attempt == 1
            await jobs.hand_back(claim, reason="its worker ended")
        assert await state_of(jobs, made.job) is State.QUEUED

    store(story)


def test_publishing_has_attempts_of_its_own(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        await claimed(jobs, made.job)
        await lease_ends()
        await jobs.release(await claimed(jobs, made.job), State.REVIEWED, reason="stored")
        assert "it is reviewed" in await refused(jobs, made.job)
        claim = await claimed(jobs, made.job, PUBLISH)
        assert (claim.job.state, claim.job.attempt) == (State.PUBLISHING, 1)
        await jobs.hand_back(claim, reason="its worker ended")
        assert await state_of(jobs, made.job) is State.REVIEWED

    store(story)


def test_publishing_may_die_as_often_as_reviewing_whatever_reviewing_did(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        for _ in range(2):
            await jobs.died(await claimed(jobs, made.job), reason="out of memory")
        await jobs.release(await claimed(jobs, made.job), State.REVIEWED, reason="stored")
        for _ in range(2):
            await jobs.died(await claimed(jobs, made.job, PUBLISH), reason="out of memory")
        assert await state_of(jobs, made.job) is State.REVIEWED
        await jobs.died(await claimed(jobs, made.job, PUBLISH), reason="out of memory")
        assert await state_of(jobs, made.job) is State.FAILED

    store(story)


def test_a_dead_letter_is_told_once_and_retried_or_dropped(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        await jobs.release(await claimed(jobs, made.job), State.FAILED, reason="no such model")
        assert [job.id for job in await jobs.untold(limit=5, again_s=60)] == [made.job]
        assert await jobs.untold(limit=5, again_s=60) == []
        await jobs.told(made.job)
        assert (await jobs.retry(made.job)).state is State.QUEUED
        with pytest.raises(NotFound):
            await jobs.retry(made.job)
        with pytest.raises(NotFound):
            await jobs.drop(made.job)
        await jobs.release(await claimed(jobs, made.job), State.FAILED, reason="no such model")
        await jobs.drop(made.job)
        assert await jobs.get(made.job) is None
        assert await jobs.list() == []
        assert await jobs.untold(limit=5, again_s=0) == []

    store(story)
