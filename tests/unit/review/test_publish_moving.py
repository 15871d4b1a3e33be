"""Publishing on a change that moves: newer heads, locks, drafts, and a lease that is lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.fakes.forge import MARKER_KEY
from tests.fakes.publishing import HEAD, NEWER, REF, World, report
from worker.core.change import Change
from worker.core.comments import Voice, summary_text
from worker.core.errors import (
    LeaseLost,
    NotAuthorised,
    Superseded,
    Unprocessable,
    Unreachable,
)
from worker.core.job import Claim, Intent, State
from worker.ports import Comment
from worker.review.publish import Published, Publishing, publish_job


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


def test_a_push_brings_comments_on_what_was_told_nowhere_before_however_often_somebody_pushes() -> None:
    async def scenario() -> None:
        world = World(voice=Voice(max_comments=25))
        assert await world.publish(await world.claim(report(49))) == Published(comments=25)
        assert await world.push("c" * 40, report(50)) == Published(comments=1)
        assert await world.push("d" * 40, report(52)) == Published(comments=2)
        first, second, third = world.forge.reviews[REF]
        assert [comment.fingerprint for comment in second.comments] == ["fp50"]
        assert [comment.fingerprint for comment in third.comments] == ["fp51", "fp52"]
        assert "Why it is wrong." in first.body
        # Of what was told before one line each: where, how bad, what.
        assert second.body.count("- 🟠 `src/") == 49
        assert "Why it is wrong." not in second.body
        assert "52 findings, the worst high" in third.body

    asyncio.run(scenario())


def test_what_a_summary_only_counted_is_told_by_the_next_ones_and_takes_no_place_at_a_line() -> None:
    async def scenario() -> None:
        world = World(voice=Voice(max_comments=25))
        assert await world.publish(await world.claim(report(180))) == Published(comments=25)
        assert await world.push("c" * 40, report(181)) == Published(comments=1)
        assert await world.push("d" * 40, report(181)) == Published()
        assert await world.push("e" * 40, report(181)) == Published()
        bodies = [review.body for review in world.forge.reviews[REF]]
        explained = [body.count("Why it is wrong.") for body in bodies]
        assert explained == [50, 50, 50, 5]
        assert ["none of them worse" in body.partition("Raised on")[0] for body in bodies] == [True, True, True, False]

    asyncio.run(scenario())


def test_what_a_summary_told_and_is_found_no_more_is_counted_as_what_was_told_at_a_line() -> None:
    async def scenario() -> None:
        world = World(voice=Voice(max_comments=1))
        await world.publish(await world.claim(report(4)))
        await world.push(NEWER, report(1))
        assert "3 findings raised on an earlier commit were not found again." in world.forge.reviews[REF][1].body

    asyncio.run(scenario())


def test_a_review_begun_again_at_a_later_head_does_not_forget_what_a_summary_told() -> None:
    async def scenario() -> None:
        world = World(voice=Voice(max_comments=4))
        world.forge.comments_per_post = 2
        await world.publish(await world.claim(report(8)))
        post = world.forge.post

        async def once(change: Change, *, summary: str, comments: Sequence[Comment]) -> None:
            await post(change, summary=summary, comments=comments)
            world.forge.post = post  # type: ignore[method-assign]
            raise Unreachable("the network is gone")

        world.forge.post = once  # type: ignore[method-assign]
        with pytest.raises(Unreachable):
            await world.push(NEWER, report(11))
        (job,) = [job for job in await world.jobs.find(REF) if job.head == NEWER]
        assert await world.publish(await world.claim_again(job.id)) == Published(comments=1, already=2)
        assert world.visible() == ["fp1", "fp2", "fp3", "fp4", "fp9", "fp10", "fp11"]

    asyncio.run(scenario())


def test_what_a_summary_has_no_room_to_note_is_told_again_and_never_lost() -> None:
    async def scenario() -> None:
        world = World(voice=Voice(max_comments=0))
        world.forge.body_limit = len(summary_text(report(3), world.voice)) + 400
        await world.publish(await world.claim(report(3)))
        (review,) = world.forge.reviews[REF]
        assert all(f"**Finding {number}**" in review.body for number in (1, 2, 3))
        assert "The rest is left out" not in review.body
        world.voice = Voice()
        assert (await world.push(NEWER, report(3))).comments == 3

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
