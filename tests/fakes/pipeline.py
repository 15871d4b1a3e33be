"""A pipeline without a forge and a model: real job records, and a ledger of effects in the same Redis.

It stands where `bootstrap.services` stands, so that what holds, kills and hands over jobs is all real. What a
job does is written into Redis lists: which units were bought, and what was posted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import redis.asyncio
from celery import Celery

from worker.clock import SystemClock
from worker.core.job import Job, State
from worker.review.lease import Lease
from worker.storage.connection import connect
from worker.storage.jobs import RedisJobs
from worker.storage.queue import CeleryWake

BOUGHT = "effects:bought"
POSTED = "effects:posted"
TOLD = "effects:told"
LEAKED: list[bytes] = []


@dataclass(frozen=True, slots=True)
class Pipeline:
    """`units` requests of `unit_s` seconds each, then one post of `post_s` seconds."""

    jobs: RedisJobs
    wake: CeleryWake
    clock: SystemClock
    effects: redis.asyncio.Redis
    units: int = 2
    unit_s: float = 0.05
    post_s: float = 0.02
    leak_mb: int = 0
    """What each review takes and never gives back."""

    async def review(self, lease: Lease) -> None:
        claim = lease.claim
        LEAKED.append(b"x" * (self.leak_mb * 2**20))
        saved = await self.jobs.load(claim.job.id)
        for number in range(self.units):
            name = f"unit:{number}"
            if name not in saved:
                await self.effects.rpush(BOUGHT, f"{claim.job.id} {name}")
                await asyncio.sleep(self.unit_s)
                await self.jobs.save(claim, name, b"answer")
        await self.jobs.save(claim, "report", claim.job.head.encode())
        await self.jobs.release(claim, State.REVIEWED, reason="the report is stored")
        await self.wake.publish(claim.job.id, claim.job.priority)

    async def publish(self, lease: Lease) -> None:
        claim = lease.claim
        mark = f"{claim.job.ref} {claim.job.head}"
        if mark not in await self.posted():
            await self.jobs.renew(claim)
            await self.effects.rpush(POSTED, mark)
            await asyncio.sleep(self.post_s)
        await self.jobs.advance(claim, State.DONE, reason="posted")

    async def tell(self, job: Job) -> None:
        await self.effects.rpush(TOLD, job.id)

    async def reconcile(self) -> None:
        """There is no forge whose open changes could be asked for."""

    async def posted(self) -> list[str]:
        return [row.decode() for row in await self.effects.lrange(POSTED, 0, -1)]


@asynccontextmanager
async def pipeline(
    url: str, app: Celery, *, lease_s: float = 2.0, units: int = 2, unit_s: float = 0.05, leak_mb: int = 0
) -> AsyncIterator[Pipeline]:
    client = connect(url)
    try:
        yield Pipeline(
            jobs=RedisJobs(client, lease_s=lease_s),
            wake=CeleryWake(app, client),
            clock=SystemClock(),
            effects=client,
            units=units,
            unit_s=unit_s,
            leak_mb=leak_mb,
        )
    finally:
        await client.aclose()
