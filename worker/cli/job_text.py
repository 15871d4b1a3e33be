"""Jobs for the terminal: one with its decisions, many as rows, and what keeps them from going on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from worker.cli.report_text import show_indented
from worker.core.change import ChangeRef
from worker.core.delivery import NOT_ALLOWED, allows
from worker.core.job import Decision, Job, State
from worker.core.markdown import visible
from worker.storage.foreign import Foreign

CURES = {
    NOT_ALLOWED: "GITHUB_REPOSITORIES names those that are reviewed.",
    "author is a bot": "Changes of programs are not reviewed, lest two of them answer each other for ever.",
    "draft": "It is reviewed once it is ready, or with REVIEW_DRAFTS=true.",
    "change from a fork": "REVIEW_FORKS=true reviews those too.",
}
"""What follows from each reason for which a delivery becomes no job."""
NEXT_STEPS = (
    "Recent Deliveries in the webhook's form on the forge: was it sent, and what was answered?",
    "The log of `api` for delivery.refused (a wrong secret), delivery.not_stored (Redis took nothing) and"
    " delivery.ignored (an event that asks for nothing).",
    "`kimi-review check` for settings and tokens.",
)
"""Where to look for a change that nobody here has heard of."""
SHOWN_IGNORED = 10
_STATE_WIDTH = 1 + max(len(state.value) for state in State)


def show_job(job: Job, decisions: Sequence[Decision], console: Console) -> None:
    """The state and its reason first, then every decision with its time."""
    because = f": {visible(job.reason)}" if job.reason else ""
    head = visible(job.head[:12]) or "a head not asked for yet"
    console.print(Text.assemble((job.state.value, _style(job.state)), because))
    console.print(Text(f"  {visible(str(job.ref))} at {head} · job {job.id} · attempt {job.attempt}", style="cyan"))
    # Both by the clock of Redis, whatever ours says.
    if job.state in (State.QUEUED, State.REVIEWED, State.DEFERRED) and job.not_before > job.updated_at:
        console.print(f"  goes on at {_time(job.not_before)} UTC")
    for one in decisions:
        detail = f"  {visible(one.detail)}" if one.detail else ""
        console.print(Text.assemble((f"  {_time(one.at)}  ", "dim"), visible(one.event), (detail, "dim")))
    if job.state is State.FAILED:
        console.print(f"Next: remove the cause, then `kimi-review dead retry {job.id}`.", soft_wrap=True)


def show_ignored(ref: ChangeRef, ignored: Sequence[Decision], console: Console) -> None:
    """Why the latest deliveries of a change became no job."""
    reason = ignored[-1].detail
    console.print(Text.assemble(("ignored", "yellow"), f": {visible(reason)}. {CURES.get(reason, '')}".rstrip()))
    console.print(Text(f"  {visible(str(ref))} · the last delivery became no job", style="cyan"))
    for one in ignored[-SHOWN_IGNORED:]:
        console.print(Text.assemble((f"  {_time(one.at)}  ", "dim"), one.event, (f"  {visible(one.detail)}", "dim")))


def show_unheard_of(ref: ChangeRef, allowed: Sequence[str], console: Console) -> None:
    """A change without any delivery or request; `allowed` are the globs of repositories that are reviewed."""
    if not allows(ref.repository, allowed):
        console.print(Text(f"ignored: {NOT_ALLOWED}. {CURES[NOT_ALLOWED]}"))
        return
    console.print(Text(f"No delivery and no request for {visible(str(ref))} is known here. Look, in this order:"))
    for number, step in enumerate(NEXT_STEPS, start=1):
        first, *further = Text(step).wrap(console, max(20, console.width - 5))
        console.print(Text(f"  {number}. ").append_text(first), soft_wrap=True)
        for line in further:
            console.print(Text("     ").append_text(line), soft_wrap=True)
    console.print(Text(f"To review it now: `kimi-review review {visible(ref.repository)}#{ref.number}`."))


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


def show_messages(found: Sequence[Foreign], console: Console) -> None:
    """What stood in the queue and was no message of this program."""
    console.print(Text("\nPut aside, for they were no messages of this program:", style="bold"))
    for one in found:
        task = visible(one.task) or "no task named"
        told = Text.assemble((_time(one.at), "dim"), f"  {task}: {visible(one.reason)}, {one.size:,} bytes")
        show_indented(told, console, by=2)


def show_pause(reason: str, console: Console) -> None:
    """That no worker takes up a job, if there is a `reason`."""
    if reason:
        console.print(Text(f"The whole fleet is paused: {visible(reason)}", style="yellow"))
        console.print(Text("`kimi-review resume` ends that."))


def show_left(count: int, console: Console) -> None:
    """That `count` jobs wait for an upgrade, if any do."""
    if count:
        who = "1 job waits" if count == 1 else f"{count:,} jobs wait"
        console.print(Text(f"{who} for a worker of a newer version of this program: upgrade the workers.", style="red"))


def _style(state: State) -> str:
    styles = {State.DONE: "green", State.FAILED: "red", State.DEFERRED: "yellow"}
    return styles.get(state, "dim" if state.is_final else "blue")


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"
