"""Whether Redis serves a fleet: one that only answers is a replica, or full, and stores no job."""

from __future__ import annotations

import redis
import redis.asyncio

from worker.core.job import Priority
from worker.storage.connection import PREFIX
from worker.storage.faults import answering

KEY = f"{PREFIX}:health"
LIFE_S = 60


async def check_writes(client: redis.asyncio.Redis) -> str:
    """Write one short-lived key; what was found, in words. Raises `Unreachable` or `ConfigurationError`."""
    with answering():
        await client.set(KEY, "1", ex=LIFE_S)
        # A worker waits at several queues at once. A node of a cluster would take the jobs and refuse that.
        await client.exists(*Priority)
    return "takes writes"


async def is_kept_up(client: redis.asyncio.Redis) -> bool:
    """Whether any worker or `upkeep` is alive: one of them leads, and its place is free seconds after its end."""
    with answering():
        return bool(await client.exists(f"{PREFIX}:leader"))


def try_writes(client: redis.Redis) -> None:
    """The same without an event loop. Raises what the client raises."""
    client.set(KEY, "1", ex=LIFE_S)
    client.exists(*Priority)
