"""Conducting a job: which changes are reviewed, at which head, and what a next head inherits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.forge import MARKER_KEY, MemoryForge
from tests.fakes.jobs import FakeJobs
from tests.fakes.model import FakeModel
from tests.unit.review.test_examine import ONE_FILE, WIDE, Lessons
from worker.core import marker
from worker.core.change import Change, ChangeRef, Snapshot
from worker.core.errors import NotFound, Superseded, Unreachable
from worker.core.exchange import Kind
from worker.core.job import Claim, Intent, Priority, State
from worker.core.marker import MORE, SUMMARY, Mark
from worker.ports import Match, Posted, Remote, Tree
from worker.providers.tokens import o200k_counter
from worker.review.conduct import Conductor, Policy, reason_to_skip
from worker.review.examine import Examiner
from worker.review.freshness import Freshness
from worker.review.lease import Lease
from worker.review.planning import Planning
from worker.review.prompts import words
from worker.review.records import REPORT, load_report

REF = ChangeRef("github", "acme/shop", 7)
OPEN = Change(ref=REF, head="a" * 40, base="b" * 40, base_branch="main", title="Add f")


@dataclass
class MemoryTree:
    """A tree that holds one diff and no files."""

    head: str

    async def snapshot(self) -> Snapshot:
        return Snapshot(head=self.head, base="b" * 40, diff=ONE_FILE)

    async def read(self, path: str, *, revision: str, limit_bytes: int = 1_000_000) -> bytes | None:
        return None

    async def search(self, literal: str, *, revision: str, limit: int = 20) -> Sequence[Match]:
        return []


@dataclass
class MemoryCheckout:
    is_away: bool = False
    opened: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def open(self, change: Change, remote: Remote) -> AsyncIterator[Tree]:
        if self.is_away:
            raise Unreachable("git does not answer")
        self.opened.append(change.head)
        yield MemoryTree(change.head)


@dataclass
class Woken:
    """Implements `ports.Wake`."""

    published: list[str] = field(default_factory=list)

    async def review(self, job_id: str, priority: Priority) -> None: ...

    async def publish(self, job_id: str, priority: Priority) -> None:
        self.published.append(job_id)

    async def waiting(self, priority: Priority) -> int:
        return 0


@dataclass
class Desk:
    forge: MemoryForge = field(default_factory=MemoryForge)
    jobs: FakeJobs = field(default_factory=FakeJobs)
    model: FakeModel = field(default_factory=FakeModel)
    checkout: MemoryCheckout = field(default_factory=MemoryCheckout)
    wake: Woken = field(default_factory=Woken)
    policy: Policy = field(default_factory=Policy)
    verifies: bool = False

    def __post_init__(self) -> None:
        self.forge.open(OPEN)

    async def claimed(self, head: str = OPEN.head, attempt: int = 1, *, force: bool = False) -> Claim:
        accepted = await self.jobs.accept(Intent(ref=REF, head=head, force=force))
        claim = await self.jobs.claim(accepted.job, worker="w", states=[State.QUEUED, State.RUNNING])
        assert isinstance(claim, Claim), claim
        return replace(claim, job=replace(claim.job, attempt=attempt))

    async def conduct(self, claim: Claim) -> None:
        examiner = Examiner(
            model=self.model,
            planning=Planning(budget=WIDE, words=words(Kind.FINDINGS), count=o200k_counter()),
            lessons=Lessons(),
            verdict_words=words(Kind.VERDICTS) if self.verifies else None,
        )
        conductor = Conductor(
            jobs=self.jobs,
            wake=self.wake,
            forge=self.forge,
            checkout=self.checkout,
            examiner=examiner,
            freshness=Freshness(self.forge, self.jobs, FakeClock()),
            policy=self.policy,
        )
        clock = FakeClock()
        await conductor.conduct(Lease(claim, self.jobs, clock, asked_at=clock.monotonic()))

    async def state(self, claim: Claim) -> tuple[State, str]:
        job = await self.jobs.get(claim.job.id)
        assert job is not None
        return job.state, job.reason


def test_a_report_is_stored_and_publishing_is_woken() -> None:
    async def run() -> None:
        desk = Desk()
        claim = await desk.claimed()
        await desk.conduct(claim)
        report = load_report((await desk.jobs.load(claim.job.id))[REPORT])
        assert report.head == OPEN.head
        assert len(report.findings) == 2
        assert (await desk.state(claim))[0] is State.REVIEWED
        assert desk.wake.published == [claim.job.id]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (replace(OPEN, state="closed"), "closed"),
        (replace(OPEN, state="merged"), "merged"),
        (replace(OPEN, is_draft=True), "draft"),
        (replace(OPEN, is_locked=True), "locked"),
        (replace(OPEN, is_archived=True), "archived"),
    ],
)
def test_a_change_that_is_not_reviewed_now_is_skipped_with_the_reason(change: Change, reason: str) -> None:
    async def run() -> None:
        desk = Desk()
        claim = await desk.claimed()
        desk.forge.open(change)
        await desk.conduct(claim)
        state, said = await desk.state(claim)
        assert state is State.SKIPPED
        assert reason in said
        assert desk.model.asked == []

    asyncio.run(run())


def test_a_change_from_a_fork_is_reviewed_unless_the_operator_does_not_want_those() -> None:
    forked = replace(OPEN, is_fork=True)
    assert reason_to_skip(forked, Policy()) == ""
    assert reason_to_skip(OPEN, Policy(reviews_forks=False)) == ""
    assert "REVIEW_FORKS=true" in reason_to_skip(forked, Policy(reviews_forks=False))


def test_a_head_that_was_reviewed_before_costs_nothing_unless_somebody_asks_for_it() -> None:
    async def run() -> None:
        desk = Desk()
        mark = marker.write(Mark(job="lost", head=OPEN.head, fingerprint=SUMMARY), key=MARKER_KEY, ref=REF)
        await desk.forge.post(OPEN, summary=mark, comments=[])
        claim = await desk.claimed()
        await desk.conduct(claim)
        state, said = await desk.state(claim)
        assert state is State.SKIPPED
        assert "reviewed before" in said
        assert desk.model.asked == []
        again = await desk.claimed(force=True)
        await desk.conduct(again)
        assert (await desk.state(again))[0] is State.REVIEWED

    asyncio.run(run())


def test_a_head_of_which_only_the_first_part_was_posted_is_reviewed() -> None:
    async def run() -> None:
        desk = Desk()
        marks = [marker.write(Mark("lost", OPEN.head, said), key=MARKER_KEY, ref=REF) for said in (SUMMARY, MORE)]
        await desk.forge.post(OPEN, summary="".join(marks), comments=[])
        claim = await desk.claimed()
        await desk.conduct(claim)
        assert (await desk.state(claim))[0] is State.REVIEWED

    asyncio.run(run())


@dataclass
class ForgettingForge(MemoryForge):
    """Knows nothing of the commits that it shows."""

    async def diff(self, change: Change) -> Snapshot:
        raise NotFound("GitHub knows nothing of the comparison of main and head.")


@dataclass
class DeafForge(MemoryForge):
    """Tells of changes, and not of what is posted on them."""

    async def posted(self, change: Change) -> Posted:
        raise Unreachable("GitHub answers 502 to comments.")


def test_a_forge_that_does_not_tell_what_is_posted_holds_up_no_review() -> None:
    async def run() -> None:
        desk = Desk(forge=DeafForge())
        claim = await desk.claimed()
        await desk.conduct(claim)
        assert (await desk.state(claim))[0] is State.REVIEWED

    asyncio.run(run())


def test_a_head_that_moved_on_gets_a_job_of_its_own_although_its_delivery_never_came() -> None:
    async def run() -> None:
        desk = Desk()
        claim = await desk.claimed()
        desk.forge.push(REF, "c" * 40)
        with pytest.raises(Superseded) as raised:
            await desk.conduct(claim)
        assert raised.value.by == "c" * 40
        assert (await desk.jobs.find(REF))[0].head == "c" * 40

    asyncio.run(run())


def test_a_job_without_a_head_takes_the_one_the_forge_names() -> None:
    async def run() -> None:
        desk = Desk()
        claim = await desk.claimed(head="")
        await desk.conduct(claim)
        job = await desk.jobs.get(claim.job.id)
        assert job is not None
        assert job.head == OPEN.head

    asyncio.run(run())


def test_the_next_head_inherits_answers_about_bytes_that_did_not_change() -> None:
    async def run() -> None:
        desk = Desk()
        await desk.conduct(await desk.claimed())
        desk.forge.push(REF, "c" * 40)
        claim = await desk.claimed(head="c" * 40)
        await desk.conduct(claim)
        assert len(desk.model.asked) == 1, "the unit's bytes are the same, so nothing is asked"
        report = load_report((await desk.jobs.load(claim.job.id))[REPORT])
        assert len(report.findings) == 2
        assert report.usage.requests == 0, "the other head's job paid for it"

    asyncio.run(run())


def test_the_next_head_inherits_the_second_look_at_findings_that_did_not_change() -> None:
    async def run() -> None:
        desk = Desk(verifies=True)
        await desk.conduct(await desk.claimed())
        assert [prompt.kind for prompt, _ in desk.model.asked] == [Kind.FINDINGS, Kind.VERDICTS]
        desk.forge.push(REF, "c" * 40)
        claim = await desk.claimed(head="c" * 40)
        await desk.conduct(claim)
        assert len(desk.model.asked) == 2
        report = load_report((await desk.jobs.load(claim.job.id))[REPORT])
        assert len(report.findings) == 2
        assert report.usage.requests == 0
        assert report.notes == ()

    asyncio.run(run())


def test_without_git_the_forges_own_diff_is_taken_at_the_last_attempt_only() -> None:
    async def run() -> None:
        desk = Desk(checkout=MemoryCheckout(is_away=True))
        cut = (("big.py", "left out by the forge's API", 12),)
        desk.forge.diffs[REF] = Snapshot(head=OPEN.head, base="b" * 40, diff=ONE_FILE, cut=cut)
        first = await desk.claimed()
        with pytest.raises(Unreachable):
            await desk.conduct(first)
        await desk.conduct(replace(first, job=replace(first.job, attempt=3)))
        report = load_report((await desk.jobs.load(first.job.id))[REPORT])
        assert [(row.path, row.lines) for row in report.ledger.not_reviewed] == [("big.py", 12)]
        assert not report.is_complete

    asyncio.run(run())


def test_without_git_and_without_the_forges_diff_the_job_waits_and_tells_both_reasons() -> None:
    async def run() -> None:
        desk = Desk(forge=ForgettingForge(), checkout=MemoryCheckout(is_away=True))
        with pytest.raises(Unreachable, match=r"git does not answer.*knows nothing of the comparison"):
            await desk.conduct(await desk.claimed(attempt=3))

    asyncio.run(run())
