"""Many reviews at low priority: which changes, what they may cost, and how far they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from worker.core.change import Change, ChangeRef
from worker.core.delivery import Ignored
from worker.core.errors import NotAuthorised, NotFound
from worker.core.job import Accepted, Intent, Job, Priority, State
from worker.core.model_info import Prices
from worker.ports import Forge, Jobs

ASKED_AT_ONCE: Final = 4
"""Questions to a forge under way together: its limits are shared with reviews."""
TYPICAL_INPUT_TOKENS: Final = 15_000
TYPICAL_OUTPUT_TOKENS: Final = 5_000
"""Of one review whose change fits one request, thinking included; used until this installation has its own figures."""
ENOUGH_REVIEWS: Final = 3
"""So many of our own reviews say more than the typical one."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a batch would review, and what it leaves out with the reason in words."""

    new: tuple[Change, ...]
    known: tuple[Change, ...]
    """Their head has a job already."""
    left_out: tuple[tuple[ChangeRef, str], ...]


@dataclass(frozen=True, slots=True)
class Estimate:
    """`usd_each` is None when no price is known; `basis` says where the figure comes from."""

    usd_each: float | None
    basis: str


@dataclass(frozen=True, slots=True)
class NotRead:
    """A change that the forge does not show us."""

    ref: ChangeRef
    reason: str


async def named(refs: Iterable[ChangeRef], *, forge: Callable[[str], Forge]) -> AsyncIterator[Change | NotRead]:
    """Ask the forges for each change once, in order. Raises `Transient` as the forge does."""
    asked = asyncio.Semaphore(ASKED_AT_ONCE)

    async def read(ref: ChangeRef) -> Change | NotRead:
        async with asked:
            try:
                return await forge(ref.forge).change(ref)
            except (NotFound, NotAuthorised) as error:
                return NotRead(ref, str(error))

    answers = await asyncio.gather(*(read(ref) for ref in dict.fromkeys(refs)), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
        yield answer


async def open_since(forge: Forge, repository: str, since: datetime) -> AsyncIterator[Change | NotRead]:
    """The open changes of `repository` that something happened to since then. Raises as `Forge.open_changes`."""
    async for change in forge.open_changes(repository):
        if change.updated_at is None or change.updated_at >= since:
            yield change


async def choose(
    found: AsyncIterator[Change | NotRead], *, jobs: Jobs, skips: Callable[[Change], str] = lambda change: ""
) -> Chosen:
    """Share them out. `skips` is why a change would get no review now, in words; empty when it would."""
    new: list[Change] = []
    known: list[Change] = []
    left_out: list[tuple[ChangeRef, str]] = []
    async for change in found:
        if isinstance(change, NotRead):
            left_out.append((change.ref, change.reason))
        elif reason := skips(change):
            left_out.append((change.ref, reason))
        elif any(_settles(job, change) for job in await jobs.find(change.ref)):
            known.append(change)
        else:
            new.append(change)
    return Chosen(tuple(new), tuple(known), tuple(left_out))


def _settles(job: Job, change: Change) -> bool:
    return job.head == change.head and job.state not in (State.SKIPPED, State.SUPERSEDED, State.FAILED)


async def accept_all(
    chosen: Chosen, *, request: Callable[[Intent], Awaitable[Accepted | Ignored]]
) -> AsyncIterator[tuple[Change, Accepted | Ignored]]:
    """Queue what is new; what has a job already is told so by its record. Raises `Transient` when the store is away.

    Ended half-way and begun again, it adds nothing twice: a job is named by its change, head and settings.
    """
    for change in chosen.new:
        yield change, await request(Intent(ref=change.ref, head=change.head, priority=Priority.BATCH))


def estimate(costs: Sequence[float], *, prices: Prices | None) -> Estimate:
    """What one review may cost, from `costs` in dollars of reviews that were done here, else from list prices."""
    if len(costs) >= ENOUGH_REVIEWS:
        return Estimate(sum(costs) / len(costs), f"the mean of the last {len(costs)} reviews here")
    if prices is None:
        return Estimate(None, "no price is known for this model")
    usd = prices.cost_usd(input_tokens=TYPICAL_INPUT_TOKENS, cached_tokens=0, output_tokens=TYPICAL_OUTPUT_TOKENS)
    return Estimate(
        usd,
        f"list prices for a change that fits one request, {TYPICAL_INPUT_TOKENS:,} tokens in and"
        f" {TYPICAL_OUTPUT_TOKENS:,} out; large changes cost more",
    )


@dataclass(frozen=True, slots=True)
class Progress:
    """The batch jobs that are kept, newest first."""

    jobs: tuple[Job, ...]

    @property
    def counts(self) -> Mapping[State, int]:
        return {state: sum(job.state is state for job in self.jobs) for state in State}

    @property
    def ended(self) -> int:
        return sum(job.state.is_final for job in self.jobs)


async def progress(jobs: Jobs, *, limit: int) -> Progress:
    return Progress(tuple(job for job in await jobs.list(limit=limit) if job.priority is Priority.BATCH))
