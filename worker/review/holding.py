"""Hold a job while work is done on it: claim, heartbeat, and what follows from each way the work can end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from worker.core.errors import (
    LeaseLost,
    NotNow,
    OutcomeUnknown,
    ReviewError,
    Stalled,
    Superseded,
    Transient,
    Unreachable,
    WrittenByNewer,
)
from worker.core.job import Claim, NotClaimed, State
from worker.core.retry import GiveUp, decide_job
from worker.ending import end
from worker.ports import Clock, Jobs
from worker.review.lease import Lease

log = structlog.get_logger()

HEARTBEATS_PER_LEASE = 4
LOOK_S = 0.2
"""How often a running job looks whether its process is asked to stop."""
UNTIL_UNKNOWN_S = 3600.0
"""How long a job is deferred when nobody knows when it may go on: an empty balance, say."""
LOOK_AGAIN_S = 30.0
"""After a write whose outcome is unknown: the other side may still be at it."""


@dataclass(frozen=True, slots=True)
class Holder:
    """What holding needs, the same for all jobs of a process."""

    jobs: Jobs
    clock: Clock
    worker: str
    """Names this process in the log of decisions."""
    is_stopping: Callable[[], bool] = lambda: False
    """Whether the process was asked to end."""
    blames: Callable[[str], str | None] = lambda _: None
    """Why the job of an id is taken to have ended the process; None when it is not."""
    deadline_s: float = 3000.0
    """For one attempt in all."""
    grace_s: float = 20.0
    """How long work that must not be cut short may go on after the process was asked to end."""

    async def hold(
        self,
        job_id: str,
        work: Callable[[Lease], Awaitable[object]],
        *,
        states: Sequence[State],
    ) -> None:
        """Run `work` under the job's lease if the job is to be had, and settle what follows from its errors.

        `work` moves the job to its next state by itself. When the process is asked to stop, it is ended at once and
        the job handed back; what `Lease.unbroken` holds together, a POST that was begun, is given `grace_s`.
        Raises `Unreachable` when the store is away; the job is then taken over when its lease is over.
        """
        asked_at = self.clock.monotonic()
        claimed = await self.jobs.claim(job_id, worker=self.worker, states=states)
        if isinstance(claimed, NotClaimed):
            log.info("job.not_claimed", job=job_id, reason=claimed.reason)
            return
        job = claimed.job
        with structlog.contextvars.bound_contextvars(job=job.id, change=str(job.ref), attempt=job.attempt):
            log.info("job.claimed", state=job.state)
            lease = Lease(claimed, self.jobs, self.clock, asked_at=asked_at)
            try:
                async with asyncio.timeout(self.deadline_s) as deadline:
                    was_stopped = await self._beating(lease, work)
            except TimeoutError as error:
                # One that the work let through from elsewhere is a fault of ours like any other.
                late = Stalled(f"The attempt did not end within {self.deadline_s:.0f} s.")
                await self._settle(claimed, late if deadline.expired() else error)
            except Exception as error:  # noqa: BLE001 - each class is answered below; what we do not know is logged whole
                await self._settle(claimed, error)
            else:
                if was_stopped:
                    await self._give_back(claimed)

    async def _give_back(self, claim: Claim) -> None:
        if (blame := self.blames(claim.job.id)) is not None:
            log.error("job.ended_its_worker", reason=blame)
            await self._insist(claim, lambda: self.jobs.died(claim, reason=blame))
            return
        log.info("job.handed_back", reason="this worker ends")
        await self._insist(claim, lambda: self.jobs.hand_back(claim, reason="its worker ended"))

    async def _beating(self, lease: Lease, work: Callable[[Lease], Awaitable[object]]) -> bool:
        """Run `work` with a heartbeat beside it; True when it was cut short because the process stops."""
        task = asyncio.ensure_future(work(lease))
        stopped_at: float | None = None
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=LOOK_S)
                now = self.clock.monotonic()
                if stopped_at is None and self.is_stopping():
                    stopped_at = now
                has_grace = lease.is_unbroken and stopped_at is not None and now - stopped_at < self.grace_s
                if stopped_at is not None and not has_grace and not task.done():
                    return True
                is_due = lease.age_s >= lease.claim.lease_s / HEARTBEATS_PER_LEASE
                if is_due and not task.done() and not await self._renewed(lease):
                    lease.check_clock()
            await task
            return False
        finally:
            await end([task])

    async def _renewed(self, lease: Lease) -> bool:
        try:
            await lease.renew()
        except Unreachable as error:
            log.warning("lease.not_renewed", error=str(error))
            return False
        return True

    async def _settle(self, claim: Claim, error: Exception) -> None:
        """One place for what follows from each kind of error; each is logged here, once."""
        jobs, job = self.jobs, claim.job
        said = str(error) or type(error).__name__
        match error:
            case LeaseLost():
                log.warning("job.lease_lost", error=said)
            case Superseded():
                log.info("job.superseded", by=error.by, reason=said)
                await self._insist(claim, lambda: jobs.release(claim, State.SUPERSEDED, reason=said))
            case WrittenByNewer():
                log.error("job.left", error=said)
                await self._insist(claim, lambda: jobs.leave(claim, reason=said))
            case NotNow():
                wait_s = seconds_until(error.until, now=self.clock.now())
                log.warning("job.deferred", wait_s=round(wait_s), error=said)
                await self._insist(claim, lambda: jobs.release(claim, State.DEFERRED, reason=said, wait_s=wait_s))
            case Transient() | OutcomeUnknown():
                await self._again(claim, error)
            case ReviewError():
                log.error("job.failed", error=said)
                await self._insist(claim, lambda: jobs.release(claim, State.FAILED, reason=said))
            case _:
                log.error("job.crashed", exc_info=error)
                reason = f"{type(error).__name__} in attempt {job.attempt}: the log of {self.worker} has the traceback"
                wait_s = 2.0 ** min(job.attempt, 6)
                await self._insist(claim, lambda: jobs.died(claim, reason=reason, wait_s=wait_s))

    async def _again(self, claim: Claim, error: Transient | OutcomeUnknown) -> None:
        said, job = str(error) or type(error).__name__, claim.job
        as_transient = error if isinstance(error, Transient) else Transient(said, retry_after_s=LOOK_AGAIN_S)
        follows = decide_job(as_transient, attempt=job.attempt, random=random.random())  # noqa: S311 - no secret
        if isinstance(follows, GiveUp):
            log.error("job.failed", reason=follows.reason, error=said)
            reason = f"{said} ({follows.reason})"
            await self._insist(claim, lambda: self.jobs.release(claim, State.FAILED, reason=reason))
            return
        wait_s = follows.wait_s
        log.warning("job.retry_scheduled", wait_s=round(wait_s, 1), error=said)
        await self._insist(claim, lambda: self.jobs.release(claim, job.waiting_state, reason=said, wait_s=wait_s))

    async def _insist(self, claim: Claim, settle: Callable[[], Awaitable[None]]) -> None:
        """Write down how it ended, through a short absence of the store: else it would look as if we had died."""
        give_up_at = self.clock.monotonic() + claim.lease_s
        while True:
            try:
                await settle()
            except LeaseLost as error:
                # The work moved the job to its end itself, or another worker has it: there is nothing left to say.
                log.info("job.not_settled", reason=str(error))
            except Unreachable:
                if self.is_stopping() or self.clock.monotonic() > give_up_at:
                    raise
                await self.clock.sleep(1.0)
                continue
            return


def seconds_until(until: datetime | None, *, now: datetime) -> float:
    """How long to defer; never less than a second, so that a clock that lags causes no hot loop."""
    if until is None:
        return UNTIL_UNKNOWN_S
    return max(timedelta(seconds=1), until - now).total_seconds()
