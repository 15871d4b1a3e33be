"""Conduct one job: from the claim to a stored report, or to another end that has a reason in words."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import structlog

from worker.core.change import Change, Snapshot
from worker.core.errors import LeaseLost, Superseded, Unreachable
from worker.core.job import Claim, Intent, Job, State
from worker.core.report import Report
from worker.ports import Checkout, Clock, Flow, Forge, Jobs, Tree, Wake
from worker.review.examine import Examiner
from worker.review.planning import Subject
from worker.review.records import REPORT, UNIT, SavedAnswer, dump_report

log = structlog.get_logger()

HEAD_LAG_S = 2.0
"""How long a forge's API may lag behind the delivery it sent itself."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Which changes are reviewed, and how stubbornly."""

    reviews_drafts: bool = False
    reviews_forks: bool = True
    max_attempts: int = 3
    settle_s: float = 0.0
    settings_hash: str = ""


@dataclass(frozen=True, slots=True)
class Conductor:
    """The ports one job needs."""

    jobs: Jobs
    wake: Wake
    forge: Forge
    checkout: Checkout
    examiner: Examiner
    clock: Clock
    policy: Policy

    async def conduct(self, claim: Claim) -> None:
        """Review the change and store the report; publishing is another task's work.

        Raises what the caller (`holding`) turns into what follows: `Superseded`, `Transient`,
        `NotNow`, `Refused`, `LeaseLost`.
        """
        job = claim.job
        change = await self._current(claim)
        if reason := reason_to_skip(change, self.policy):
            await self.jobs.advance(claim, State.SKIPPED, reason=reason)
            log.info("review.skipped", reason=reason)
            return
        await self.jobs.decided(job.id, "review.started", f"attempt {job.attempt}, head {change.head[:12]}")
        report = await self._examine(claim, change)
        await self.jobs.save(claim, REPORT, dump_report(report))
        log.info(
            "review.finished",
            findings=len(report.findings) + len(report.unanchored),
            reviewed_lines=report.ledger.reviewed_lines,
            changed_lines=report.ledger.changed_lines,
            requests=report.usage.requests,
            complete=report.is_complete,
        )
        await self.jobs.release(claim, State.REVIEWED, reason="the report is stored")
        await self.wake.publish(job.id, job.priority)

    async def _current(self, claim: Claim) -> Change:
        """The change as the forge has it; raises `Superseded` when its head is no longer the job's."""
        job = claim.job
        change = await self.forge.change(job.ref)
        if not job.head:
            await self.jobs.note_head(claim, change.head)
            return change
        if change.head != job.head:
            await self.clock.sleep(HEAD_LAG_S)
            change = await self.forge.change(job.ref)
        if change.head != job.head:
            await self._hand_over(job, change)
        return change

    async def _hand_over(self, job: Job, change: Change) -> None:
        """The newer head has a job of its own before this one ends, even if its delivery never came."""
        await self.jobs.accept(
            Intent(
                ref=job.ref,
                head=change.head,
                priority=job.priority,
                settings_hash=self.policy.settings_hash,
                settle_s=self.policy.settle_s,
            )
        )
        raise Superseded(f"{job.ref} moved on to {change.head[:12]}", by=change.head)

    async def _examine(self, claim: Claim, change: Change) -> Report:
        job = claim.job
        saved = {**await self._inherited(job), **await self.jobs.load(job.id)}

        async def save(name: str, value: bytes) -> None:
            await self.jobs.save(claim, name, value)

        async def check_current() -> None:
            if not await self.jobs.is_current(claim):
                newer = await self.jobs.get(job.id)
                if newer is not None and newer.superseded_by:
                    raise Superseded(f"{job.ref} moved on to {newer.superseded_by[:12]}", by=newer.superseded_by)
                raise LeaseLost(f"The lease of job {job.id} is gone: another worker has it or it ended.")

        subject = Subject(
            name=str(job.ref),
            title=change.title,
            description=change.description,
            flow=Flow(change=str(job.ref), repository=job.ref.repository, priority=job.priority, job=job.id),
        )
        # A last attempt publishes what it has and names the rest; earlier ones come back for the rest.
        is_last = job.attempt >= self.policy.max_attempts
        async with AsyncExitStack() as held:
            tree, snapshot = await self._read(claim, change, held, may_use_api=is_last)
            return await self.examiner.examine(
                subject,
                snapshot,
                tree=tree,
                saved=saved,
                save=save,
                check_current=check_current,
                names_failures=is_last,
            )

    async def _inherited(self, job: Job) -> dict[str, bytes]:
        """Answers that the last job of the change bought: a unit is named by its content, so none is bought twice."""
        earlier = [other for other in await self.jobs.find(job.ref) if other.id != job.id]
        if not earlier:
            return {}
        return {
            name: SavedAnswer.load(record).as_inherited().dump()
            for name, record in (await self.jobs.load(earlier[0].id)).items()
            if name.startswith(UNIT)
        }

    async def _read(
        self, claim: Claim, change: Change, held: AsyncExitStack, *, may_use_api: bool
    ) -> tuple[Tree | None, Snapshot]:
        """The change from git; from the forge's API, which cuts, only when git stays out of reach."""
        try:
            tree = await held.enter_async_context(self.checkout.open(change, await self.forge.remote_ready(change)))
            return tree, await tree.snapshot()
        except Unreachable as error:
            if not may_use_api:
                raise
            log.warning("checkout.unreachable", error=str(error))
            await self.jobs.decided(claim.job.id, "diff.taken_from_api", str(error))
            return None, replace(await self.forge.diff(change), head=change.head)


def reason_to_skip(change: Change, policy: Policy) -> str:
    """Why this change is not reviewed now, in words; empty when it is."""
    if change.state != "open":
        return f"the change is {change.state}"
    if change.is_locked:
        return "the conversation is locked, nothing can be posted"
    if change.is_draft and not policy.reviews_drafts:
        return "the change is a draft; it is reviewed when it is ready (REVIEW_DRAFTS=true reviews drafts too)"
    if change.is_fork and not policy.reviews_forks:
        return "the change comes from a fork (REVIEW_FORKS=true reviews those too)"
    return ""
