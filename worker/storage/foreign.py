"""Messages that are none of ours: kept as dead letters by name, reason and size, never by content."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import redis
import redis.asyncio
import structlog

from worker.storage.connection import PREFIX, connected
from worker.storage.faults import answering

log = structlog.get_logger()

KEY = f"{PREFIX}:foreign"
COUNT_KEY = f"{KEY}:count"
KEPT = 1000
LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Foreign:
    """`task` is the name the message gave, cut and escaped; `at` is Unix seconds; `size` is the body's, in bytes."""

    task: str
    reason: str
    size: int
    at: float


def put_aside(client: redis.Redis, *, task: str, reason: str, size: int) -> None:
    """Note a message and log it, without what is in it. Raises what the client raises."""
    name = task[:LONGEST_NAME].encode("unicode_escape").decode("ascii")
    foreign = Foreign(task=name, reason=reason, size=size, at=time.time())
    client.lpush(KEY, json.dumps(asdict(foreign)))
    client.ltrim(KEY, 0, KEPT - 1)
    client.incr(COUNT_KEY)
    log.error("message.put_aside", task=name, reason=reason, bytes=size)


def keep_foreign(url: str, *, task: str, reason: str, size: int) -> None:
    """The same where no client is at hand. Raises `Unreachable`."""
    with answering(), connected(url) as client:
        put_aside(client, task=task, reason=reason, size=size)


async def count_foreign(client: redis.asyncio.Redis) -> int:
    """How many there ever were; the newest `KEPT` are kept."""
    with answering():
        return int(await client.get(COUNT_KEY) or 0)


async def list_foreign(client: redis.asyncio.Redis, *, limit: int = 100) -> Sequence[Foreign]:
    """The newest first."""
    with answering():
        rows = await client.lrange(KEY, 0, limit - 1)
    found = [json.loads(row) for row in rows]
    return [Foreign(task=one["task"], reason=one["reason"], size=one["size"], at=one["at"]) for one in found]
