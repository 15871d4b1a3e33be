"""Reconcile: open changes that nobody reviewed, because a webhook was lost or the store was emptied."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from worker.core.change import Change
from worker.core.delivery import Delivery, Policy, allows, refusal
from worker.core.errors import BadInput, Refused
from worker.core.job import Intent, Priority, State
from worker.ports import Clock, Forge, Jobs, Wake
from worker.review.accept import accept
from worker.review.freshness import reason_unpostable

log = structlog.get_logger()

_REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class Reconciled:
    """`unreadable` are repositories that could not be listed: gone, renamed or forbidden; the others were asked."""

    open: int
    accepted: int
    unreadable: tuple[str, ...] = ()


@dataclass(slots=True)
class Reconciler:
    """Keep one for the process: it remembers what the forge showed as reviewed, and does not ask again."""

    jobs: Jobs
    wake: Wake
    clock: Clock
    policy: Policy
    settings_hash: str = ""
    pause_s: float = 0.5
    """Between questions about single changes: a forge's limits are shared with reviews."""
    max_repositories: int = 200
    """Of those that nobody named: each costs a question a round."""
    _reviewed: OrderedDict[tuple[str, str], None] = field(default_factory=OrderedDict)

    async def reconcile(self, forge: Forge, repositories: Sequence[str]) -> Reconciled:
        """Accept each open change of `repositories` whose head has neither a job nor a review of ours.

        When none is named, the forge is asked which ones are within reach, and the policy chooses among them.
        Raises `Transient` as the forge does (a limit ends the round; the next one starts again).
        """
        seen = accepted = 0
        unreadable: list[str] = []
        for repository in repositories or await self._within_reach(forge):
            try:
                async for change in forge.open_changes(repository):
                    seen += 1
                    accepted += await self._accepted(forge, change)
            except (Refused, BadInput) as error:
                # Gone, renamed, forbidden, or a name that is none: the others are still asked.
                unreadable.append(repository)
                log.warning("reconcile.repository_unreadable", repository=repository, error=str(error))
        log.info("reconcile.finished", open=seen, accepted=accepted, unreadable=len(unreadable))
        return Reconciled(seen, accepted, tuple(unreadable))

    async def _within_reach(self, forge: Forge) -> list[str]:
        names = [name async for name in forge.repositories() if allows(name, self.policy.repositories)]
        if len(names) > self.max_repositories:
            log.warning("reconcile.repositories_cut", within_reach=len(names), asked=self.max_repositories)
        return names[: self.max_repositories]

    async def _accepted(self, forge: Forge, change: Change) -> bool:
        if refusal(_as_delivery(change), self.policy) is not None or reason_unpostable(change):
            return False
        if (str(change.ref), change.head) in self._reviewed:
            return False
        # A skipped or superseded job does not settle the head: the change was reopened, or pushed back to it.
        settled = [
            job for job in await self.jobs.find(change.ref) if job.state not in (State.SKIPPED, State.SUPERSEDED)
        ]
        if any(job.head == change.head for job in settled):
            return False
        await self.clock.sleep(self.pause_s)
        if (await forge.posted(change)).is_whole:
            self._reviewed[(str(change.ref), change.head)] = None
            while len(self._reviewed) > _REMEMBERED:
                self._reviewed.popitem(last=False)
            return False
        intent = Intent(
            ref=change.ref, head=change.head, priority=Priority.INTERACTIVE, settings_hash=self.settings_hash
        )
        return (await accept(intent, jobs=self.jobs, wake=self.wake)).is_new


def _as_delivery(change: Change) -> Delivery:
    """What the forge would have told by webhook, so that one policy decides for both."""
    return Delivery(
        id="",
        event="reconcile",
        ref=change.ref,
        head=change.head,
        is_draft=change.is_draft,
        is_fork=change.is_fork,
        is_bot=change.is_bot,
    )
