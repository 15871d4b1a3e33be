"""Asking again what changes nothing on the other side, while it stumbles; `core/retry.py` decides for how long."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TypeVar

import structlog

from worker.core.errors import Transient
from worker.core.retry import READ_RULE, Retry, Rule, decide_read
from worker.ports import Clock

log = structlog.get_logger()

T = TypeVar("T")


async def patiently(ask: Callable[[], Awaitable[T]], *, clock: Clock, **named: str) -> T:
    """What `ask` answers, at its first try or a later one. It must be safe to call twice.

    Raises what the last try raised. Whoever cancels it during a wait ends it at once. `named` says in the log what was
    asked.
    """
    began = clock.monotonic()
    for attempt in count(1):
        try:
            return await ask()
        except Transient as error:
            wait_s = wait_s_after(error, READ_RULE, attempt=attempt, elapsed_s=clock.monotonic() - began, **named)
            if wait_s is None:
                raise
        await clock.sleep(wait_s)
    raise AssertionError("every rule ends its attempts")


def wait_s_after(error: Transient, rule: Rule, *, attempt: int, elapsed_s: float, **named: str) -> float | None:
    """Seconds until the next try, which is logged, or None when this was the last one."""
    by_chance = random.random()  # noqa: S311 - no secret
    verdict = decide_read(error, attempt=attempt, elapsed_s=elapsed_s, random=by_chance, rule=rule)
    if not isinstance(verdict, Retry):
        return None
    log.warning(
        "forge.retry_scheduled",
        **named,
        attempt=attempt,
        wait_s=round(verdict.wait_s, 2),
        error_type=type(error).__name__,
        error=str(error),
    )
    return verdict.wait_s
