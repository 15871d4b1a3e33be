"""How the fleet does beyond its jobs: queues, the account's limits, the month's spending. All of it is in Redis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from worker.bootstrap import Services
from worker.core.job import Priority, Stage
from worker.storage.spending import Spending, Spent
from worker.storage.throttle import Standing


@dataclass(frozen=True, slots=True)
class Vitals:
    """One look at the whole fleet, whichever process asks."""

    waiting: Mapping[Priority, int]
    """Messages that no worker has taken yet."""
    model: Standing
    """Of the account that the first provider is asked with."""
    month: str
    """"2026-11", in UTC."""
    spent: Spent
    month_budget_usd: float | None = None
    fallback: Standing | None = None
    """Of the second provider's account, where there is one."""
    longest_waits_s: Mapping[tuple[Stage, Priority], float] = field(default_factory=dict)
    """How long the job that waits longest for a worker does, by its next step and priority."""


async def vitals_of(services: Services) -> Vitals:
    """Raises `Unreachable`."""
    month = f"{datetime.now(UTC):%Y-%m}"
    return Vitals(
        waiting={priority: await services.wake.waiting(priority) for priority in Priority},
        model=await services.throttle.standing(),
        month=month,
        spent=await Spending(services.redis).spent(month=month),
        month_budget_usd=services.installation.settings.llm_monthly_budget_usd,
        fallback=None if services.second is None else await services.second.throttle.standing(),
        longest_waits_s=await services.jobs.longest_waits(),
    )
