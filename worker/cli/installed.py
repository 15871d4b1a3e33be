"""The installation that a command works with: REDIS_URL, or the embedded Redis of KIMI_REVIEW_HOME."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from worker.bootstrap import Installation, with_model_chosen
from worker.clock import SystemClock
from worker.settings import Settings
from worker.storage import embedded


@contextmanager
def installed(settings: Settings) -> Iterator[Installation]:
    """Limits and jobs are kept together with whoever else runs on the same home.

    Raises `ConfigurationError`, `Unreachable`, and as `choose_model` does where the model is `auto`.
    """
    settings = asyncio.run(with_model_chosen(settings, clock=SystemClock()))
    if settings.redis_dsn is not None:
        yield Installation(settings, settings.redis_dsn.get_secret_value())
        return
    with embedded.start(settings.kimi_review_home) as redis:
        yield Installation(settings, redis.url)
