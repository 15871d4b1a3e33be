"""The fencing token of a lease, over the end of the store that gave it out."""

from __future__ import annotations

import asyncio

import pytest

from worker.core.change import ChangeRef
from worker.core.errors import LeaseLost
from worker.core.job import Claim, Intent, State
from worker.storage.connection import connect
from worker.storage.jobs import RedisJobs


def test_who_held_a_job_when_the_store_was_emptied_is_not_taken_for_who_holds_it_now(redis_url: str) -> None:
    async def story() -> None:
        client = connect(redis_url)
        try:
            jobs = RedisJobs(client)

            async def claimed() -> Claim:
                job = (await jobs.accept(Intent(ChangeRef("github", "octo/cat", 7), "a" * 40))).job
                claim = await jobs.claim(job, worker="w", states=(State.QUEUED,))
                assert isinstance(claim, Claim)
                return claim

            before = await claimed()
            await client.flushall()
            now = await claimed()
            assert now.job.id == before.job.id
            assert now.token > before.token
            with pytest.raises(LeaseLost):
                await jobs.save(before, "unit:1", b"late")
            assert not await jobs.is_current(before)
            await jobs.save(now, "unit:1", b"in time")
        finally:
            await client.aclose()

    asyncio.run(story())


def test_who_claimed_a_job_in_writes_that_a_failover_lost_is_not_taken_for_who_holds_it_now(redis_url: str) -> None:
    async def story() -> None:
        client = connect(redis_url)
        try:
            jobs = RedisJobs(client)
            job = (await jobs.accept(Intent(ChangeRef("github", "octo/cat", 7), "a" * 40))).job

            async def claimed() -> Claim:
                claim = await jobs.claim(job, worker="w", states=(State.QUEUED,))
                assert isinstance(claim, Claim)
                return claim

            await jobs.release(await claimed(), State.QUEUED, reason="handed back")
            # What a replica has that was promoted before the claim reached it.
            replicated = {key: await client.dump(key) for key in await client.keys()}
            lost = await claimed()
            await client.flushall()
            for key, value in replicated.items():
                await client.restore(key, 0, value)
            now = await claimed()
            assert now.token != lost.token
            with pytest.raises(LeaseLost):
                await jobs.save(lost, "unit:1", b"late")
            await jobs.save(now, "unit:1", b"in time")
        finally:
            await client.aclose()

    asyncio.run(story())
