"""Messages that are none of ours: kept as dead letters by name, reason and size, never by content."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import redis
import redis.asyncio

from worker.storage.connection import PREFIX, answering, redis_url

KEY = f"{PREFIX}:foreign"
KEPT = 1000
LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Foreign:
    """`task` is the name the message gave, cut and escaped; `at` is Unix seconds; `size` is the body's, in bytes."""

    task: str
    reason: str
    size: int
    at: float


def keep_foreign(url: str, *, task: str, reason: str, size: int) -> Foreign:
    """Note a message; called where no event loop runs. Raises `Unreachable`."""
    name = task[:LONGEST_NAME].encode("unicode_escape").decode("ascii")
    foreign = Foreign(task=name, reason=reason, size=size, at=time.time())
    with answering(), redis.Redis.from_url(redis_url(url), socket_timeout=5, socket_connect_timeout=5) as client:
        client.lpush(KEY, json.dumps(asdict(foreign)))
        client.ltrim(KEY, 0, KEPT - 1)
    return foreign


async def list_foreign(client: redis.asyncio.Redis, *, limit: int = 100) -> Sequence[Foreign]:
    """The newest first."""
    with answering():
        rows = await client.lrange(KEY, 0, limit - 1)
    return [Foreign(**json.loads(row)) for row in rows]
