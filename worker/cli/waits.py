"""What a job waits for besides its own time: others before it, the provider, or anybody who works at all."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from worker.bootstrap import Installation
from worker.cli.store import opened_redis, redis_url_of
from worker.core.job import Job, State
from worker.ports import Jobs
from worker.settings import Settings
from worker.storage.health import is_kept_up
from worker.storage.throttle import Standing

WAITING = (State.QUEUED, State.REVIEWED, State.DEFERRED)
WORKING = (State.RUNNING, State.PUBLISHING)
NO_WORKER = "No worker is running: start `kimi-review serve`, or `kimi-review worker` beside `api`."


async def show_waits(found: Sequence[Job], jobs: Jobs, settings: Settings, console: Console) -> None:
    """Tell what keeps `found` from their ends now, as far as anything does. Raises `Unreachable`."""
    states = {job.state for job in found}
    if not states.isdisjoint(WAITING):
        counts = await jobs.counts()
        waiting, working = (sum(counts[state] for state in kind) for kind in (WAITING, WORKING))
        console.print(Text(f"In all {waiting:,} waiting, {working:,} being worked on.", style="dim"))
    if State.RUNNING in states and (held := _held_back(await _standing(settings))):
        console.print(Text(held, style="yellow"))
    await show_absence(found, settings, console)


async def show_absence(found: Sequence[Job], settings: Settings, console: Console) -> None:
    """That nobody works, where one of `found` waits for somebody. Raises `Unreachable`."""
    if all(job.state.is_final for job in found):
        return
    async with opened_redis(settings) as client:
        if not await is_kept_up(client):
            console.print(Text(NO_WORKER, style="red"))


async def _standing(settings: Settings) -> Standing:
    """Of the account that the first provider is asked with: held back, requests wait within a running review."""
    with redis_url_of(settings) as url:
        async with Installation(settings, url).services() as services:
            return await services.throttle.standing()


def _held_back(standing: Standing) -> str:
    if (until := standing.quota_used_up_until) is not None:
        because = "The provider's quota is used up"
    elif (until := standing.paused_until) is not None:
        because = "The provider asked for a pause"
    else:
        return ""
    return f"{because}: requests go on at {until:%Y-%m-%d %H:%M:%S} UTC."
