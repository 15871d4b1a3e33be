"""`why`, `jobs`, `dead`: what became of a change, what waits, what was given up."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from typing import Annotated

import redis.asyncio
import typer
from rich.text import Text

from worker.cli.change_names import parse_change
from worker.cli.job_text import (
    show_ignored,
    show_job,
    show_left,
    show_messages,
    show_pause,
    show_table,
    show_unheard_of,
)
from worker.cli.report_text import open_console
from worker.cli.store import ask_jobs, ask_redis
from worker.cli.waits import show_absence, show_waits
from worker.core.change import ChangeRef
from worker.core.errors import BadInput, NotFound
from worker.core.job import Job, State
from worker.core.job_json import ignored_json, job_json
from worker.core.markdown import visible
from worker.ports import Jobs
from worker.settings import Settings
from worker.storage.foreign import KEPT, count_foreign, list_foreign

dead = typer.Typer(help="Jobs that were given up: list, show, retry, drop.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON value instead of a table.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, as `jobs` and the log show it.")]

_JOB = re.compile(r"[0-9a-f]{12,64}")

REMEMBERED = 1_000
"""Jobs in which a repository is looked for that was written in another case."""


def why(
    change: Annotated[str, typer.Argument(metavar="URL-or-JOB", help="The change's URL, owner/name#7, or a job's id.")],
    as_json: AsJson = False,
) -> None:
    """Tell why a change was or was not reviewed."""

    async def ask(jobs: Jobs, settings: Settings) -> None:
        ref = parse_change(change, settings)
        if ref is not None:
            ref = await _as_known(ref, jobs)
        found = await jobs.find(ref) if ref is not None else [await _by_id(change, jobs)]
        logs = [(job, await jobs.decisions(job.id)) for job in found]
        ignored = await jobs.ignored(ref) if ref is not None else ()
        if found and ignored and ignored[-1].at < found[0].created_at:
            ignored = ()  # what was ignored then is reviewed by now
        if as_json:
            told = [ignored_json(ref, ignored)] if ref is not None and ignored else []
            print(json.dumps(told + [job_json(job, decisions) for job, decisions in logs], indent=2))
            return
        console = open_console()
        if ref is not None and ignored:
            show_ignored(ref, ignored, console)
        elif ref is not None and not logs:
            show_unheard_of(ref, settings.github_repositories, console)
        for job, decisions in logs:
            show_job(job, decisions, console)
        await show_waits(found, jobs, settings, console)
        show_pause(await jobs.paused(), console)

    ask_jobs(ask)


def jobs(
    state: Annotated[
        list[State] | None, typer.Option(help="Only jobs in this state; may be given several times.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, newest first.")] = 30,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""

    async def ask(store: Jobs, settings: Settings) -> None:
        found = await store.list(states=tuple(state or ()), limit=limit)
        if as_json:
            print(json.dumps([job_json(job) for job in found], indent=2))
            return
        console = open_console()
        counts = await store.counts()
        show_table(found, console)
        await show_absence(found, settings, console)
        show_pause(await store.paused(), console)
        show_left(await store.left(), console)
        standing = " · ".join(f"{counts[name]} {name.value}" for name in State if counts.get(name))
        console.print(
            Text(standing or "No jobs yet. `kimi-review serve` takes webhooks and POST /reviews.", style="dim")
        )
        if found:
            console.print("Next: `kimi-review why JOB` tells every step of one.")

    ask_jobs(ask)


@dead.command("list")
def list_dead(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, newest first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List the jobs that were given up, and the messages that were none of ours."""

    async def ask(store: Jobs, _: Settings) -> bool:
        found = await store.list(states=(State.FAILED,), limit=limit)
        if as_json:
            print(json.dumps([job_json(job) for job in found], indent=2))
            return False
        console = open_console()
        show_table(found, console)
        show_pause(await store.paused(), console)
        if not found:
            console.print("No dead letters: no job was given up.")
        return bool(found)

    has_dead = ask_jobs(ask)
    if not as_json:
        messages()
    if has_dead:
        print("Next: `kimi-review dead show JOB`, then `dead retry JOB` or `dead drop JOB`.")


@dead.command()
def messages(
    limit: Annotated[int, typer.Option(min=1, max=KEPT, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List what stood in the queue and was no message of this program: task, reason and size, never the content."""

    async def ask(client: redis.asyncio.Redis) -> None:
        found, count = await list_foreign(client, limit=limit), await count_foreign(client)
        if as_json:
            print(json.dumps({"count": count, "messages": [asdict(one) for one in found]}, indent=2))
        elif found:
            console = open_console()
            show_messages(found, console)
            console.print(Text(f"{count} messages put aside in all; the newest {KEPT} are kept.", style="dim"))

    ask_redis(ask)


@dead.command()
def show(job: JobId, as_json: AsJson = False) -> None:
    """Show one job with its log of decisions."""
    why(job, as_json=as_json)


@dead.command()
def retry(job: JobId) -> None:
    """Queue it again, with its attempts counted anew."""

    async def ask(store: Jobs, _: Settings) -> None:
        queued = await store.retry(job)
        print(f"{queued.id} is {queued.state.value} again; a worker takes it up within seconds.")

    ask_jobs(ask)


@dead.command()
def drop(job: JobId) -> None:
    """Remove it for good."""

    async def ask(store: Jobs, _: Settings) -> None:
        await store.drop(job)
        print(f"{visible(job)} is removed.")

    ask_jobs(ask)


async def _by_id(text: str, jobs: Jobs) -> Job:
    if not _JOB.fullmatch(text):
        raise BadInput("That is neither a URL, nor owner/name#7, nor the id of a job.")
    job = await jobs.get(text)
    if job is None:
        raise NotFound("There is no job of this id. `kimi-review jobs` lists those that are kept.")
    return job


async def _as_known(ref: ChangeRef, jobs: Jobs) -> ChangeRef:
    """`ref` as the forge spells its repository, if one of the latest jobs tells: a person writes it in any case."""
    if await jobs.find(ref):
        return ref
    names = {job.ref.repository for job in await jobs.list(limit=REMEMBERED) if job.ref.forge == ref.forge}
    return next((replace(ref, repository=name) for name in names if name.lower() == ref.repository.lower()), ref)
