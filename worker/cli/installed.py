"""The installation that a command works with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from worker.bootstrap import Installation, with_model_chosen
from worker.cli.store import redis_url_of
from worker.clock import SystemClock
from worker.settings import Settings


@contextmanager
def installed(settings: Settings) -> Iterator[Installation]:
    """Limits and jobs are kept together with whoever else runs on the same Redis.

    Raises as `redis_url_of`, and as `choose_model` where the model is `auto`.
    """
    settings = asyncio.run(with_model_chosen(settings, clock=SystemClock()))
    with redis_url_of(settings) as url:
        yield Installation(settings, url)
