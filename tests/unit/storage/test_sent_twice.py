"""A step whose answer is lost with the connection is sent again by the client: it says and does what it did before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.fakes.job_steps import PUBLISH, REF, A, B, claimed, refused, state_of
from worker.core.errors import Superseded
from worker.core.job import Intent, Job, State
from worker.storage.connection import connect
from worker.storage.jobs import RedisJobs

Story = Callable[[RedisJobs], Awaitable[None]]


@pytest.fixture
def store(redis_url: str) -> Callable[[Story], None]:
    """Tell a story to a store that hears each step twice; what it answered the first time is lost."""

    async def told(story: Story) -> None:
        client = connect(redis_url)
        send = client.execute_command

        async def again(*words: Any, **options: Any) -> Any:
            if words[0] == "EVALSHA":
                await send(*words, **options)
            return await send(*words, **options)

        client.execute_command = again  # type: ignore[method-assign]
        try:
            await story(RedisJobs(client, lease_s=60))
        finally:
            await client.aclose()

    return lambda story: asyncio.run(told(story))


async def job_of(jobs: RedisJobs, job_id: str) -> Job:
    job = await jobs.get(job_id)
    assert job is not None
    return job


async def events(jobs: RedisJobs, job_id: str) -> list[str]:
    return [decision.event for decision in await jobs.decisions(job_id)]


@pytest.mark.parametrize("head", [A, ""], ids=["with a head", "without one"])
@pytest.mark.parametrize("force", [False, True], ids=["asked for", "by force"])
def test_what_is_accepted_is_one_job(store: Callable[[Story], None], head: str, force: bool) -> None:
    async def story(jobs: RedisJobs) -> None:
        made = await jobs.accept(Intent(REF, head, force=force))
        assert made.state is State.QUEUED
        assert [job.id for job in await jobs.list()] == [made.job]
        assert await events(jobs, made.job) == ["job.queued"]

    store(story)


def test_a_finished_head_that_is_reviewed_by_force_gets_one_more_job(store: Callable[[Story], None]) -> None:
    async def story(jobs: RedisJobs) -> None:
        first = await jobs.accept(Intent(REF, A))
        await jobs.advance(await claimed(jobs, first.job), State.DONE, reason="posted")
        second = await jobs.accept(Intent(REF, A, force=True))
        assert {job.id for job in await jobs.list()} == {first.job, second.job}
        assert first.job != second.job

    store(story)


def test_a_claim_is_had_and_counts_one_attempt(store: Callable[[Story], None]) -> None:
    async def story(jobs: RedisJobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        claim = await claimed(jobs, made.job)
        assert (claim.job.attempt, claim.job.state) == (1, State.RUNNING)
        assert await jobs.is_current(claim)
        await jobs.save(claim, "unit:1", b"kept")
        assert await jobs.load(made.job) == {"unit:1": b"kept"}
        assert await events(jobs, made.job) == ["job.queued", "job.running"]
        assert "leased by w1" in await refused(jobs, made.job)

    store(story)


def test_a_job_that_is_settled_is_settled_once(store: Callable[[Story], None]) -> None:
    async def story(jobs: RedisJobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        await jobs.hand_back(await claimed(jobs, made.job), reason="its worker ended")
        await jobs.died(await claimed(jobs, made.job), reason="KeyError")
        assert (await events(jobs, made.job)).count("attempt.died") == 1
        claim = await claimed(jobs, made.job)
        assert claim.job.attempt == 2
        await jobs.release(claim, State.REVIEWED, reason="the report is stored")
        claim = await claimed(jobs, made.job, PUBLISH)
        assert claim.job.attempt == 1
        await jobs.advance(claim, State.DONE, reason="posted")
        assert await state_of(jobs, made.job) is State.DONE

    store(story)


def test_a_head_that_is_noted_supersedes_nobody_the_second_time(store: Callable[[Story], None]) -> None:
    async def story(jobs: RedisJobs) -> None:
        made = await jobs.accept(Intent(REF, ""))
        claim = await claimed(jobs, made.job)
        await jobs.note_head(claim, A)
        assert await jobs.is_current(claim)
        assert (await job_of(jobs, made.job)).head == A
        newer = await jobs.accept(Intent(REF, B))
        assert not await jobs.is_current(claim)
        await jobs.release(claim, State.SUPERSEDED, reason=str(Superseded("a newer head", by=B)))
        assert (await job_of(jobs, made.job)).superseded_by == B
        assert await state_of(jobs, newer.job) is State.QUEUED

    store(story)


def test_a_job_that_is_left_to_a_newer_program_loses_no_attempt(store: Callable[[Story], None]) -> None:
    async def story(jobs: RedisJobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        await jobs.leave(await claimed(jobs, made.job), reason="a checkpoint is of version 9")
        job = await job_of(jobs, made.job)
        assert (job.state, job.attempt, job.is_left) == (State.QUEUED, 0, True)
        assert (await events(jobs, made.job)).count("job.left") == 1

    store(story)
