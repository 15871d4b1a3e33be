"""`batch`: many reviews at low priority, with what they may cost told first; `batch status`: how far they are."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from worker.bootstrap import Installation, Services
from worker.cli.batch_file import refs_in
from worker.cli.installed import installed
from worker.cli.job_text import show_pause, show_table
from worker.cli.report_text import open_console
from worker.cli.setting_up import set_up
from worker.cli.store import opened_jobs
from worker.core.change import Change, ChangeRef
from worker.core.counting import counted
from worker.core.delivery import Ignored
from worker.core.errors import BadInput, ConfigurationError, ReviewError
from worker.core.job import State
from worker.core.job_json import job_json
from worker.core.markdown import visible
from worker.exits import Exit, complain
from worker.review.batch import (
    Chosen,
    Estimate,
    NotRead,
    Progress,
    accept_all,
    choose,
    estimate,
    named,
    open_since,
    progress,
)
from worker.review.conduct import reason_to_skip
from worker.settings import Role, Settings
from worker.storage.spending import Spending

STATUS = "status"
LOOKED_BACK = 30
"""Reviews whose cost the estimate is made from, at most."""
KEPT_JOBS = 10_000
SHOWN_ROWS = 40
_DAYS = re.compile(r"([0-9]{1,4})d")


def batch(
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE|status", help="One change a line: its URL, or owner/name#7; `status`: how far."),
    ] = None,
    repository: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="The open changes of a repository in place of a file.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="DATE|Nd", help="With --repository: touched since 2026-11-01, or in the last N days."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the reviews are queued.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With status: one JSON value instead of a table.")] = False,
) -> None:
    """Queue many reviews at low priority; `batch status` shows how far they are."""
    if file == STATUS and repository is None:
        _status(as_json=as_json)
        return
    if (file is None) == (repository is None):
        raise BadInput("Give a file with one change a line, or --repository OWNER/NAME with --since.")
    if (repository is None) != (since is None):
        raise BadInput("--repository and --since go together: --repository owner/name --since 7d.")
    if as_json:
        raise BadInput("--json belongs to `batch status`.")
    settings = set_up(Role.REVIEW, level="warning")
    if not settings.has_github:
        raise ConfigurationError(["GITHUB_TOKEN: is not set, and changes on GitHub cannot be read without it."])
    refs = refs_in(Path(file), settings) if file is not None else ()
    start = _since(since, now=datetime.now(UTC)) if since is not None else None
    with installed(settings) as installation:
        chosen, priced = asyncio.run(_look(installation, refs, repository, start))
        if _agreed(chosen, priced, settings, is_agreed=yes):
            _queue(installation, chosen)
    if chosen.left_out and not chosen.new and not chosen.known:
        complain("none of these changes can be reviewed.")
        sys.exit(Exit.FAILED)


async def _look(
    installation: Installation, refs: Sequence[ChangeRef], repository: str | None, since: datetime | None
) -> tuple[Chosen, Estimate]:
    async with installation.services() as services:
        policy = installation.review_policy
        chosen = await choose(
            _found(services, refs, repository, since),
            jobs=services.jobs,
            skips=lambda change: reason_to_skip(change, policy),
        )
        return chosen, estimate(await _costs(services), prices=installation.model_info.prices)


def _found(
    services: Services, refs: Sequence[ChangeRef], repository: str | None, since: datetime | None
) -> AsyncIterator[Change | NotRead]:
    if repository is not None and since is not None:
        return open_since(services.forge("github"), repository, since)
    return named(refs, forge=services.forge)


async def _costs(services: Services) -> list[float]:
    """Dollars of the last reviews that were done here and whose price is known."""
    books = Spending(services.redis)
    done = await services.jobs.list(states=(State.DONE,), limit=LOOKED_BACK)
    spent = [await books.spent(job=job.id) for job in done]
    return [one.usd for one in spent if one.requests and not one.unpriced_requests]


def _agreed(chosen: Chosen, priced: Estimate, settings: Settings, *, is_agreed: bool) -> bool:
    """Tell what would happen, and ask; False when there is nothing to do or the answer is no."""
    console = open_console()
    total = len(chosen.new) + len(chosen.known) + len(chosen.left_out)
    console.print(f"{counted(total, 'change')}: {len(chosen.new)} to review, {len(chosen.known)} with a job already.")
    for ref, reason in chosen.left_out[:SHOWN_ROWS]:
        console.print(Text(f"  left out: {visible(str(ref))}: {visible(reason)}", style="yellow"), soft_wrap=True)
    if len(chosen.left_out) > SHOWN_ROWS:
        console.print(f"  left out: {len(chosen.left_out) - SHOWN_ROWS} more")
    if not chosen.new:
        console.print("Nothing to add. `kimi-review jobs` shows how far the others are.")
        return False
    if priced.usd_each is None:
        console.print(f"Cost not known: {priced.basis}.")
    else:
        usd = priced.usd_each * len(chosen.new)
        console.print(f"About ${usd:,.2f}, ${priced.usd_each:.4f} each: {priced.basis}.")
    stop = settings.llm_monthly_budget_usd
    console.print(
        "LLM_MONTHLY_BUDGET_USD is not set: nothing stops the spending."
        if stop is None
        else f"LLM_MONTHLY_BUDGET_USD stops the spending of a month at ${stop:,.2f}."
    )
    if is_agreed:
        return True
    if not sys.stdin.isatty():
        raise BadInput("Nothing was queued: there is nobody to ask. Add --yes.")
    return typer.confirm(f"Queue {len(chosen.new)}?", default=False)


def _check_interrupted() -> None:
    """Raise for a Ctrl-C that was lost: up to Python 3.11 what redis-py sends by may drop it (`worker/ending.py`)."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _queue(installation: Installation, chosen: Chosen) -> None:
    stored: Counter[bool] = Counter()
    """How many were new, and how many were not."""

    async def queue() -> str:
        async with installation.services() as services:
            try:
                async for change, accepted in accept_all(chosen, request=services.request):
                    if isinstance(accepted, Ignored):
                        complain(f"{change.ref}: {accepted.reason}. GITHUB_REPOSITORIES says which ones are reviewed.")
                    else:
                        stored[accepted.is_new] += 1
                    _check_interrupted()
            except ReviewError:
                _check_interrupted()
                raise
            return await services.jobs.paused()

    try:
        paused = asyncio.run(queue())
    except (ReviewError, KeyboardInterrupt):
        so_far = f"{stored.total()} of {len(chosen.new)} were queued so far"
        complain(f"{so_far}; give the same command again for the rest: nothing is queued twice.")
        raise
    console = open_console()
    there = f", {stored[False]} were there already and wait again." if stored[False] else "."
    console.print(f"{stored[True]} queued{there}")
    show_pause(paused, console)
    console.print("Workers take them up when nothing more urgent waits: `kimi-review serve`, or the containers.")
    # Jobs that a webhook or a command made before are no batch's, and `batch status` knows nothing of them.
    console.print(f"Next: `kimi-review {'batch status' if stored[True] else 'jobs'}`.")


def _status(*, as_json: bool) -> None:
    settings = set_up(Role.QUERY, level="warning")

    async def ask() -> tuple[Progress, str]:
        async with opened_jobs(settings) as store:
            return await progress(store, limit=KEPT_JOBS), await store.paused()

    found, paused = asyncio.run(ask())
    if as_json:
        counts = {state.value: number for state, number in found.counts.items()}
        print(json.dumps({"counts": counts, "paused": paused, "jobs": [job_json(job) for job in found.jobs]}, indent=2))
        return
    _show_progress(found, paused, open_console())


def _show_progress(found: Progress, paused: str, console: Console) -> None:
    if not found.jobs:
        console.print("No batch is kept here. `kimi-review batch FILE` queues one.")
        return
    counts = " · ".join(f"{number} {state.value}" for state, number in found.counts.items() if number)
    console.print(Text(f"{found.ended} of {len(found.jobs)} reviews ended: {counts}", style="bold"))
    show_pause(paused, console)
    # What is done needs nobody; what waits in line has no story yet.
    telling = [job for job in found.jobs if job.state not in (State.DONE, State.QUEUED)]
    show_table(telling[:SHOWN_ROWS], console)
    if len(telling) > SHOWN_ROWS:
        console.print(f"… and {len(telling) - SHOWN_ROWS} more; --json lists them all.")
    if any(job.state is State.FAILED for job in found.jobs):
        console.print("Failed ones: `kimi-review why JOB` tells why, `kimi-review dead retry JOB` queues it again.")


def _since(text: str, *, now: datetime) -> datetime:
    if days := _DAYS.fullmatch(text):
        return now - timedelta(days=int(days[1]))
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInput("--since is a date, 2026-11-01, or a number of days, 7d.") from error
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
