"""Publishing: exactly one visible review per head, whatever dies, lies or answers late."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.fakes.forge import MARKER_KEY, Fault, MemoryForge
from tests.fakes.publishing import HEAD, NEWER, REF, World, report
from worker.core.change import Change
from worker.core.errors import (
    NotAuthorised,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    Unreachable,
)
from worker.core.job import Claim, Intent, State
from worker.core.report import Report
from worker.ports import Comment
from worker.review.publish import POSTED, Published, Publishing, post_note, publish_job
from worker.review.records import dump_posted


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours may answer it."""


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


def test_an_unknown_outcome_is_looked_up_though_the_store_cannot_be_told_of_it() -> None:
    async def scenario() -> None:
        world = World()
        world.forge.post_faults.append(Fault(OutcomeUnknown("timed out"), acts=True))
        claim = await world.claim(report())
        told = world.jobs.decided

        async def away(job_id: str, event: str, detail: str = "") -> None:
            if event == "post.outcome_unknown":
                raise Unreachable("Redis does not answer")
            await told(job_id, event, detail)

        world.jobs.decided = away  # type: ignore[method-assign]
        assert await world.publish(claim) == Published(comments=3)
        assert world.summaries() == 1

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
