"""Publishing on a change that moves: newer heads, locks, drafts, and a lease that is lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.fakes.forge import MARKER_KEY
from tests.fakes.publishing import HEAD, NEWER, REF, World, report
from worker.core.change import Change
from worker.core.errors import (
    LeaseLost,
    NotAuthorised,
    Superseded,
    Unprocessable,
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
