"""Ending tasks for sure: being told once is not always heard."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_S = 2.0
"""Long enough for what a task cleans up when it is cancelled: a second time would cut that short."""


async def end(tasks: Iterable[asyncio.Future[Any]], *, again_s: float = AGAIN_S) -> None:
    """Cancel `tasks` and wait until all have ended; what one raised is taken as answered by the reason to end it.

    Up to Python 3.11 `asyncio.wait_for`, by which redis-py sends, drops a cancellation that comes just when its call
    ends (https://github.com/python/cpython/issues/86296); the task then goes on as if nobody had told it.
    """
    tasks = list(tasks)
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=again_s)
    for task in tasks:
        if not task.cancelled():
            task.exception()
