"""A throttle in memory, for one process: concurrency alone, and a record of what it was told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from worker.core.report import Usage
from worker.ports import Cost, Flow, Slot


class FakeSlot:
    def __init__(self, throttle: FakeThrottle) -> None:
        self._throttle = throttle

    async def settle(self, usage: Usage) -> None:
        self._throttle.settled.append(usage)


class FakeThrottle:
    """Implements `worker.ports.Throttle` for one event loop."""

    def __init__(self, concurrency: int | None = None) -> None:
        self._places = None if concurrency is None else asyncio.Semaphore(concurrency)
        self.running = 0
        self.most_running = 0
        self.costs: list[Cost] = []
        self.flows: list[Flow] = []
        self.settled: list[Usage] = []
        self.refusals: list[Exception] = []
        self.running_at_refusal: list[int] = []

    @asynccontextmanager
    async def admit(self, cost: Cost, *, flow: Flow) -> AsyncIterator[Slot]:
        self.costs.append(cost)
        self.flows.append(flow)
        if self._places is not None:
            await self._places.acquire()
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            yield FakeSlot(self)
        finally:
            self.running -= 1
            if self._places is not None:
                self._places.release()

    async def refused(self, error: Exception) -> None:
        self.refusals.append(error)
        self.running_at_refusal.append(self.running)
