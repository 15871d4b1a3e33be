"""The Protocols that the use cases need. Adapters implement them; `tests/contracts` holds both to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from worker.core.change import Change, ChangeRef, Snapshot
from worker.core.comments import Comment as Comment
from worker.core.exchange import Answer, Prompt
from worker.core.job import Accepted, Claim, Decision, Due, Intent, Job, NotClaimed, Priority, Stage, State
from worker.core.usage import Usage


class Clock(Protocol):
    """Time as a value, so that tests hand in their own."""

    def now(self) -> datetime:
        """Aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds; for measuring only."""

    async def sleep(self, seconds: float) -> None: ...


# ------------------------------------------------------------------------------------------- model


@dataclass(frozen=True, slots=True)
class Flow:
    """For whom a request is made: the throttle is fair between flows, and serves interactive first."""

    change: str
    repository: str
    priority: Priority = Priority.INTERACTIVE
    job: str = ""


def unchecked() -> None:
    """The last check of a request that nobody can lose the right to send."""


class Model(Protocol):
    """One model behind its throttle, retries and deadlines."""

    @property
    def name(self) -> str:
        """As configured: `kimi-k2.6`."""

    @property
    def is_standin(self) -> bool:
        """True when what answers is the demo's stand-in and no model."""

    async def complete(self, prompt: Prompt, *, flow: Flow, last_check: Callable[[], None] = unchecked) -> Answer:
        """Answer `prompt`, retrying what is transient.

        `last_check` is called right before each request leaves, after every wait; what it raises ends the call and
        nothing is sent. Raises `Transient` once retries are spent, `NotNow`, `Refused`, `RequestTooLong`,
        `AnswerCutOff`, `ContentFiltered`.
        """


# ---------------------------------------------------------------------------------------- throttle


@dataclass(frozen=True, slots=True)
class Cost:
    """What a request may cost the account: the server counts input plus the cap against TPM and TPD."""

    input_tokens: int
    output_cap_tokens: int
    worst_usd: float | None = None
    """The most it can cost: nothing cached, the cap used up. None when the price is not known: then no budget holds."""

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_cap_tokens


class Slot(Protocol):
    """One admitted request: a lease that ends by itself when the process dies."""

    async def settle(self, usage: Usage) -> None:
        """Correct the estimate by what was used."""


class Throttle(Protocol):
    """The account's limits, shared by the whole fleet."""

    def admit(self, cost: Cost, *, flow: Flow) -> AbstractAsyncContextManager[Slot]:
        """Wait until every limit allows one request of `cost`; leaving the context gives the slot back.

        Raises `QuotaUsedUp` when the day's tokens are gone, `BudgetReached` at our own hard stop,
        `Unreachable` when the store is away (closed, not open).
        """

    async def refused(self, error: Exception) -> None:
        """The server said `RateLimited`, `Overloaded` or `QuotaUsedUp`: cool the whole fleet down, learn the limit."""


# -------------------------------------------------------------------------------------------- jobs


class Jobs(Protocol):
    """The job records: the truth about who runs what. Every write of a claim is fenced (`LeaseLost`)."""

    async def accept(self, intent: Intent) -> Accepted:
        """Dedupe, supersede, write the job, schedule its wake-up: one atomic step."""

    async def claim(self, job_id: str, *, worker: str, states: Sequence[State]) -> Claim | NotClaimed:
        """Take the lease if the job is in one of `states`, due, and leased by nobody alive.

        The job is then `running` or `publishing`, and its attempt is counted. A deferred job that is due counts as
        queued, or as reviewed where only publishing was left. `worker` is a name for the log.
        """

    async def renew(self, claim: Claim) -> None:
        """The heartbeat."""

    async def save(self, claim: Claim, name: str, value: bytes) -> None:
        """Store one checkpoint under `name`; the last value wins."""

    async def load(self, job_id: str) -> Mapping[str, bytes]:
        """All checkpoints of the job."""

    async def advance(self, claim: Claim, state: State, *, reason: str = "") -> None:
        """Move on to `state` and keep the lease; a final state ends it."""

    async def release(self, claim: Claim, state: State, *, reason: str, wait_s: float = 0.0) -> None:
        """Give the job back in `state`, due after `wait_s` seconds, and wake somebody for it then."""

    async def hand_back(self, claim: Claim, *, reason: str) -> None:
        """Give the job back unfinished, for no fault of its own: the attempt does not count."""

    async def died(self, claim: Claim, *, reason: str, wait_s: float = 0.0) -> None:
        """Count the attempt as one that ended by a fault of ours; after three of them the job is a dead letter."""

    async def leave(self, claim: Claim, *, reason: str) -> None:
        """Give the job back to a worker of a newer version, for this one cannot go on with it: no attempt counts.

        Workers of this version are refused it from then on; after a day in vain it is a dead letter.
        """

    async def pass_over(self, job_id: str, *, worker: str, reason: str) -> None:
        """The same for a job that nobody holds: a message for it could not be read. One that is held stays so."""

    async def left(self) -> int:
        """How many jobs wait for a worker of a newer version."""

    async def note_head(self, claim: Claim, head: str) -> None:
        """Write down the head the forge named, for a job that was accepted without one.

        Raises `Superseded` when that head has a job already, which ends this one as skipped, or a newer head was
        accepted meanwhile.
        """

    async def is_current(self, claim: Claim) -> bool:
        """Whether no newer head of the change was accepted meanwhile and the lease still stands."""

    async def decided(self, job_id: str, event: str, detail: str = "") -> None:
        """Append to the job's log of decisions."""

    async def decisions(self, job_id: str) -> Sequence[Decision]: ...

    async def note_ignored(self, ref: ChangeRef, reason: str) -> None:
        """Remember why a delivery of this change became no job; the newest 10,000 of all changes are kept."""

    async def ignored(self, ref: ChangeRef) -> Sequence[Decision]:
        """What is remembered of that, oldest first."""

    async def get(self, job_id: str) -> Job | None: ...

    async def find(self, ref: ChangeRef) -> Sequence[Job]:
        """Jobs of one change, newest first."""

    async def list(self, *, states: Sequence[State] = (), limit: int = 100) -> Sequence[Job]:
        """Newest first; all states when none is named. Of jobs that have ended, those that ended last are looked at."""

    async def hasten(self, reason: str) -> int:
        """Let every deferred job be due now, since what they wait for has come; how many were not yet."""

    async def retry(self, job_id: str) -> Job:
        """Queue a dead letter again with its attempts set to 0. Raises `NotFound`."""

    async def drop(self, job_id: str) -> None:
        """Remove a dead letter for good. Raises `NotFound`."""

    async def counts(self) -> Mapping[State, int]:
        """How many jobs are in each state; the ends count what is still kept."""

    async def longest_waits(self) -> Mapping[tuple[Stage, Priority], float]:
        """Seconds that the longest-waiting job waits for a worker, by next step and priority; 0.0 where none does.

        Counted from when it could be worked on: a deferred job from its time on, one whose worker died from the end of
        its lease.
        """

    async def due(self, priority: Priority, *, limit: int, again_s: float) -> Sequence[Due]:
        """Jobs that nobody was woken for, or in vain; longest due first, each given out once in `again_s` seconds."""

    async def urgent(self, *, limit: int, again_s: float) -> Sequence[Due]:
        """Jobs whose lease ran out, and reviews to be posted, that nobody was woken for, however many others wait.

        Each is given out once in `again_s` seconds.
        """

    async def untold(self, *, limit: int, again_s: float) -> Sequence[Job]:
        """Dead letters whose change was not told yet; each given out once in `again_s` seconds, until `told`."""

    async def told(self, job_id: str) -> None: ...

    async def leads(self, who: str, *, for_s: float) -> bool:
        """Whether `who` does the upkeep of the fleet for the next seconds: one at a time, the newest version first."""

    async def trim(self) -> None:
        """Forget in the indexes what has expired."""

    async def pause(self, reason: str) -> None:
        """No job is claimed or woken until `resume`; those that run go on."""

    async def resume(self) -> None: ...

    async def paused(self) -> str:
        """The reason, or empty when the fleet works."""


class Wake(Protocol):
    """Tells some worker that a job waits. Losing a wake-up loses nothing: upkeep wakes what was forgotten."""

    async def review(self, job_id: str, priority: Priority) -> None: ...

    async def publish(self, job_id: str, priority: Priority) -> None: ...

    async def first(self, due: Due) -> None:
        """Wake somebody for a job that was begun, before all that wait."""

    async def waiting(self, priority: Priority) -> int:
        """How many messages no worker has taken yet."""


# ---------------------------------------------------------------------------------------- checkout


@dataclass(frozen=True, slots=True)
class Remote:
    """Where git reads from. `authorization` is sent as a header to that host alone, never in a URL."""

    url: str
    authorization: str | None = field(default=None, repr=False)
    """Value of the Authorization header."""
    head_ref: str = ""
    """Full name of the ref that follows the change's head; empty: `refs/pull/<number>/head`."""
    base_ref: str = ""
    """Full name of the ref the change shall go into; empty: `refs/heads/<base branch>`."""


@dataclass(frozen=True, slots=True)
class Match:
    """One line that holds a literal."""

    path: str
    line: int
    text: str


class Tree(Protocol):
    """Read-only view of one repository's objects: no working tree, nothing executed."""

    async def snapshot(self) -> Snapshot: ...

    async def read(self, path: str, *, revision: str, limit_bytes: int = 1_000_000) -> bytes | None:
        """The blob at `path` (a symlink's is its target's text); None when it is not there or too large."""

    async def search(self, literal: str, *, revision: str, limit: int = 20) -> Sequence[Match]: ...

    async def grep(self, pattern: str, *, revision: str) -> Sequence[Match]:
        """Lines of all text files that match a POSIX extended expression of ours, never one from a change."""


class Checkout(Protocol):
    """Bare mirrors of repositories, one per repository, safe to use from several workers at once."""

    def open(self, change: Change, remote: Remote) -> AbstractAsyncContextManager[Tree]:
        """Fetch base and head of `change` and hold them.

        Raises `Superseded` when the head is gone, `NotAuthorised`, `NotFound`, `Unreachable`.
        """


# ------------------------------------------------------------------------------------------- forge


@dataclass(frozen=True, slots=True)
class Posted:
    """What of ours is on the change already, for one head."""

    has_summary: bool = False
    fingerprints: frozenset[str] = frozenset()
    earlier: frozenset[str] = frozenset()
    """Fingerprints of what we told for other heads, at a line or in a summary, and not at a line for this one."""
    counted: frozenset[str] = frozenset()
    """Fingerprints of what summaries for other heads counted, and nothing has told yet."""
    is_unfinished: bool = False
    """Whether the summary says that further posts follow, and the last of them is not there."""

    @property
    def is_whole(self) -> bool:
        """Whether the head has its review, and not the first part of one alone."""
        return self.has_summary and not self.is_unfinished


class Forge(Protocol):
    """One code host. Has no call for approve, merge, push or close."""

    @property
    def name(self) -> str: ...

    @property
    def comments_per_post(self) -> int:
        """How many comments one `post` may carry."""

    @property
    def body_limit(self) -> int:
        """How many characters a review's text may have; what is longer is cut at its end."""

    async def change(self, ref: ChangeRef) -> Change:
        """Raises `NotFound`, `NotAuthorised`, `Transient`."""

    def remote(self, change: Change) -> Remote:
        """Where git reads this change from; built from configuration, not from a payload."""

    async def remote_ready(self, change: Change) -> Remote:
        """`remote`, with a token that is good for the next minutes."""

    async def diff(self, change: Change) -> Snapshot:
        """The forge API's own diff, for when git cannot be reached; `cut` says what it left out."""

    async def posted(self, change: Change) -> Posted:
        """Our reviews and comments for `change.head`, and what was told for earlier ones, known by signed markers."""

    async def post(self, change: Change, *, summary: str, comments: Sequence[Comment]) -> None:
        """Post one review on `change.head`; a comment that the forge puts at no line goes into its body.

        Raises `Unprocessable`, `OutcomeUnknown`, `Transient`, `Refused`.
        """

    async def note(self, change: Change, body: str) -> None:
        """Post one plain comment: why there is no review. Raises as `post` does."""

    async def noted(self, change: Change) -> frozenset[str]:
        """Fingerprints of our plain comments for `change.head`, known by their signed marker."""

    def open_changes(self, repository: str) -> AsyncIterator[Change]: ...

    def repositories(self) -> AsyncIterator[str]:
        """Names of the repositories that the credentials reach."""
