"""Wake what is due, tell changes why they got no review, ask forges what was missed. One process does it at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import structlog

from worker.core.errors import NotNow, Refused, ReviewError, Transient
from worker.core.job import Due, Job, Priority, Stage
from worker.ending import end
from worker.ports import Clock, Jobs, Wake

log = structlog.get_logger()

TICK_S = 1.0
LEAD_S = 5.0
"""Another process takes over so long after this one was last seen."""
ROOM = 200
"""Messages that may wait per queue before no more are sent: the index of due jobs is the real queue, so a hundred
thousand jobs that wait cost no more than these."""
REWAKE_S = 10.0
URGENT_AGAIN_S = 3.0
"""The same for a job that was begun: its message goes before all others, so it is taken at once or was lost."""
TURN_S = 30.0
"""While interactive jobs wait, one job of each lower priority goes among them so often: messages are taken strictly by
priority, and a busy day would hold up the night's work for good."""
TELL_AGAIN_S = 60.0
TRIM_EVERY_S = 3600.0
RECONCILE_EVERY_S = 300.0
"""No forge redelivers a webhook by itself, and GitLab switches a failing hook off."""
QUIET_S = 30.0
"""How long the absence of the store is not said again."""


@dataclass(slots=True)
class Upkeep:
    """The timer's work. `tell` posts a note on the change of a dead letter; a process without forges has none."""

    jobs: Jobs
    wake: Wake
    clock: Clock
    who: str
    tell: Callable[[Job], Awaitable[object]] | None = None
    reconcile: Callable[[], Awaitable[object]] | None = None
    """One round over the open changes of the configured repositories."""
    reconcile_every_s: float = RECONCILE_EVERY_S
    is_leading: bool = False
    _trimmed_at: float = float("-inf")
    _warned_at: float = float("-inf")
    _turned_at: float | None = None
    """When a batch job last had its turn, or no interactive one waited."""

    async def run(self, is_stopping: Callable[[], bool]) -> None:
        """Tick until asked to stop; an absent store is waited for. Forges are asked beside it: that takes its time."""
        asking = asyncio.create_task(self._reconcile(is_stopping))
        try:
            await self._tick_on(is_stopping)
        finally:
            await end([asking])

    async def _tick_on(self, is_stopping: Callable[[], bool]) -> None:
        while not is_stopping():
            try:
                await self.tick()
            except ReviewError as error:
                if self.clock.monotonic() - self._warned_at > QUIET_S:
                    self._warned_at = self.clock.monotonic()
                    log.warning("upkeep.failed", error=str(error))
            await self.clock.sleep(TICK_S)

    async def tick(self) -> int:
        """Do what is to be done now, if this process leads. How many jobs were woken.

        Raises `Unreachable` when the store is away.
        """
        self.is_leading = await self.jobs.leads(self.who, for_s=LEAD_S)
        if not self.is_leading:
            return 0
        woken = await self._wake_urgent()
        for priority in Priority:
            woken += await self._wake(priority)
        woken += await self._take_turn()
        if self.tell is not None:
            await self._tell(self.tell)
        if self.clock.monotonic() - self._trimmed_at > TRIM_EVERY_S:
            await self.jobs.trim()
            self._trimmed_at = self.clock.monotonic()
        return woken

    async def _reconcile(self, is_stopping: Callable[[], bool]) -> None:
        due_at = self.clock.monotonic()
        while self.reconcile is not None and not is_stopping():
            if self.is_leading and self.clock.monotonic() >= due_at:
                try:
                    await self.reconcile()
                except ReviewError as error:
                    log.warning("reconcile.failed", error=str(error))
                due_at = self.clock.monotonic() + self.reconcile_every_s
            await self.clock.sleep(TICK_S)

    async def _wake_urgent(self) -> int:
        before = await self.wake.waiting(Priority.INTERACTIVE) + await self.wake.waiting(Priority.BATCH)
        # Where no worker takes anything, more of them would help nobody.
        room = 3 * ROOM - before
        if room <= 0:
            return 0
        urgent = await self.jobs.urgent(limit=room, again_s=URGENT_AGAIN_S)
        for job in urgent:
            await self.wake.first(job)
        return len(urgent)

    async def _take_turn(self) -> int:
        """Put one job of each lower priority among the interactive ones, when those leave them no chance."""
        now = self.clock.monotonic()
        if self._turned_at is None or not await self._are_held_up():
            self._turned_at = now
        if now - self._turned_at < TURN_S:
            return 0
        self._turned_at = now
        turns = [
            *await self.jobs.due(Priority.CROWD, limit=1, again_s=REWAKE_S),
            *await self.jobs.due(Priority.BATCH, limit=1, again_s=REWAKE_S),
        ]
        for job in turns:
            await self._send(replace(job, priority=Priority.INTERACTIVE))
        return len(turns)

    async def _are_held_up(self) -> bool:
        """Whether messages wait that every worker takes before those of the batch."""
        return await self.wake.waiting(Priority.INTERACTIVE) + await self.wake.waiting(Priority.CROWD) > 0

    async def _wake(self, priority: Priority) -> int:
        room = ROOM - await self.wake.waiting(priority)
        if room <= 0:
            return 0
        due = await self.jobs.due(priority, limit=room, again_s=REWAKE_S)
        for job in due:
            await self._send(job)
        return len(due)

    async def _send(self, due: Due) -> None:
        if due.stage is Stage.PUBLISH:
            await self.wake.publish(due.job, due.priority)
        else:
            await self.wake.review(due.job, due.priority)

    async def _tell(self, tell: Callable[[Job], Awaitable[object]]) -> None:
        for job in await self.jobs.untold(limit=5, again_s=TELL_AGAIN_S):
            try:
                await tell(job)
            except (Transient, NotNow) as error:
                log.warning("note.postponed", job=job.id, error=str(error))
                continue
            except Refused as error:
                # A change that is gone, or a token that may not write: asking again would change nothing.
                log.warning("note.refused", job=job.id, error=str(error))
            await self.jobs.told(job.id)
