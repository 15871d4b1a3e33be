"""Conduct one job: from the claim to a stored report, or to another end that has a reason in words."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import structlog

from worker.core.change import Change, Snapshot
from worker.core.errors import Refused, Transient, Unreachable, WrittenByNewer
from worker.core.job import Claim, Job, State
from worker.core.ledger import coverage
from worker.core.report import Report
from worker.ports import Checkout, Flow, Forge, Jobs, Tree, Wake
from worker.review.examine import Examiner
from worker.review.freshness import Freshness, reason_unpostable
from worker.review.lease import Lease
from worker.review.planning import Subject
from worker.review.records import REPORT, UNIT, VERDICTS, SavedAnswer, dump_report

log = structlog.get_logger()

SAVE_AGAIN_S = 1.0
"""While the store is away."""
ANCESTORS = 5
"""Earlier jobs of a change that are looked through: of five quick pushes the first may have bought the answers."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Which changes are reviewed, and how stubbornly."""

    reviews_drafts: bool = False
    reviews_forks: bool = True
    max_attempts: int = 3


@dataclass(frozen=True, slots=True)
class Conductor:
    """The ports one job needs."""

    jobs: Jobs
    wake: Wake
    forge: Forge
    checkout: Checkout
    examiner: Examiner
    freshness: Freshness
    policy: Policy

    async def conduct(self, lease: Lease) -> None:
        """Review the change and store the report; publishing is another task's work.

        Raises what the caller (`holding`) turns into what follows: `Superseded`, `Transient`,
        `NotNow`, `Refused`, `LeaseLost`.
        """
        claim, job = lease.claim, lease.job
        change = await self._current(claim)
        reason = reason_to_skip(change, self.policy)
        if not reason and not job.is_forced and await self._has_review(change):
            again = f"{job.ref.repository}#{job.ref.number}"
            reason = f"this head was reviewed before; to review it again: kimi-review review {again}"
        if reason:
            await self.jobs.advance(claim, State.SKIPPED, reason=reason)
            log.info("review.skipped", reason=reason)
            return
        await self.jobs.decided(job.id, "review.started", f"attempt {job.attempt}, head {change.head[:12]}")
        report = await self._examine(lease, change)
        await self._keep(claim, REPORT, dump_report(report))
        by_rule = sum(row.is_by_rule for row in report.ledger.not_reviewed)
        log.info(
            "review.finished",
            findings=len(report.findings) + len(report.unanchored),
            reviewed_lines=report.ledger.reviewed_lines,
            changed_lines=report.ledger.changed_lines,
            # Rows, not lines: a file that could not be read has none. A lock file alone makes `complete` false.
            left_out_by_rule=by_rule,
            not_reviewed=len(report.ledger.not_reviewed) - by_rule,
            requests=report.usage.requests,
            complete=report.is_complete,
        )
        await self.jobs.release(claim, State.REVIEWED, reason=f"the report is stored: {coverage(report.ledger)}")
        await self.wake.publish(job.id, job.priority)

    async def _has_review(self, change: Change) -> bool:
        """Whether our review of this head stands on the forge: Redis was emptied, or settings were changed.

        To know saves a payment and nothing else, since publishing looks again: a forge that does not tell holds up
        no review.
        """
        try:
            return (await self.forge.posted(change)).is_whole
        except Transient as error:
            log.info("review.not_looked_for", error=str(error))
            return False

    async def _current(self, claim: Claim) -> Change:
        """The change as the forge has it; raises `Superseded` when its head is no longer the job's."""
        job = claim.job
        if job.head:
            return await self.freshness.change_at(job, job.head)
        change = await self.forge.change(job.ref)
        await self.jobs.note_head(claim, change.head)
        return change

    async def _examine(self, lease: Lease, change: Change) -> Report:
        claim, job = lease.claim, lease.job
        saved = {**await self._inherited(job), **await self.jobs.load(job.id)}

        async def save(name: str, value: bytes) -> None:
            await self._keep(claim, name, value)

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
                permit=lease,
                names_failures=is_last,
            )

    async def _keep(self, claim: Claim, name: str, value: bytes) -> None:
        """Save through an absence of the store as long as the lease: what was paid for would be paid for again.

        Raises `LeaseLost`, and `Unreachable` when the store stays away.
        """
        clock = self.freshness.clock
        give_up_at = clock.monotonic() + claim.lease_s
        while True:
            try:
                await self.jobs.save(claim, name, value)
            except Unreachable as error:
                if clock.monotonic() > give_up_at:
                    raise
                log.warning("checkpoint.not_saved_yet", name=name, error=str(error))
            else:
                return
            await clock.sleep(SAVE_AGAIN_S)

    async def _inherited(self, job: Job) -> dict[str, bytes]:
        """Answers that earlier jobs of the change bought: a unit is named by its content, so none is bought twice."""
        earlier = [other for other in await self.jobs.find(job.ref) if other.id != job.id]
        inherited: dict[str, bytes] = {}
        for other in reversed(earlier[:ANCESTORS]):
            try:
                inherited |= _answers(await self.jobs.load(other.id))
            except WrittenByNewer as error:
                # This job does without; only its own checkpoints would make it one for a newer worker.
                log.warning("answers.not_inherited", of=other.id, error=str(error))
        return inherited

    async def _read(
        self, claim: Claim, change: Change, held: AsyncExitStack, *, may_use_api: bool
    ) -> tuple[Tree | None, Snapshot]:
        """The change from git; from the forge's API, which cuts, only when git stays out of reach.

        Raises `Unreachable` when neither gives it.
        """
        try:
            tree = await held.enter_async_context(self.checkout.open(change, await self.forge.remote_ready(change)))
            return tree, await tree.snapshot()
        except Unreachable as error:
            if not may_use_api:
                raise
            log.warning("checkout.unreachable", error=str(error))
            await self.jobs.decided(claim.job.id, "diff.taken_from_api", str(error))
            try:
                return None, replace(await self.forge.diff(change), head=change.head)
            except Refused as refusal:
                # A forge whose storage is away answers 404 for commits that it has, and git's trouble passes.
                raise Unreachable(f"{error} Its API gives no diff in git's place: {refusal}") from refusal


def _answers(saved: Mapping[str, bytes]) -> dict[str, bytes]:
    """The answers among another job's checkpoints, for a job that did not pay for them. Raises `WrittenByNewer`."""
    return {
        name: SavedAnswer.load(record).as_inherited().dump()
        for name, record in saved.items()
        if name.startswith((UNIT, VERDICTS))
    }


def reason_to_skip(change: Change, policy: Policy) -> str:
    """Why this change is not reviewed now, in words; empty when it is."""
    if reason := reason_unpostable(change, reviews_drafts=policy.reviews_drafts):
        return reason
    if change.is_fork and not policy.reviews_forks:
        return "the change comes from a fork (REVIEW_FORKS=true reviews those too)"
    return ""
