"""`why`, `jobs`, `dead`: what became of a change, what waits, what was given up."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import redis.asyncio
import typer
from rich.console import Console
from rich.text import Text

from worker.cli.report_text import open_console, show_indented
from worker.cli.setting_up import set_up
from worker.cli.store import opened_jobs, opened_redis
from worker.core.change import ChangeRef
from worker.core.delivery import allows
from worker.core.errors import BadInput, NotFound
from worker.core.job import Decision, Job, State
from worker.core.markdown import visible
from worker.ingress.answers import job_json
from worker.ports import Jobs
from worker.settings import Role, Settings
from worker.storage.foreign import KEPT, Foreign, count_foreign, list_foreign

dead = typer.Typer(help="Jobs that were given up: list, show, retry, drop.", no_args_is_help=True)

Result = TypeVar("Result")
AsJson = Annotated[bool, typer.Option("--json", help="One JSON value instead of a table.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, as `jobs` and the log show it.")]

_STATE_WIDTH = 1 + max(len(state.value) for state in State)
_JOB = re.compile(r"[0-9a-f]{12,64}")
_SHORT = re.compile(r"(?:(?P<forge>[a-z-]+):)?(?P<repository>[\w.-]+(?:/[\w.-]+)+)[#!](?P<number>[0-9]{1,10})")


REMEMBERED = 1_000
"""Jobs in which a repository is looked for that was written in another case."""
SHOWN_IGNORED = 10
CURES = {
    "repository not allowed": "GITHUB_REPOSITORIES names those that are reviewed.",
    "author is a bot": "Changes of programs are not reviewed, lest two of them answer each other for ever.",
    "draft": "It is reviewed once it is ready, or with REVIEW_DRAFTS=true.",
    "change from a fork": "REVIEW_FORKS=true reviews those too.",
}
"""What follows from each reason for which a delivery becomes no job."""
NEXT_STEPS = (
    "Recent Deliveries in the webhook's form on the forge: was it sent, and what was answered?",
    "The log of `api` for delivery.refused (a wrong secret) and delivery.ignored (an event that asks for nothing).",
    "`kimi-review check` for settings and tokens.",
)


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
            told = [_ignored_json(ref, ignored)] if ref is not None and ignored else []
            print(json.dumps(told + [job_json(job, tuple(decisions)) for job, decisions in logs], indent=2))
            return
        console = open_console()
        if ref is not None and ignored:
            _show_ignored(ref, ignored, console)
        elif ref is not None and not logs:
            _show_unheard_of(ref, settings, console)
        for job, decisions in logs:
            _show_job(job, decisions, console)
        await _show_pause(jobs, console)

    asking(ask)


def jobs(
    state: Annotated[
        list[State] | None, typer.Option(help="Only jobs in this state; may be given several times.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, newest first.")] = 30,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""

    async def ask(store: Jobs, _: Settings) -> None:
        found = await store.list(states=tuple(state or ()), limit=limit)
        if as_json:
            print(json.dumps([job_json(job) for job in found], indent=2))
            return
        console = open_console()
        counts = await store.counts()
        show_table(found, console)
        await _show_pause(store, console)
        await _show_left(store, console)
        standing = " · ".join(f"{counts[name]} {name.value}" for name in State if counts.get(name))
        console.print(
            Text(standing or "No jobs yet. `kimi-review serve` takes webhooks and POST /reviews.", style="dim")
        )
        if found:
            console.print("Next: `kimi-review why JOB` tells every step of one.")

    asking(ask)


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
        await _show_pause(store, console)
        if not found:
            console.print("No dead letters: no job was given up.")
        return bool(found)

    has_dead = asking(ask)
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
            _show_messages(found, console)
            console.print(Text(f"{count} messages put aside in all; the newest {KEPT} are kept.", style="dim"))

    settings = set_up(Role.QUERY, level="warning")

    async def run() -> None:
        async with opened_redis(settings) as client:
            await ask(client)

    asyncio.run(run())


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

    asking(ask)


@dead.command()
def drop(job: JobId) -> None:
    """Remove it for good."""

    async def ask(store: Jobs, _: Settings) -> None:
        await store.drop(job)
        print(f"{visible(job)} is removed.")

    asking(ask)


def parse_change(text: str, settings: Settings) -> ChangeRef | None:
    """The change that a URL or `owner/name#7` names; None when it is neither. Raises `BadInput` for a foreign host."""
    if found := _SHORT.fullmatch(text):
        return ChangeRef(found["forge"] or "github", found["repository"], int(found["number"]))
    if "://" not in text:
        return None
    parts = urlsplit(text)
    if parts.hostname != urlsplit(settings.github_url).hostname:
        raise BadInput("That URL is of no configured forge. GITHUB_URL names the host of GitHub.")
    found = re.fullmatch(r"/([\w.-]+/[\w.-]+)/pull/([0-9]{1,10})(?:/.*)?", parts.path)
    if found is None:
        raise BadInput("That URL names no pull request. It ends in /owner/name/pull/7.")
    return ChangeRef("github", found[1], int(found[2]))


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


def _ignored_json(ref: ChangeRef, ignored: Sequence[Decision]) -> dict[str, Any]:
    """Deliveries that became no job, in the form of one."""
    decisions = [asdict(one) for one in ignored]
    names = {"forge": ref.forge, "repository": ref.repository, "number": ref.number}
    return {"job": None, **names, "state": "ignored", "reason": ignored[-1].detail, "decisions": decisions}


def _show_ignored(ref: ChangeRef, ignored: Sequence[Decision], console: Console) -> None:
    reason = ignored[-1].detail
    console.print(Text.assemble(("ignored", "yellow"), f": {visible(reason)}. {CURES.get(reason, '')}".rstrip()))
    console.print(Text(f"  {visible(str(ref))} · the last delivery became no job", style="cyan"))
    for one in ignored[-SHOWN_IGNORED:]:
        console.print(Text.assemble((f"  {_time(one.at)}  ", "dim"), one.event, (f"  {visible(one.detail)}", "dim")))


def _show_unheard_of(ref: ChangeRef, settings: Settings, console: Console) -> None:
    if not allows(ref.repository, settings.github_repositories):
        console.print(Text(f"ignored: repository not allowed. {CURES['repository not allowed']}"))
        return
    console.print(Text(f"No delivery and no request for {visible(str(ref))} is known here. Look, in this order:"))
    for number, step in enumerate(NEXT_STEPS, start=1):
        first, *further = Text(step).wrap(console, max(20, console.width - 5))
        console.print(Text(f"  {number}. ").append_text(first), soft_wrap=True)
        for line in further:
            console.print(Text("     ").append_text(line), soft_wrap=True)
    console.print(Text(f"To review it now: `kimi-review review {visible(ref.repository)}#{ref.number}`."))


def _show_job(job: Job, decisions: Sequence[Decision], console: Console) -> None:
    because = f": {visible(job.reason)}" if job.reason else ""
    head = visible(job.head[:12]) or "a head not asked for yet"
    console.print(Text.assemble((job.state.value, _style(job.state)), because))
    console.print(Text(f"  {visible(str(job.ref))} at {head} · job {job.id} · attempt {job.attempt}", style="cyan"))
    if job.state is State.DEFERRED and job.not_before:
        console.print(f"  goes on at {_time(job.not_before)} UTC")
    for one in decisions:
        detail = f"  {visible(one.detail)}" if one.detail else ""
        console.print(Text.assemble((f"  {_time(one.at)}  ", "dim"), visible(one.event), (detail, "dim")))


def show_table(found: Sequence[Job], console: Console) -> None:
    """Two lines a job: which change it is about, and where it stands; readable at any width."""
    for job in found:
        head = f" at {visible(job.head[:9])}" if job.head else ""
        console.print(
            Text.assemble(
                (f"{job.state.value:<{_STATE_WIDTH}}", _style(job.state)),
                (f"{visible(str(job.ref))}{head}", "bold"),
                (f"  {job.id}", "dim"),
            ),
            soft_wrap=True,
        )
        attempt = f", attempt {job.attempt}" if job.attempt > 1 else ""
        reason = f"  {visible(job.reason)}" if job.reason else ""
        told = Text.assemble((f"{_time(job.updated_at)}{attempt}", "dim"), reason)
        show_indented(told, console, by=_STATE_WIDTH)


def _show_messages(found: Sequence[Foreign], console: Console) -> None:
    console.print(Text("\nPut aside, for they were no messages of this program:", style="bold"))
    for one in found:
        task = visible(one.task) or "no task named"
        told = Text.assemble((_time(one.at), "dim"), f"  {task}: {visible(one.reason)}, {one.size:,} bytes")
        show_indented(told, console, by=2)


async def _show_pause(store: Jobs, console: Console) -> None:
    if paused := await store.paused():
        console.print(Text(f"The whole fleet is paused: {visible(paused)}", style="yellow"))
        console.print(Text("`kimi-review resume` ends that."))


async def _show_left(store: Jobs, console: Console) -> None:
    if count := await store.left():
        who = "1 job waits" if count == 1 else f"{count:,} jobs wait"
        console.print(Text(f"{who} for a worker of a newer version of this program: upgrade the workers.", style="red"))


def _style(state: State) -> str:
    styles = {State.DONE: "green", State.FAILED: "red", State.DEFERRED: "yellow"}
    return styles.get(state, "dim" if state.is_final else "blue")


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"


def asking(ask: Callable[[Jobs, Settings], Awaitable[Result]]) -> Result:
    """Run `ask` over the job records of the settings."""
    settings = set_up(Role.QUERY, level="warning")

    async def run() -> Result:
        async with opened_jobs(settings) as store:
            return await ask(store, settings)

    return asyncio.run(run())
