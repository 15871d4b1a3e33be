"""What one admission costs Redis, by how many already stand in line."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from redis.asyncio import Redis

from worker.core.job import Priority
from worker.core.limits import Limits
from worker.ports import Cost, Flow
from worker.storage.throttle import RedisThrottle

CONCURRENCY = 30
CHANGES, REPOSITORIES = 200, 40
SAMPLES = 300


@dataclass(frozen=True)
class Price:
    """Microseconds of Redis' time by its own count, the mean of `SAMPLES` calls."""

    waiters: int
    join_us: float
    """To stand in line."""
    hand_on_us: float
    """To give a slot back and admit who is next."""


class Line:
    """Requests that hold their slot until told, and a line of waiting ones behind them."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.throttle = RedisThrottle(
            redis, account="line", limits=Limits(concurrency=CONCURRENCY, rpm=10**6, tpm=10**10), lease_s=60.0
        )
        self.held: deque[asyncio.Event] = deque()
        self.tasks: list[asyncio.Task[None]] = []

    async def _request(self, number: int) -> None:
        priority = Priority.BATCH if number % 3 else Priority.INTERACTIVE
        flow = Flow(f"change-{number % CHANGES}", f"repository-{number % REPOSITORIES}", priority)
        async with self.throttle.admit(Cost(10_000, 8_000), flow=flow):
            done = asyncio.Event()
            self.held.append(done)
            await done.wait()

    async def join(self, number: int) -> None:
        """Add `number` waiters and come back when Redis has them all."""
        expected = (await self.throttle.standing()).waiting + number
        self.tasks += [asyncio.create_task(self._request(len(self.tasks) + at)) for at in range(number)]
        while (await self.throttle.standing()).waiting < expected:  # noqa: ASYNC110 — the line is in another process
            await asyncio.sleep(0.1)

    async def hand_on(self, number: int) -> None:
        """Let `number` requests end, one after the other, each making room for the next in line."""
        for _ in range(number):
            self.held.popleft().set()
            while len(self.held) < CONCURRENCY:  # noqa: ASYNC110 — what is waited for are many tasks
                await asyncio.sleep(0.001)

    async def cost_us(self, command: str) -> tuple[float, float]:
        stats = (await self.redis.info("commandstats")).get(command, {"usec": 0, "calls": 0})
        return float(stats["usec"]), float(stats["calls"])

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def measure(redis_url: str, sizes: tuple[int, ...]) -> list[Price]:
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        line = Line(redis)
        line.tasks += [asyncio.create_task(line._request(number)) for number in range(CONCURRENCY)]
        while len(line.held) < CONCURRENCY:  # noqa: ASYNC110 — what is waited for are many tasks
            await asyncio.sleep(0.01)
        prices = []
        for size in sizes:
            waiting = (await line.throttle.standing()).waiting
            await line.join(size - waiting)
            await redis.config_resetstat()
            await line.join(SAMPLES)
            usec, calls = await line.cost_us("cmdstat_evalsha")
            await redis.config_resetstat()
            await line.hand_on(SAMPLES)
            handed_usec, handed_calls = await line.cost_us("cmdstat_evalsha")
            prices.append(Price(size, usec / calls, handed_usec / handed_calls))
        await line.close()
        return prices
