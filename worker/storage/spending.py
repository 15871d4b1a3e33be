"""What was spent, per month, repository and review: counted where requests are admitted, read here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from redis.asyncio import Redis

from worker.storage.connection import PREFIX
from worker.storage.faults import answering

MONEY_PREFIX = f"{PREFIX}:spending:"
"""One hash tag with the throttle's keys: admission and booking are one step, and a budget spans all accounts."""


def micro_usd(usd: float) -> int:
    """Millionths of a dollar, rounded up: whole numbers add up exactly however many there are."""
    return math.ceil(round(usd * 1_000_000, 3))


@dataclass(frozen=True, slots=True)
class Spent:
    """The books of one month or one review. `reserved_usd` is the worst case of what is under way now."""

    usd: float = 0.0
    reserved_usd: float = 0.0
    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    unpriced_requests: int = 0
    """Answered, but of a model whose price is not known: `usd` lacks them."""
    lost_requests: int = 0
    """Of processes that died: nobody knows what they cost, so `usd` holds their worst case."""
    repositories: Mapping[str, float] = field(default_factory=dict)
    """Dollars per repository; for a month only."""


class Spending:
    """Reads the books that the throttle writes."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def spent(self, *, month: str | None = None, job: str | None = None) -> Spent:
        """The books of the review `job`, else those of `month` ("2026-11", UTC), else those of this month.

        Raises `Unreachable`.
        """
        name = f"job:{job}" if job else f"month:{month or datetime.now(UTC).strftime('%Y-%m')}"
        with answering():
            raw = await self._redis.hgetall(f"{MONEY_PREFIX}{name}")
        return read_books({_text(field): int(value) for field, value in raw.items()})


def read_books(books: Mapping[str, int]) -> Spent:
    """`books` as the scripts write them: micro-dollars, counters, and `repository:<name>`."""
    return Spent(
        usd=books.get("spent", 0) / 1e6,
        reserved_usd=books.get("reserved", 0) / 1e6,
        requests=books.get("requests", 0),
        input_tokens=books.get("input", 0),
        cached_tokens=books.get("cached", 0),
        output_tokens=books.get("output", 0),
        unpriced_requests=books.get("unpriced", 0),
        lost_requests=books.get("lost", 0),
        repositories={
            name.removeprefix("repository:"): value / 1e6
            for name, value in sorted(books.items())
            if name.startswith("repository:")
        },
    )


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
