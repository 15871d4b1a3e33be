"""The stores of job records that the contracts are held against."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.fakes.job_steps import Story
from tests.fakes.jobs import FakeJobs
from worker.ports import Jobs
from worker.storage.connection import connect
from worker.storage.jobs import RedisJobs


@pytest.fixture(params=["fake", "redis"])
def store(request: pytest.FixtureRequest) -> Story:
    """Tell a story to a store whose leases last 0.15 s."""
    return _telling(request, lease_s=0.15)


@pytest.fixture(params=["fake", "redis"])
def patient_store(request: pytest.FixtureRequest) -> Story:
    """The same with leases that outlast a busy machine."""
    return _telling(request, lease_s=60)


def _telling(request: pytest.FixtureRequest, *, lease_s: float) -> Story:
    if request.param == "fake":
        return lambda story: asyncio.run(story(FakeJobs(lease_s=lease_s)))  # type: ignore[arg-type]
    url = request.getfixturevalue("redis_url")

    @asynccontextmanager
    async def opened() -> AsyncIterator[Jobs]:
        client = connect(url)
        try:
            yield RedisJobs(client, lease_s=lease_s)
        finally:
            await client.aclose()

    async def told(story: Callable[[Jobs], Awaitable[None]]) -> None:
        async with opened() as jobs:
            await story(jobs)

    return lambda story: asyncio.run(told(story))
