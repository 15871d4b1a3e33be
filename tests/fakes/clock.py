"""A clock that tests move: sleeping costs no time and is written down."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta


class FakeClock:
    """Implements `worker.ports.Clock`."""

    def __init__(self, start: datetime = datetime(2026, 11, 20, 12, tzinfo=UTC)) -> None:
        self._start = start
        self.passed_s = 0.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.passed_s)

    def monotonic(self) -> float:
        return self.passed_s

    def advance(self, seconds: float) -> None:
        self.passed_s += seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.passed_s += seconds
        await asyncio.sleep(0)
