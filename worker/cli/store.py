"""The job records, for commands that only ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import redis.asyncio

from worker.ports import Jobs
from worker.settings import Settings
from worker.storage import embedded
from worker.storage.connection import connect
from worker.storage.jobs import RedisJobs

ANSWER_TIMEOUT_S = 5.0


@asynccontextmanager
async def opened_jobs(settings: Settings) -> AsyncIterator[Jobs]:
    """The records where `opened_redis` finds them."""
    async with opened_redis(settings) as client:
        yield RedisJobs(client, lease_s=settings.job_lease_s)


@asynccontextmanager
async def opened_redis(settings: Settings) -> AsyncIterator[redis.asyncio.Redis]:
    """The Redis at REDIS_URL, or the embedded one of KIMI_REVIEW_HOME. Raises `Unreachable`."""
    with ExitStack() as held:
        if settings.redis_dsn is not None:
            url = settings.redis_dsn.get_secret_value()
        else:
            url = held.enter_context(embedded.start(settings.kimi_review_home)).url
        client = connect(url, timeout_s=ANSWER_TIMEOUT_S)
        try:
            yield client
        finally:
            await client.aclose()
