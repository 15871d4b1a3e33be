"""Whether a job still works on the change as it is: its head, its state, and the lease."""

from __future__ import annotations

from dataclasses import dataclass

from worker.core.change import Change
from worker.core.errors import Superseded, Unreachable
from worker.core.job import Intent, Job
from worker.ports import Clock, Forge, Jobs

HEAD_LAG_S = 2.0
"""How long a forge's API may lag behind the delivery it sent itself, before the job makes room and comes back."""
LAGGING_ATTEMPTS = 4
"""So often it comes back while the forge shows a head that is older than the job's: some 20 s in all."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """Asks the forge and the job store; a head that moved on gets a job of its own."""

    forge: Forge
    jobs: Jobs
    clock: Clock
    settle_s: float = 0.0
    settings_hash: str = ""

    async def change_at(self, job: Job, head: str) -> Change:
        """The change as the forge has it now. Raises `Superseded` when it is open and its head is not `head`.

        The newer head has a job before this one ends, even if its delivery never came. Raises `Unreachable` while
        the head that the forge shows is an earlier one: to give way to it would leave the newest without a review.
        """
        change = await self.forge.change(job.ref)
        if change.head == head or change.state != "open":
            return change
        await self.clock.sleep(HEAD_LAG_S)
        change = await self.forge.change(job.ref)
        if change.head == head or change.state != "open":
            return change
        if job.attempt < LAGGING_ATTEMPTS and await self._came_before(job, change.head):
            raise Unreachable(f"The forge still shows the earlier head {change.head[:12]}.")
        await self.jobs.accept(
            Intent(
                ref=job.ref,
                head=change.head,
                priority=job.priority,
                settings_hash=self.settings_hash,
                settle_s=self.settle_s,
            )
        )
        raise Superseded(f"{job.ref} moved on to {change.head[:12]}", by=change.head)

    async def _came_before(self, job: Job, head: str) -> bool:
        jobs = await self.jobs.find(job.ref)
        return any(other.head == head and other.generation < job.generation for other in jobs)


def reason_unpostable(change: Change, *, reviews_drafts: bool = True) -> str:
    """Why nothing can or shall be posted on the change now, in words; empty when it can."""
    if change.state != "open":
        return f"the change is {change.state}"
    if change.is_archived:
        return "the repository is archived, nothing can be posted until it is unarchived"
    if change.is_locked:
        return "the conversation is locked, nothing can be posted"
    if change.is_draft and not reviews_drafts:
        return "the change is a draft; it is reviewed when it is ready (REVIEW_DRAFTS=true reviews drafts too)"
    return ""
