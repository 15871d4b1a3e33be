"""Job records that kill their own process at a chosen step. Only tests load this: the program has no such hook.

A point is the name of a call and, for `save`, of the checkpoint: `save:unit`, `advance:done`. `before:` or `after:`
in front says on which side of the write it strikes. Each point strikes once in a fleet, and each job is struck twice at
most: a third death would make it a dead letter.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import redis.asyncio

from worker.core.job import Claim, NotClaimed, State
from worker.storage.jobs import RedisJobs

STRUCK = "chaos:struck"
DEATHS = "chaos:deaths"
MOST_DEATHS = 2


class KillingJobs(RedisJobs):
    """`points` are where this process dies."""

    def __init__(self, client: redis.asyncio.Redis, *, lease_s: float, points: frozenset[str]) -> None:
        super().__init__(client, lease_s=lease_s)
        self._points = points
        self._struck = client

    async def claim(self, job_id: str, *, worker: str, states: Sequence[State]) -> Claim | NotClaimed:
        claimed = await super().claim(job_id, worker=worker, states=states)
        if isinstance(claimed, Claim):
            await self._strike(f"after:claim:{claimed.job.state}", claimed)
        return claimed

    async def save(self, claim: Claim, name: str, value: bytes) -> None:
        point = f"save:{name.partition(':')[0]}"
        await self._strike(f"before:{point}", claim)
        await super().save(claim, name, value)
        await self._strike(f"after:{point}", claim)

    async def advance(self, claim: Claim, state: State, *, reason: str = "") -> None:
        await self._strike(f"before:advance:{state}", claim)
        await super().advance(claim, state, reason=reason)
        await self._strike(f"after:advance:{state}", claim)

    async def release(self, claim: Claim, state: State, *, reason: str, wait_s: float = 0.0) -> None:
        await self._strike(f"before:release:{state}", claim)
        await super().release(claim, state, reason=reason, wait_s=wait_s)
        await self._strike(f"after:release:{state}", claim)

    async def _strike(self, point: str, claim: Claim) -> None:
        if point not in self._points or int(await self._struck.hget(DEATHS, claim.job.id) or 0) >= MOST_DEATHS:
            return
        if await self._struck.sadd(STRUCK, point):
            await self._struck.hincrby(DEATHS, claim.job.id, 1)
            os.kill(os.getpid(), signal.SIGKILL)
