"""What every store of job records promises to who asks for a review: one job for a head, the newest head first."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.job_steps import REF, A, B, Story, claimed, lease_ends, refused, state_of
from worker.core.change import ChangeRef
from worker.core.errors import Superseded
from worker.core.job import Intent, Priority, State
from worker.ports import Jobs


def test_one_delivery_makes_one_job_however_often_it_comes(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        intent = Intent(REF, A, delivery="d1")
        answers = await asyncio.gather(*(jobs.accept(intent) for _ in range(100)))
        assert len({answer.job for answer in answers}) == 1
        assert sum(answer.is_new for answer in answers) == 1
        assert len(await jobs.list()) == 1

    store(story)


def test_a_new_delivery_of_the_same_head_is_the_same_job(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        first = await jobs.accept(Intent(REF, A, delivery="d1"))
        again = await jobs.accept(Intent(REF, A, delivery="d2"))
        assert (again.job, again.is_new) == (first.job, False)

    store(story)


def test_other_settings_make_another_job(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        first = await jobs.accept(Intent(REF, A, settings_hash="s1"))
        other = await jobs.accept(Intent(REF, A, settings_hash="s2"))
        assert other.job != first.job
        assert other.is_new

    store(story)


def test_a_head_that_is_done_is_reviewed_again_only_when_forced(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        first = await jobs.accept(Intent(REF, A))
        await jobs.advance(await claimed(jobs, first.job), State.DONE, reason="posted")
        again = await jobs.accept(Intent(REF, A, delivery="d2"))
        assert (again.job, again.state, again.is_new) == (first.job, State.DONE, False)
        forced = await jobs.accept(Intent(REF, A, force=True, delivery="d3"))
        assert forced.is_new
        assert forced.job != first.job
        redelivered = await jobs.accept(Intent(REF, A, force=True, delivery="d3"))
        assert (redelivered.job, redelivered.is_new) == (forced.job, False)

    store(story)


def test_a_skipped_head_that_somebody_asks_for_all_the_same_is_known_as_forced(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        first = await jobs.accept(Intent(REF, A))
        await jobs.advance(await claimed(jobs, first.job), State.SKIPPED, reason="reviewed before")
        await jobs.accept(Intent(REF, A))
        claim = await claimed(jobs, first.job)
        assert not claim.job.is_forced
        await jobs.advance(claim, State.SKIPPED, reason="reviewed before")
        await jobs.accept(Intent(REF, A, force=True))
        assert (await claimed(jobs, first.job)).job.is_forced

    store(story)


def test_a_redelivery_after_a_failure_starts_the_job_anew(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        first = await jobs.accept(Intent(REF, A, delivery="d1"))
        await jobs.release(await claimed(jobs, first.job), State.FAILED, reason="the token was wrong")
        again = await jobs.accept(Intent(REF, A, delivery="d1"))
        assert (again.job, again.state) == (first.job, State.QUEUED)
        assert (await claimed(jobs, first.job)).job.attempt == 1

    store(story)


@pytest.mark.parametrize("end", [State.SKIPPED, State.FAILED])
def test_a_later_delivery_takes_up_a_head_that_was_not_reviewed(store: Story, end: State) -> None:
    async def story(jobs: Jobs) -> None:
        first = await jobs.accept(Intent(REF, A, delivery="opened"))
        await jobs.release(await claimed(jobs, first.job), end, reason="the change is a draft")
        again = await jobs.accept(Intent(REF, A, delivery="ready"))
        assert (again.job, again.state) == (first.job, State.QUEUED)

    store(story)


def test_a_caller_without_a_head_gets_one_job_until_it_has_begun(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        first = await jobs.accept(Intent(REF, ""))
        assert (await jobs.accept(Intent(REF, ""))).job == first.job
        await claimed(jobs, first.job)
        assert (await jobs.accept(Intent(REF, ""))).job != first.job

    store(story)


def test_a_caller_without_a_head_is_given_no_job_that_has_found_its_head_already(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        first = await jobs.accept(Intent(REF, ""))
        claim = await claimed(jobs, first.job)
        await jobs.note_head(claim, A)
        await jobs.hand_back(claim, reason="its worker ended")
        # Nobody has worked on it, but what it will review is settled, and the branch may have moved since.
        assert (await jobs.accept(Intent(REF, ""))).job != first.job

    store(story)


def test_what_was_meant_for_the_night_moves_up_when_somebody_waits_for_it(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        first = await jobs.accept(Intent(REF, A, priority=Priority.BATCH, settle_s=0.01))
        await jobs.accept(Intent(REF, A, priority=Priority.INTERACTIVE))
        job = await jobs.get(first.job)
        assert job is not None
        assert job.priority is Priority.INTERACTIVE
        await asyncio.sleep(2.1)
        assert await jobs.due(Priority.BATCH, limit=9, again_s=1) == []
        assert [due.job for due in await jobs.due(Priority.INTERACTIVE, limit=9, again_s=1)] == [first.job]

    store(story)


def test_a_repository_with_ten_open_jobs_lets_others_pass_with_its_further_ones(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        crowd = [await jobs.accept(Intent(ChangeRef("github", "octo/busy", n), A)) for n in range(12)]
        assert [made.priority for made in crowd] == [Priority.INTERACTIVE] * 10 + [Priority.CROWD] * 2
        other = await jobs.accept(Intent(REF, A))
        batch = await jobs.accept(Intent(ChangeRef("github", "octo/busy", 90), A, priority=Priority.BATCH))
        assert (other.priority, batch.priority) == (Priority.INTERACTIVE, Priority.BATCH)
        # Each end makes room, whichever job it was and however it came to it.
        for made in crowd[:3]:
            await jobs.advance(await claimed(jobs, made.job), State.SKIPPED, reason="closed")
        later = [await jobs.accept(Intent(ChangeRef("github", "octo/busy", n), A)) for n in (20, 21)]
        assert [made.priority for made in later] == [Priority.INTERACTIVE, Priority.CROWD]
        assert {job.priority for job in await jobs.find(ChangeRef("github", "octo/busy", 21))} == {Priority.CROWD}

    store(story)


def test_five_pushes_leave_one_job_of_the_last_head(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        heads = [str(number) * 40 for number in range(5)]
        jobs_made = [await jobs.accept(Intent(REF, head, settle_s=1.0)) for head in heads]
        states = [await state_of(jobs, made.job) for made in jobs_made]
        assert states == [State.SUPERSEDED] * 4 + [State.QUEUED]
        first = await jobs.get(jobs_made[0].job)
        assert first is not None
        assert first.superseded_by == heads[1]
        assert "not before" in await refused(jobs, jobs_made[4].job)

    store(story)


def test_a_running_job_learns_of_a_newer_head_and_ends_at_its_next_safe_point(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        old = await jobs.accept(Intent(REF, A))
        claim = await claimed(jobs, old.job)
        assert await jobs.is_current(claim)
        await jobs.accept(Intent(REF, B))
        assert not await jobs.is_current(claim)
        assert await state_of(jobs, old.job) is State.RUNNING
        told = (await jobs.decisions(old.job))[-1]
        assert (told.event, told.detail) == ("job.outdated", f"a newer head was accepted: {B}")
        await jobs.release(claim, State.SUPERSEDED, reason="a newer head")
        job = await jobs.get(old.job)
        assert job is not None
        assert (job.state, job.superseded_by) == (State.SUPERSEDED, B)

    store(story)


def test_an_outdated_job_whose_worker_died_is_superseded_when_it_would_be_claimed(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        old = await jobs.accept(Intent(REF, A))
        await claimed(jobs, old.job)
        await jobs.accept(Intent(REF, B))
        await lease_ends()
        assert "superseded" in await refused(jobs, old.job)
        assert await state_of(jobs, old.job) is State.SUPERSEDED

    store(story)


def test_a_branch_that_is_moved_back_has_its_earlier_head_reviewed(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        first = await jobs.accept(Intent(REF, A, delivery="d1"))
        second = await jobs.accept(Intent(REF, B, delivery="d2"))
        back = await jobs.accept(Intent(REF, A, delivery="d3"))
        assert (back.job, back.state) == (first.job, State.QUEUED)
        assert await state_of(jobs, second.job) is State.SUPERSEDED
        await claimed(jobs, first.job)

    store(story)


def test_a_branch_that_is_moved_back_while_its_head_is_reviewed_lets_that_review_go_on(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        first = await jobs.accept(Intent(REF, A))
        claim = await claimed(jobs, first.job)
        second = await jobs.accept(Intent(REF, B))
        back = await jobs.accept(Intent(REF, A))
        assert (back.job, back.state) == (first.job, State.RUNNING)
        assert await jobs.is_current(claim)
        assert await state_of(jobs, second.job) is State.SUPERSEDED
        job = await jobs.get(first.job)
        assert job is not None
        assert job.superseded_by == ""

    store(story)


def test_a_late_redelivery_of_an_older_head_disturbs_nothing(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        first = await jobs.accept(Intent(REF, A, delivery="d1"))
        second = await jobs.accept(Intent(REF, B, delivery="d2"))
        claim = await claimed(jobs, second.job)
        late = await jobs.accept(Intent(REF, A, delivery="d1"))
        assert (late.job, late.state) == (first.job, State.SUPERSEDED)
        assert await jobs.is_current(claim)

    store(story)


def test_a_head_that_the_forge_named_is_written_down_and_known_afterwards(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        asked = await jobs.accept(Intent(REF, ""))
        claim = await claimed(jobs, asked.job)
        await jobs.note_head(claim, A)
        assert await jobs.is_current(claim)
        job = await jobs.get(asked.job)
        assert job is not None
        assert job.head == A
        assert (await jobs.accept(Intent(REF, A, delivery="d1"))).job == asked.job

    store(story)


def test_a_request_without_a_head_steps_back_for_the_job_that_has_this_head(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        pushed = await jobs.accept(Intent(REF, A))
        asked = await jobs.accept(Intent(REF, ""))
        claim = await claimed(jobs, asked.job)
        with pytest.raises(Superseded):
            await jobs.note_head(claim, A)
        assert await state_of(jobs, asked.job) is State.SKIPPED
        assert await state_of(jobs, pushed.job) is State.QUEUED

    store(story)


def test_a_request_without_a_head_supersedes_what_waits_for_an_older_one(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        pushed = await jobs.accept(Intent(REF, A))
        asked = await jobs.accept(Intent(REF, ""))
        await jobs.note_head(await claimed(jobs, asked.job), B)
        old = await jobs.get(pushed.job)
        assert old is not None
        assert (old.state, old.superseded_by) == (State.SUPERSEDED, B)
        assert await state_of(jobs, asked.job) is State.RUNNING

    store(story)


def test_why_a_delivery_became_no_job_is_remembered_for_its_change_alone(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        other = ChangeRef("github", "octo/dog", 1)
        assert await jobs.ignored(REF) == []
        for ref, reason in ((REF, "draft"), (other, "author is a bot"), (REF, "change from a fork")):
            await jobs.note_ignored(ref, reason)
        noted = await jobs.ignored(REF)
        assert [(one.event, one.detail) for one in noted] == [
            ("delivery.ignored", "draft"),
            ("delivery.ignored", "change from a fork"),
        ]
        assert noted[0].at <= noted[1].at

    store(story)


def test_a_request_without_a_head_steps_back_for_one_that_was_accepted_while_it_asked_the_forge(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        asked = await jobs.accept(Intent(REF, ""))
        claim = await claimed(jobs, asked.job)
        pushed = await jobs.accept(Intent(REF, B))
        # The forge answered before the push, or lags behind it.
        with pytest.raises(Superseded):
            await jobs.note_head(claim, A)
        found = await jobs.get(asked.job)
        assert found is not None
        assert (found.state, found.superseded_by) == (State.SUPERSEDED, B)
        await claimed(jobs, pushed.job)

    store(story)
