"""A throttle that lets everything through and remembers what it was told: what a model must tell it is tested so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from worker.core.usage import Usage
from worker.ports import Cost, Flow, Slot


class _Slot:
    def __init__(self, throttle: OpenThrottle) -> None:
        self._throttle = throttle

    async def settle(self, usage: Usage) -> None:
        self._throttle.settled.append(usage)


class OpenThrottle:
    """Implements `worker.ports.Throttle`. `running` counts what is admitted now."""

    def __init__(self) -> None:
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
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            yield _Slot(self)
        finally:
            self.running -= 1

    async def refused(self, error: Exception) -> None:
        self.refusals.append(error)
        self.running_at_refusal.append(self.running)
