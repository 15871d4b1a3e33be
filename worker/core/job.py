"""What a job is and which states it has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from worker.core.change import ChangeRef

RECORD_VERSION = 1
"""Of what this program stores for a job, the record and its checkpoints together. It is raised by a release whose jobs
an older program could not go on with: a new state, a new step, a checkpoint that it cannot read. Fields that an older
program may pass over need no new version."""


class State(StrEnum):
    """queued → running → reviewed → publishing → done, or one of the other ends. Every end has a reason in words."""

    QUEUED = "queued"
    RUNNING = "running"
    REVIEWED = "reviewed"
    """The report is stored and paid for; publishing is still to come."""
    PUBLISHING = "publishing"
    DONE = "done"
    SKIPPED = "skipped"
    SUPERSEDED = "superseded"
    DEFERRED = "deferred"
    """Waits for `not_before` and holds neither worker nor lease."""
    FAILED = "failed"
    """A dead letter: `kimi-review dead` lists, shows, retries and drops them."""

    @property
    def is_final(self) -> bool:
        return self in (State.DONE, State.SKIPPED, State.SUPERSEDED, State.FAILED)


class Priority(StrEnum):
    """Which jobs are taken first, in this order."""

    INTERACTIVE = "interactive"
    CROWD = "crowd"
    """Asked for as interactive while its repository had many open jobs already: others do not wait behind them."""
    BATCH = "batch"


class Stage(StrEnum):
    """Which task a job needs next."""

    REVIEW = "review"
    PUBLISH = "publish"


@dataclass(frozen=True, slots=True)
class Job:
    """One review of one change at one head commit, as stored. Times are Unix seconds by Redis' clock."""

    id: str
    ref: ChangeRef
    head: str
    """Full SHA, or empty until the forge was asked (a caller of `POST /reviews` need not know it)."""
    priority: Priority
    state: State
    reason: str = ""
    """Why it is in this state, in words."""
    attempt: int = 0
    """Counts from 1, raised before the work starts; 0 means nobody has tried."""
    generation: int = 0
    """Counts the heads of the change; a job of an older generation is superseded."""
    not_before: float = 0.0
    created_at: float = 0.0
    updated_at: float = 0.0
    superseded_by: str = ""
    """The head that took over."""
    version: int = 1
    """Of the oldest program that can work on it; unknown fields of a newer one survive a write by an older program."""
    is_forced: bool = False
    """Whether somebody asked for a review of a head that may have one."""
    is_left: bool = False
    """Whether it waits for a worker of a newer version of this program; `reason` then says so."""

    @property
    def waiting_state(self) -> State:
        """What a job that is being worked on goes back to when its work is not finished."""
        return State.REVIEWED if self.state in (State.REVIEWED, State.PUBLISHING) else State.QUEUED


@dataclass(frozen=True, slots=True)
class Intent:
    """What a delivery or a caller asks for. `delivery` is the forge's id of the webhook call, a hint only."""

    ref: ChangeRef
    head: str
    priority: Priority = Priority.INTERACTIVE
    delivery: str = ""
    settings_hash: str = ""
    """Of the settings that alter the result: other settings make another job."""
    settle_s: float = 0.0
    """Waits so long for a newer head before the review starts."""
    force: bool = False
    """Review again although this head is done."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """`is_new` is False when the same job was already there (a redelivery, the same head again)."""

    job: str
    state: State
    is_new: bool
    priority: Priority = Priority.INTERACTIVE
    """Which a new job was given; lower than it was asked for in a crowd."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a job until the lease ends. `token` fences: a later claim has a higher one."""

    job: Job
    token: int
    lease_s: float


@dataclass(frozen=True, slots=True)
class NotClaimed:
    """`reason` in words: "leased by another worker", "already done", "not before …"."""

    reason: str


@dataclass(frozen=True, slots=True)
class Due:
    """A job that waits for somebody to wake a worker for it."""

    job: str
    stage: Stage
    priority: Priority


@dataclass(frozen=True, slots=True)
class Decision:
    """One line of a job's log of decisions: what `kimi-review why` prints."""

    at: float
    event: str
    """`thing.happened`, past tense, constant."""
    detail: str = ""


_ID = re.compile(r"[0-9a-f]{20}")


def job_named_in(arguments: object) -> str:
    """The job that a message's arguments begin with, empty when they do not. A newer program may say more behind it."""
    first = arguments[0] if isinstance(arguments, Sequence) and arguments else None
    return first if isinstance(first, str) and _ID.fullmatch(first) else ""
