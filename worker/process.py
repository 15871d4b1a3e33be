"""One worker process: it turns a wake-up into held work, does its share of upkeep, and ends when it is asked to."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import structlog

from worker import __version__
from worker.core.errors import ReviewError
from worker.core.job import Job, Stage, State
from worker.memory import watch
from worker.ports import Clock, Jobs, Wake
from worker.review.holding import Holder
from worker.review.lease import Lease
from worker.review.upkeep import Upkeep

log = structlog.get_logger()

CLAIMABLE: dict[Stage, tuple[State, ...]] = {
    # Running and publishing are in it because their worker may have died; the lease decides.
    Stage.REVIEW: (State.QUEUED, State.RUNNING),
    Stage.PUBLISH: (State.REVIEWED, State.PUBLISHING),
}


UNREADABLE = (
    f"a message for it needs a newer version of this program than {__version__}: upgrade the workers before the rest"
)


class Services(Protocol):
    """What a job needs, alive within one event loop; `Installation.services` (`bootstrap.py`) builds it."""

    @property
    def jobs(self) -> Jobs: ...

    @property
    def wake(self) -> Wake: ...

    @property
    def clock(self) -> Clock: ...

    async def review(self, lease: Lease) -> None:
        """Review a claimed job and store its report."""

    async def publish(self, lease: Lease) -> None:
        """Post the stored report of a claimed job."""

    async def tell(self, job: Job) -> None:
        """Say on the change why it got no review."""

    async def reconcile(self) -> None:
        """Accept open changes that nobody reviewed."""


class WorkerProcess:
    """`services` is entered once per job and once for upkeep: each runs in a thread with a loop of its own."""

    def __init__(
        self,
        services: Callable[[], AbstractAsyncContextManager[Services]],
        *,
        deadline_s: float = 3000.0,
        grace_s: float = 20.0,
        memory_mb: int = 0,
    ) -> None:
        """Above `memory_mb` the process ends itself in order, for its supervisor to start it anew; 0: never."""
        self._services = services
        self._deadline_s = deadline_s
        self._grace_s = grace_s
        self._memory_mb = memory_mb
        self._running: set[str] = set()
        self._blamed: dict[str, str] = {}
        """Job → why it is taken to have ended this process."""
        self._stopping = threading.Event()
        self._upkeep: threading.Thread | None = None
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"

    def run(self, job_id: str, stage: Stage) -> None:
        """Work on one job until it is settled; returns without a word when another worker has it."""
        if self._stopping.is_set():
            # The job stays due; who still works will be woken for it.
            return
        self._running.add(job_id)
        try:
            asyncio.run(self._run(job_id, stage))
        except ReviewError as error:
            # The store is away, or its settings are wrong: the lease, if there was one, ends by itself.
            log.error("job.not_settled", job=job_id, error=str(error))
        finally:
            self._running.discard(job_id)

    def pass_over(self, job_id: str) -> None:
        """Leave a job to a newer program, since a message for it could not be read."""
        try:
            asyncio.run(self._pass_over(job_id))
        except ReviewError as error:
            # The job is due as before; whoever is woken for it next may say the same.
            log.warning("job.not_passed_over", job=job_id, error=str(error))

    def start_beside(self) -> None:
        """Start what runs beside the jobs, each in a thread of its own: upkeep, and the watch over memory."""
        self._upkeep = threading.Thread(target=self.keep_up, name="upkeep", daemon=True)
        self._upkeep.start()
        if self._memory_mb:
            options = {"over": self._outgrown, "stopping": self._stopping}
            threading.Thread(target=watch, args=(self._memory_mb,), kwargs=options, name="memory", daemon=True).start()

    def _outgrown(self, held_mb: int) -> None:
        log.warning("worker.outgrown", held_mb=held_mb, limit_mb=self._memory_mb, jobs=len(self._running))
        match list(self._running):
            case [alone]:
                # Handed back it would come again for ever; so it counts as an attempt that died.
                self._blamed[alone] = f"its worker held {held_mb} MB for it alone, more than WORKER_MEMORY_MB"
        os.kill(os.getpid(), signal.SIGTERM)

    def keep_up(self) -> None:
        """Do upkeep until asked to stop: what the role `upkeep` runs, and each worker beside its jobs."""
        while not self._stopping.is_set():
            try:
                asyncio.run(self._keep_up())
            except Exception:
                # Without upkeep a fleet forgets jobs, so a fault in it is logged whole and the loop starts anew.
                log.exception("upkeep.crashed")
                self._stopping.wait(5.0)

    def stop(self) -> None:
        """Ask everything to end; called from a signal handler, so it only sets a flag."""
        self._stopping.set()

    def join(self) -> None:
        """Wait for upkeep to end."""
        if self._upkeep is not None:
            self._upkeep.join(timeout=5.0)

    async def _run(self, job_id: str, stage: Stage) -> None:
        async with self._services() as services:
            holder = Holder(
                jobs=services.jobs,
                clock=services.clock,
                worker=self.name,
                is_stopping=self._stopping.is_set,
                deadline_s=self._deadline_s,
                grace_s=self._grace_s,
                blames=self._blamed.get,
            )
            work = services.publish if stage is Stage.PUBLISH else services.review
            await holder.hold(job_id, work, states=CLAIMABLE[stage])

    async def _pass_over(self, job_id: str) -> None:
        async with self._services() as services:
            await services.jobs.pass_over(job_id, worker=self.name, reason=UNREADABLE)

    async def _keep_up(self) -> None:
        async with self._services() as services:
            upkeep = Upkeep(
                jobs=services.jobs,
                wake=services.wake,
                clock=services.clock,
                who=self.name,
                tell=services.tell,
                reconcile=services.reconcile,
            )
            await upkeep.run(self._stopping.is_set)
