"""The right to go on with a job: asked of the store between steps, and of the clock right before a request leaves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from worker.core.errors import LeaseLost, Superseded
from worker.core.job import Claim, Job
from worker.ports import Clock, Jobs


class Permit(Protocol):
    """What says whether a request may still be sent."""

    async def check(self) -> None:
        """Raise what ends the work: `Superseded`, `LeaseLost`."""

    def check_clock(self) -> None:
        """Raise `LeaseLost` once the right has run out by the clock. Waits for nothing, so nothing comes after it."""


class Unlimited:
    """Implements `Permit` for a review of no job: nothing supersedes it, and nobody else does it."""

    async def check(self) -> None:
        """Never raises."""

    def check_clock(self) -> None:
        """Never raises."""


class Lease:
    """Implements `Permit` for a claimed job. Each check counts from when the store was last asked to renew it.

    A process that was stopped and let go on finds its lease ended by its own clock, which went on, at once: what it
    asks the store, or hears from it, comes later.
    """

    def __init__(self, claim: Claim, jobs: Jobs, clock: Clock, *, asked_at: float) -> None:
        """`asked_at` is `clock.monotonic()` from before the claim was asked for: the lease began no earlier."""
        self.claim = claim
        self._jobs = jobs
        self._clock = clock
        self._renewed_at = asked_at
        self.is_unbroken = False
        """Whether what runs now must not be cut short."""

    @contextmanager
    def unbroken(self) -> Iterator[None]:
        """When the process is asked to stop, what is done in here gets the grace: a POST that was begun, say."""
        self.is_unbroken = True
        try:
            yield
        finally:
            self.is_unbroken = False

    @property
    def job(self) -> Job:
        return self.claim.job

    @property
    def age_s(self) -> float:
        """Seconds since the store was asked for what it granted last."""
        return self._clock.monotonic() - self._renewed_at

    async def renew(self) -> None:
        """Raises `LeaseLost`, and `Unreachable` when the store is away."""
        asked_at = self._clock.monotonic()
        await self._jobs.renew(self.claim)
        self._renewed_at = asked_at

    async def check(self) -> None:
        """Raise `Superseded` or `LeaseLost` unless the claim still stands and no newer head was accepted."""
        if await self._jobs.is_current(self.claim):
            return
        job = await self._jobs.get(self.job.id)
        if job is not None and job.superseded_by:
            raise Superseded(f"{job.ref} moved on to {job.superseded_by[:12]}", by=job.superseded_by)
        raise LeaseLost(f"The lease of job {self.job.id} is gone: another worker has it or it ended.")

    def check_clock(self) -> None:
        if self.age_s >= self.claim.lease_s:
            raise LeaseLost(
                f"The lease of job {self.job.id} was last renewed {self.age_s:.0f} s ago: this process stood still, or"
                " the store was away. Another worker may have the job."
            )
