"""Publishing: exactly one visible review per head, whatever dies, lies or answers late."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.forge import MARKER_KEY, Fault, MemoryForge
from tests.fakes.jobs import FakeJobs
from worker.core.change import Change, ChangeRef
from worker.core.comments import Voice
from worker.core.errors import (
    LeaseLost,
    NotAuthorised,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    Superseded,
    Unprocessable,
)
from worker.core.finding import Anchor, Finding, Severity
from worker.core.job import Claim, Intent, NotClaimed, State
from worker.core.ledger import Ledger
from worker.core.report import Report
from worker.ports import Comment
from worker.review.lease import Lease
from worker.review.publish import POSTED, Published, Publishing, post_note, publish_job
from worker.review.records import REPORT, dump_posted, dump_report

REF = ChangeRef("github", "acme/shop", 7)
HEAD = "a" * 40
NEWER = "c" * 40
CLAIMABLE = (State.QUEUED, State.RUNNING, State.REVIEWED, State.PUBLISHING)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours may answer it."""


def finding(number: int, path: str | None = None) -> Finding:
    path = path or f"src/{number}.py"
    return Finding(
        path=path,
        anchor=Anchor(path, "RIGHT", number, number),
        severity=Severity.HIGH,
        category="correctness",
        title=f"Finding {number}",
        body="Why it is wrong.",
        quote="x = 1",
        fingerprint=f"fp{number}",
    )


def report(count: int = 3) -> Report:
    return Report(
        change=str(REF),
        head=HEAD,
        base="b" * 40,
        model="kimi-k2.6",
        findings=tuple(finding(number) for number in range(1, count + 1)),
        unanchored=(),
        ledger=Ledger(10, 10),
    )


@dataclass
class World:
    forge: MemoryForge = field(default_factory=MemoryForge)
    clock: FakeClock = field(default_factory=FakeClock)
    voice: Voice = field(default_factory=lambda: Voice(max_comments=100))
    jobs: FakeJobs = field(init=False)

    def __post_init__(self) -> None:
        self.jobs = FakeJobs(now=self.clock.monotonic)
        self.forge.open(Change(ref=REF, head=HEAD, base="b" * 40, base_branch="main"))

    async def claim(self, said: Report | None = None) -> Claim:
        accepted = await self.jobs.accept(Intent(ref=REF, head=HEAD))
        claim = await self.claim_again(accepted.job)
        if said is not None:
            claim = await self.reviewed(claim, said)
        return claim

    async def reviewed(self, claim: Claim, said: Report) -> Claim:
        """Store the report as reviewing does, and claim the job for publishing."""
        await self.jobs.save(claim, REPORT, dump_report(said))
        await self.jobs.release(claim, State.REVIEWED, reason="the report is stored")
        return await self.claim_again(claim.job.id)

    async def claim_again(self, job_id: str) -> Claim:
        self.clock.advance(3600)  # whoever held it is dead
        claim = await self.jobs.claim(job_id, worker="w", states=CLAIMABLE)
        assert not isinstance(claim, NotClaimed)
        return claim

    async def publish(self, claim: Claim) -> Published:
        publishing = Publishing(jobs=self.jobs, clock=self.clock, marker_key=MARKER_KEY, voice=self.voice)
        return await publish_job(self.leased(claim), forge=self.forge, publishing=publishing)

    def leased(self, claim: Claim) -> Lease:
        return Lease(claim, self.jobs, self.clock, asked_at=self.clock.monotonic())

    def visible(self) -> list[str]:
        """Fingerprints-to-be of all visible comments, by their titles, in order."""
        reviews = self.forge.reviews.get(REF, [])
        return [comment.fingerprint for review in reviews for comment in review.comments]

    def summaries(self) -> int:
        return sum("### " in review.body for review in self.forge.reviews.get(REF, []))


def test_a_report_becomes_one_review_with_its_comments() -> None:
    async def scenario() -> None:
        world = World()
        claim = await world.claim(report())
        assert await world.publish(claim) == Published(comments=3)
        (review,) = world.forge.reviews[REF]
        assert review.head == HEAD
        assert "3 findings, the worst high" in review.body
        assert "10 of 10 changed lines reviewed" in review.body
        assert world.visible() == ["fp1", "fp2", "fp3"]
        job = await world.jobs.get(claim.job.id)
        assert job is not None
        assert job.state is State.DONE

    asyncio.run(scenario())


def test_running_again_posts_nothing() -> None:
    async def scenario() -> None:
        world = World()
        claim = await world.claim(report())
        await world.publish(claim)
        again = World(forge=world.forge)  # the store was emptied: only the forge remembers
        assert await again.publish(await again.claim(report())) == Published(already=3)
        assert len(world.forge.reviews[REF]) == 1

    asyncio.run(scenario())


def test_many_comments_are_split_into_reviews_the_worst_first() -> None:
    async def scenario() -> None:
        world = World()
        await world.publish(await world.claim(report(60)))
        assert [len(review.comments) for review in world.forge.reviews[REF]] == [25, 25, 10]
        assert world.summaries() == 1
        assert "comments 26 to 50 of 60" in world.forge.reviews[REF][1].body

    asyncio.run(scenario())


def test_a_review_of_one_post_is_whole_at_once() -> None:
    async def scenario() -> None:
        world = World()
        await world.publish(await world.claim(report(25)))
        assert (await world.forge.posted(world.forge.changes[REF])).is_whole
        assert world.forge.posts == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("arrived", [1, 2])
def test_a_review_that_was_cut_off_is_no_whole_one_and_its_rest_is_posted_once_though_the_store_was_emptied(
    arrived: int,
) -> None:
    async def scenario() -> None:
        world = World()
        claim = await world.claim(report(60))
        first = world.forge.post

        async def killed(change: Change, *, summary: str, comments: Sequence[Comment]) -> None:
            if world.forge.posts == arrived:
                raise Killed
            await first(change, summary=summary, comments=comments)

        world.forge.post = killed  # type: ignore[method-assign]
        with pytest.raises(Killed):
            await world.publish(claim)
        world.forge.post = first  # type: ignore[method-assign]
        part = await world.forge.posted(world.forge.changes[REF])
        assert (part.has_summary, part.is_whole, len(part.fingerprints & all_of(60))) == (True, False, 25 * arrived)

        again = World(forge=world.forge)
        await again.publish(await again.claim(report(60)))
        whole = await world.forge.posted(world.forge.changes[REF])
        assert whole.is_whole
        assert sorted(world.visible()) == sorted(all_of(60))
        assert world.summaries() == 1

    asyncio.run(scenario())


def all_of(count: int) -> frozenset[str]:
    return frozenset(f"fp{number}" for number in range(1, count + 1))


def test_a_limit_in_the_middle_goes_on_where_it_ended() -> None:
    async def scenario() -> None:
        world = World()
        world.forge.comments_per_post = 6
        claim = await world.claim(report(20))
        first = world.forge.post

        async def limited(change: Change, *, summary: str, comments: Sequence[Comment]) -> None:
            if world.forge.posts == 1:
                world.forge.post_faults.append(Fault(RateLimited("too fast", retry_after_s=60)))
            await first(change, summary=summary, comments=comments)

        world.forge.post = limited  # type: ignore[method-assign]
        with pytest.raises(RateLimited):
            await world.publish(claim)
        assert len(world.visible()) == 6
        world.forge.post = first  # type: ignore[method-assign]
        assert await world.publish(await world.claim_again(claim.job.id)) == Published(comments=14, already=6)
        assert sorted(world.visible()) == sorted(f"fp{n}" for n in range(1, 21))
        assert world.summaries() == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("acts", [True, False], ids=["accepted", "lost"])
def test_an_unknown_outcome_ends_in_exactly_one_review(acts: bool) -> None:
    async def scenario() -> None:
        world = World()
        world.forge.post_faults.append(Fault(OutcomeUnknown("timed out"), acts=acts))
        await world.publish(await world.claim(report()))
        assert world.visible() == ["fp1", "fp2", "fp3"]
        assert world.summaries() == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("acts", [True, False], ids=["accepted", "lost"])
def test_an_unknown_outcome_of_a_continuation_ends_in_exactly_one_of_it(acts: bool) -> None:
    """That the summary stands tells nothing of what was posted behind it."""

    async def scenario() -> None:
        world = World()
        world.forge.comments_per_post = 2
        post = world.forge.post

        async def then_unknown(change: Change, *, summary: str, comments: Sequence[Comment]) -> None:
            if world.forge.posts == 1:
                world.forge.post_faults.append(Fault(OutcomeUnknown("timed out"), acts=acts))
            await post(change, summary=summary, comments=comments)

        world.forge.post = then_unknown  # type: ignore[method-assign]
        assert await world.publish(await world.claim(report(5))) == Published(comments=5)
        assert world.visible() == [f"fp{n}" for n in range(1, 6)]
        assert world.summaries() == 1
        assert world.forge.posts == (3 if acts else 4)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("count", "before", "said"),
    [
        (3, (), "posted 3 comments and the summary"),
        (1, (), "posted 1 comment and the summary"),
        (0, (), "posted 0 comments and the summary"),
        (2, ("fp1",), "posted 1 comment"),
        (2, ("fp1", "fp2"), "everything was posted before"),
        (0, ("none",), "everything was posted before"),
    ],
)
def test_a_done_job_says_what_this_run_posted(count: int, before: tuple[str, ...], said: str) -> None:
    async def scenario() -> None:
        world = World()
        claim = await world.claim(report(count))
        if before:
            await world.jobs.save(claim, POSTED, dump_posted(has_summary=True, fingerprints=before, over=None))
        await world.publish(claim)
        job = await world.jobs.get(claim.job.id)
        assert job is not None
        assert job.reason == said

    asyncio.run(scenario())


def test_a_post_that_shows_late_is_waited_for() -> None:
    async def scenario() -> None:
        world = World()
        world.forge.post_faults.append(Fault(OutcomeUnknown("timed out"), acts=True))
        seen = world.forge.posted
        looks = 0

        async def lagging(change: Change) -> object:
            nonlocal looks
            looks += 1
            return await seen(change) if looks > 3 else await MemoryForge().posted(change)

        world.forge.posted = lagging  # type: ignore[method-assign, assignment]
        await world.publish(await world.claim(report()))
        assert len(world.forge.reviews[REF]) == 1

    asyncio.run(scenario())


def test_two_unknown_outcomes_are_left_to_a_later_run() -> None:
    async def scenario() -> None:
        world = World()
        world.forge.post_faults += [Fault(OutcomeUnknown("timed out")), Fault(OutcomeUnknown("again"), acts=True)]
        claim = await world.claim(report())
        with pytest.raises(OutcomeUnknown):
            await world.publish(claim)
        assert await world.publish(await world.claim_again(claim.job.id)) == Published(already=3)
        assert len(world.forge.reviews[REF]) == 1

    asyncio.run(scenario())


def test_what_the_forge_confirmed_is_not_posted_again_when_its_lists_lag() -> None:
    async def scenario() -> None:
        world = World()
        claim = await world.claim(report())
        advance = world.jobs.advance

        async def dies(claim: Claim, state: State, *, reason: str = "") -> None:
            if state is State.DONE:
                raise Killed
            await advance(claim, state, reason=reason)

        world.jobs.advance = dies  # type: ignore[method-assign]
        with pytest.raises(Killed):
            await world.publish(claim)
        world.jobs.advance = advance  # type: ignore[method-assign]
        world.forge.posted = MemoryForge().posted  # type: ignore[method-assign]
        assert await world.publish(await world.claim_again(claim.job.id)) == Published(already=3)
        assert len(world.forge.reviews[REF]) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("step", range(40))
def test_a_kill_at_any_step_leaves_exactly_one_of_everything(step: int) -> None:
    """The process dies before (even steps) or after (odd ones) one of the calls to the store and the forge."""

    async def scenario() -> None:
        world = World()
        world.forge.comments_per_post = 4
        claim = await world.claim(report(9))
        died = await _killed_at(world, claim, step)
        assert died == (step < 38)
        # The last step is the job's end: who dies after it leaves nothing to do.
        if step < 37:
            await world.publish(await world.claim_again(claim.job.id))
        assert sorted(world.visible()) == sorted(f"fp{n}" for n in range(1, 10))
        assert world.summaries() == 1
        job = await world.jobs.get(claim.job.id)
        assert job is not None
        assert job.state is State.DONE

    asyncio.run(scenario())


async def _killed_at(world: World, claim: Claim, step: int) -> bool:
    """Publish and die at the given step; whether it died."""
    count = 0

    def dying(target: object, name: str) -> None:
        real = getattr(target, name)

        async def call(*arguments: object, **named: object) -> object:
            nonlocal count
            if count == step:
                raise Killed
            count += 1
            answer = await real(*arguments, **named)
            if count == step:
                raise Killed
            count += 1
            return answer

        setattr(target, name, call)
        restore.append((target, name))

    restore: list[tuple[object, str]] = []
    for name in ("load", "advance", "renew", "save", "is_current", "decided"):
        dying(world.jobs, name)
    for name in ("change", "posted", "post"):
        dying(world.forge, name)
    try:
        await world.publish(claim)
    except Killed:
        return True
    finally:
        for target, name in restore:
            delattr(target, name)
    return False


def test_a_newer_head_supersedes_and_gets_a_job_of_its_own() -> None:
    async def scenario() -> None:
        world = World()
        claim = await world.claim(report())
        world.forge.push(REF, NEWER)
        with pytest.raises(Superseded) as caught:
            await world.publish(claim)
        assert caught.value.by == NEWER
        assert world.visible() == []
        assert NEWER in {job.head for job in await world.jobs.find(REF)}

    asyncio.run(scenario())


def test_a_newer_head_between_two_posts_stops_the_second() -> None:
    async def scenario() -> None:
        world = World()
        world.forge.comments_per_post = 2
        claim = await world.claim(report(6))
        post = world.forge.post

        async def then_pushed(change: Change, *, summary: str, comments: Sequence[Comment]) -> None:
            await post(change, summary=summary, comments=comments)
            await world.jobs.accept(Intent(ref=REF, head=NEWER))

        world.forge.post = then_pushed  # type: ignore[method-assign]
        with pytest.raises((Superseded, LeaseLost)):
            await world.publish(claim)
        assert len(world.visible()) == 2

    asyncio.run(scenario())


def test_a_process_that_stood_still_between_the_look_at_its_lease_and_the_post_does_not_post() -> None:
    async def scenario() -> None:
        world = World()
        claim = await world.claim(report())
        is_current = world.jobs.is_current

        async def then_stopped(claim: Claim) -> bool:
            held = await is_current(claim)
            world.clock.advance(claim.lease_s)
            return held

        world.jobs.is_current = then_stopped  # type: ignore[method-assign]
        with pytest.raises(LeaseLost):
            await world.publish(claim)
        assert world.visible() == []
        assert world.summaries() == 0

    asyncio.run(scenario())


def test_a_push_between_the_look_and_the_post_supersedes_and_is_no_failure() -> None:
    async def scenario() -> None:
        world = World()
        claim = await world.claim(report())

        async def refused(change: Change, *, summary: str, comments: Sequence[Comment]) -> None:
            world.forge.push(REF, NEWER)
            raise Unprocessable("commit_id is not part of the pull request")

        world.forge.post = refused  # type: ignore[method-assign]
        with pytest.raises(Superseded):
            await world.publish(claim)
        assert NEWER in {job.head for job in await world.jobs.find(REF)}

    asyncio.run(scenario())


def test_a_lock_between_the_look_and_the_post_skips_and_is_no_failure() -> None:
    async def scenario() -> None:
        world = World()
        claim = await world.claim(report())

        async def refused(change: Change, *, summary: str, comments: Sequence[Comment]) -> None:
            world.forge.open(replace(world.forge.changes[REF], is_locked=True))
            raise NotAuthorised("the issue is locked")

        world.forge.post = refused  # type: ignore[method-assign]
        assert "locked" in (await world.publish(claim)).skipped
        job = await world.jobs.get(claim.job.id)
        assert job is not None
        assert job.state is State.SKIPPED

    asyncio.run(scenario())


def test_a_lost_lease_posts_nothing() -> None:
    async def scenario() -> None:
        world = World()
        claim = await world.claim(report())
        await world.claim_again(claim.job.id)
        with pytest.raises(LeaseLost):
            await world.publish(claim)
        assert world.visible() == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state": "closed"}, "the change is closed"),
        ({"state": "merged"}, "the change is merged"),
        ({"state": "closed", "head": NEWER}, "the change is closed"),
        ({"is_locked": True}, "the conversation is locked, nothing can be posted"),
    ],
)
def test_a_change_that_takes_no_review_any_more_is_skipped_and_says_so(changes: dict[str, object], reason: str) -> None:
    async def scenario() -> None:
        world = World()
        claim = await world.claim(report())
        given: dict[str, object] = {"head": HEAD, **changes}
        world.forge.open(Change(ref=REF, base="b" * 40, **given))  # type: ignore[arg-type]
        assert await world.publish(claim) == Published(skipped=reason)
        job = await world.jobs.get(claim.job.id)
        assert job is not None
        assert (job.state, job.reason) == (State.SKIPPED, reason)
        assert world.visible() == []

    asyncio.run(scenario())


def test_a_change_that_became_a_draft_keeps_its_review_until_it_is_ready() -> None:
    async def scenario() -> None:
        world = World()
        claim = await world.claim(report())
        ready = world.forge.changes[REF]
        world.forge.open(replace(ready, is_draft=True))
        publishing = Publishing(
            jobs=world.jobs, clock=world.clock, marker_key=MARKER_KEY, voice=world.voice, reviews_drafts=False
        )
        assert "a draft" in (await publish_job(world.leased(claim), forge=world.forge, publishing=publishing)).skipped
        assert world.visible() == []
        world.forge.open(ready)
        again = await world.jobs.accept(Intent(ref=REF, head=HEAD))
        assert again.state is State.REVIEWED
        assert await world.publish(await world.claim_again(again.job)) == Published(comments=3)

    asyncio.run(scenario())


def test_what_was_raised_for_an_earlier_head_is_not_repeated_but_named() -> None:
    async def scenario() -> None:
        world = World()
        await world.publish(await world.claim(report()))
        world.forge.push(REF, NEWER)
        said = report(4)
        newer = Report(**{name: getattr(said, name) for name in said.__slots__} | {"head": NEWER})
        accepted = await world.jobs.accept(Intent(ref=REF, head=NEWER))
        claim = await world.reviewed(await world.claim_again(accepted.job), newer)
        assert await world.publish(claim) == Published(comments=1)
        assert world.visible() == ["fp1", "fp2", "fp3", "fp4"]
        assert "Raised on an earlier commit and still there" in world.forge.reviews[REF][1].body

    asyncio.run(scenario())


def test_a_stranger_s_marker_suppresses_nothing() -> None:
    async def scenario() -> None:
        world = World()
        forged = MemoryForge(marker_key=b"a stranger's key")
        forged.open(world.forge.changes[REF])
        stranger = World(forge=forged)
        claim = await stranger.claim(report())
        publishing = Publishing(jobs=stranger.jobs, clock=stranger.clock, marker_key=b"a stranger's key")
        await publish_job(stranger.leased(claim), forge=forged, publishing=publishing)
        world.forge.reviews[REF] = forged.reviews[REF]
        assert await world.publish(await world.claim(report())) == Published(comments=3)

    asyncio.run(scenario())


def test_a_refusal_is_let_through() -> None:
    async def scenario() -> None:
        world = World()
        world.forge.post_faults.append(Fault(NotAuthorised("no write permission")))
        with pytest.raises(NotAuthorised):
            await world.publish(await world.claim(report()))

    asyncio.run(scenario())


def test_a_job_without_a_report_says_what_to_do() -> None:
    async def scenario() -> None:
        world = World()
        with pytest.raises(NotFound, match="kimi-review dead retry"):
            await world.publish(await world.claim())

    asyncio.run(scenario())


def test_a_record_of_what_was_posted_is_kept() -> None:
    async def scenario() -> None:
        world = World()
        claim = await world.claim(report(1))
        await world.publish(claim)
        assert (await world.jobs.load(claim.job.id))[POSTED] == b'{"summary": true, "fingerprints": ["fp1"]}'

    asyncio.run(scenario())


def test_a_note_is_posted_once() -> None:
    async def scenario() -> None:
        world = World()
        claim = await world.claim()
        publishing = Publishing(jobs=world.jobs, clock=world.clock, marker_key=MARKER_KEY)
        assert await post_note(claim.job, "No answer from @model <b>", forge=world.forge, publishing=publishing)
        assert not await post_note(claim.job, "No answer", forge=world.forge, publishing=publishing)
        (note,) = world.forge.notes[REF]
        assert "Not reviewed" in note
        assert "No answer from @ model &lt;b&gt;" in note

    asyncio.run(scenario())


def test_no_note_denies_a_review_that_is_there_or_speaks_of_another_head() -> None:
    async def scenario() -> None:
        world = World()
        claim = await world.claim(report())
        await world.publish(claim)
        publishing = Publishing(jobs=world.jobs, clock=world.clock, marker_key=MARKER_KEY)
        assert not await post_note(claim.job, "No answer", forge=world.forge, publishing=publishing)
        world.forge.push(REF, NEWER)
        assert not await post_note(claim.job, "No answer", forge=world.forge, publishing=publishing)
        assert world.forge.notes == {}

    asyncio.run(scenario())
