"""Redis for a command: the one at REDIS_URL, else the embedded one of KIMI_REVIEW_HOME."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import redis.asyncio

from worker.cli.setting_up import set_up
from worker.ports import Jobs
from worker.settings import Role, Settings
from worker.storage import embedded
from worker.storage.connection import connect
from worker.storage.jobs import RedisJobs

ANSWER_TIMEOUT_S = 5.0

Result = TypeVar("Result")


@contextmanager
def redis_url_of(settings: Settings) -> Iterator[str]:
    """Where Redis listens; an embedded one runs while the context lasts. Raises `ConfigurationError`, `Unreachable`."""
    if settings.redis_dsn is not None:
        yield settings.redis_dsn.get_secret_value()
        return
    with embedded.start(settings.kimi_review_home) as redis:
        yield redis.url


@asynccontextmanager
async def opened_redis(settings: Settings) -> AsyncIterator[redis.asyncio.Redis]:
    """A client for the running event loop. Raises as `redis_url_of`."""
    with redis_url_of(settings) as url:
        client = connect(url, timeout_s=ANSWER_TIMEOUT_S)
        try:
            yield client
        finally:
            await client.aclose()


@asynccontextmanager
async def opened_jobs(settings: Settings) -> AsyncIterator[Jobs]:
    """The job records. Raises as `redis_url_of`."""
    async with opened_redis(settings) as client:
        yield RedisJobs(client, lease_s=settings.job_lease_s)


def ask_jobs(ask: Callable[[Jobs, Settings], Awaitable[Result]]) -> Result:
    """All that a command which only asks for jobs does: read the settings, and run `ask` over the records."""
    settings = set_up(Role.QUERY, level="warning")

    async def run() -> Result:
        async with opened_jobs(settings) as jobs:
            return await ask(jobs, settings)

    return asyncio.run(run())


def ask_redis(ask: Callable[[redis.asyncio.Redis], Awaitable[Result]]) -> Result:
    """`ask_jobs`, for what stands in Redis besides the records."""
    settings = set_up(Role.QUERY, level="warning")

    async def run() -> Result:
        async with opened_redis(settings) as client:
            return await ask(client)

    return asyncio.run(run())
