"""How long the keys of a job are kept after its end, and what a job does that is taken up again after that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import redis.asyncio

from worker.core.change import ChangeRef
from worker.core.errors import Unreachable
from worker.core.job import Claim, Intent, State
from worker.storage.connection import PREFIX, connect
from worker.storage.jobs import RedisJobs

INTENT = Intent(ChangeRef("github", "octo/cat", 7), "a" * 40)
DAY_S = 86_400


def play(url: str, story: Callable[[RedisJobs, redis.asyncio.Redis], Awaitable[None]]) -> None:
    async def told() -> None:
        client = connect(url)
        try:
            await story(RedisJobs(client), client)
        finally:
            await client.aclose()

    asyncio.run(told())


async def ended(jobs: RedisJobs, state: State) -> str:
    """A job that was reviewed, and met this end when it was to be posted."""
    job = (await jobs.accept(INTENT)).job
    claim = await jobs.claim(job, worker="w", states=(State.QUEUED,))
    assert isinstance(claim, Claim)
    await jobs.save(claim, "report", b"r")
    await jobs.release(claim, State.REVIEWED, reason="stored")
    claim = await jobs.claim(job, worker="w", states=(State.REVIEWED,))
    assert isinstance(claim, Claim)
    await jobs.release(claim, state, reason="so it ended")
    return job


@pytest.mark.parametrize(("end", "saved_days"), [(State.DONE, 1), (State.SKIPPED, 1), (State.FAILED, 7)])
def test_a_record_is_kept_thirty_days_and_its_checkpoints_for_as_long_as_they_may_be_of_use(
    redis_url: str, end: State, saved_days: int
) -> None:
    async def story(jobs: RedisJobs, client: redis.asyncio.Redis) -> None:
        job = await ended(jobs, end)
        key = f"{PREFIX}:job:{job}"
        kept = [await client.ttl(name) for name in (key, f"{key}:log", f"{key}:saved")]
        for left_s, days in zip(kept, (30, 30, saved_days), strict=True):
            assert days * DAY_S - 60 < left_s <= days * DAY_S
        if end is not State.DONE:
            await jobs.accept(INTENT)
            assert [await client.ttl(name) for name in (key, f"{key}:log", f"{key}:saved")] == [-1, -1, -1]

    play(redis_url, story)


def test_a_delivery_is_known_again_for_a_week_and_a_change_for_ninety_days(redis_url: str) -> None:
    async def story(jobs: RedisJobs, client: redis.asyncio.Redis) -> None:
        await jobs.accept(replace(INTENT, delivery="d1"))
        change = f"{PREFIX}:change:{INTENT.ref}"
        for name, days in ((f"{PREFIX}:delivery:github:d1", 7), (change, 90), (f"{change}:jobs", 90)):
            assert days * DAY_S - 60 < await client.ttl(name) <= days * DAY_S

    play(redis_url, story)


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("end", [State.SKIPPED, State.FAILED])
def test_a_job_taken_up_again_is_posted_while_its_report_is_kept_and_reviewed_anew_after_that(
    redis_url: str, end: State, is_kept: bool
) -> None:
    async def story(jobs: RedisJobs, client: redis.asyncio.Redis) -> None:
        job = await ended(jobs, end)
        if not is_kept:
            await client.delete(f"{PREFIX}:job:{job}:saved")
        if end is State.FAILED:
            await jobs.retry(job)
        else:
            await jobs.accept(INTENT)
        found = await jobs.get(job)
        assert found is not None
        assert found.state is (State.REVIEWED if is_kept else State.QUEUED)
        states = (State.REVIEWED,) if is_kept else (State.QUEUED,)
        assert isinstance(await jobs.claim(job, worker="w", states=states), Claim)

    play(redis_url, story)


@pytest.mark.parametrize("days", [29, 32])
def test_a_dead_letter_is_listed_as_long_as_its_record_is_kept_however_long_it_was_open(
    redis_url: str, days: int
) -> None:
    async def story(jobs: RedisJobs, client: redis.asyncio.Redis) -> None:
        job = (await jobs.accept(INTENT)).job
        await client.hset(f"{PREFIX}:job:{job}", "created_at", "1000000.000000")
        claim = await jobs.claim(job, worker="w", states=(State.QUEUED,))
        assert isinstance(claim, Claim)
        await jobs.release(claim, State.FAILED, reason="so it ended")
        dead = f"{PREFIX}:state:failed"
        await client.zincrby(dead, -days * DAY_S, job)
        await jobs.trim()
        assert bool(await jobs.list(states=[State.FAILED])) == (days < 31)

    play(redis_url, story)


def test_what_an_older_program_leaves_in_the_index_of_those_that_wait_is_no_wait(redis_url: str) -> None:
    async def story(jobs: RedisJobs, client: redis.asyncio.Redis) -> None:
        job = await ended(jobs, State.DONE)
        waiting = f"{PREFIX}:waiting:review:interactive"
        await client.zadd(waiting, {job: 1.0, "0" * 20: 2.0})
        assert set((await jobs.longest_waits()).values()) == {0.0}
        await jobs.trim()
        assert await client.zcard(waiting) == 0

    play(redis_url, story)


def test_the_longest_wait_is_told_of_a_store_that_takes_no_writes(redis_url: str) -> None:
    async def story(jobs: RedisJobs, client: redis.asyncio.Redis) -> None:
        await jobs.accept(INTENT)
        await client.config_set("maxmemory", "1mb")
        try:
            with pytest.raises(Unreachable):
                await jobs.trim()
            assert len(await jobs.longest_waits()) == 6
        finally:
            await client.config_set("maxmemory", "0")

    play(redis_url, story)
