"""What every store of job records promises about when a job is next, and what holds the fleet."""

from __future__ import annotations

import asyncio

from tests.fakes.job_steps import PUBLISH, REF, A, Story, after, claimed, lease_ends, refused
from worker.core.change import ChangeRef
from worker.core.job import Intent, Priority, Stage, State
from worker.ports import Jobs


def test_a_deferred_job_is_due_again_in_time_and_goes_on_where_it_stopped(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        await jobs.release(await claimed(jobs, made.job), State.DEFERRED, reason="no tokens left today", wait_s=0.1)
        assert "not before" in await refused(jobs, made.job)
        await asyncio.sleep(0.15)
        assert "deferred" in await refused(jobs, made.job, PUBLISH)
        await jobs.release(await claimed(jobs, made.job), State.REVIEWED, reason="stored")
        await jobs.release(await claimed(jobs, made.job, PUBLISH), State.DEFERRED, reason="no quota", wait_s=0.05)
        await asyncio.sleep(0.1)
        assert "deferred" in await refused(jobs, made.job)
        assert (await claimed(jobs, made.job, PUBLISH)).job.state is State.PUBLISHING

    store(story)


def test_nobody_is_woken_for_a_job_before_it_may_be_claimed(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        await jobs.died(await claimed(jobs, made.job), reason="KeyError", wait_s=0.1)
        assert "not before" in await refused(jobs, made.job)
        assert await jobs.due(Priority.INTERACTIVE, limit=9, again_s=9) == []
        await asyncio.sleep(0.12)
        assert [due.job for due in await jobs.due(Priority.INTERACTIVE, limit=9, again_s=9)] == [made.job]
        await claimed(jobs, made.job)

    store(story)


def test_a_job_nobody_was_woken_for_is_found_and_not_again_at_once(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        await jobs.release(await claimed(jobs, made.job), State.QUEUED, reason="again", wait_s=0.0)
        assert await jobs.due(Priority.INTERACTIVE, limit=9, again_s=9) == []
        await jobs.hand_back(await claimed(jobs, made.job), reason="its worker ended")
        assert await jobs.due(Priority.BATCH, limit=9, again_s=9) == []
        found = await jobs.due(Priority.INTERACTIVE, limit=9, again_s=0.05)
        assert [(due.job, due.stage) for due in found] == [(made.job, Stage.REVIEW)]
        assert await jobs.due(Priority.INTERACTIVE, limit=9, again_s=9) == []
        await asyncio.sleep(0.1)
        assert len(await jobs.due(Priority.INTERACTIVE, limit=9, again_s=9)) == 1

    store(story)


def test_a_job_whose_worker_died_is_due_when_its_lease_is_over(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        await jobs.release(await claimed(jobs, made.job), State.REVIEWED, reason="stored")
        await claimed(jobs, made.job, PUBLISH)
        assert await jobs.due(Priority.INTERACTIVE, limit=9, again_s=9) == []
        await lease_ends()
        found = await jobs.due(Priority.INTERACTIVE, limit=9, again_s=9)
        assert [(due.job, due.stage) for due in found] == [(made.job, Stage.PUBLISH)]

    store(story)


def test_a_job_whose_worker_died_is_urgent_however_many_wait(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        for number in range(20):
            waiting = await jobs.accept(Intent(ChangeRef("github", "octo/dog", number), A))
            await jobs.hand_back(await claimed(jobs, waiting.job), reason="due at once")
        made = await jobs.accept(Intent(REF, A, priority=Priority.BATCH))
        await claimed(jobs, made.job)
        assert await jobs.urgent(limit=9, again_s=9) == []
        await lease_ends()
        found = await jobs.urgent(limit=9, again_s=0.05)
        assert [(due.job, due.stage, due.priority) for due in found] == [(made.job, Stage.REVIEW, Priority.BATCH)]
        assert await jobs.urgent(limit=9, again_s=9) == []
        await asyncio.sleep(0.1)
        assert len(await jobs.urgent(limit=9, again_s=0)) == 1
        await jobs.advance(await claimed(jobs, made.job), State.DONE, reason="posted")
        await lease_ends()
        assert await jobs.urgent(limit=9, again_s=9) == []

    store(story)


def test_a_review_that_is_paid_for_is_urgent_until_it_is_posted(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        await jobs.release(await claimed(jobs, made.job), State.REVIEWED, reason="stored")
        claim = await claimed(jobs, made.job, PUBLISH)
        await jobs.release(claim, State.REVIEWED, reason="the forge is away", wait_s=0.05)
        assert await jobs.urgent(limit=9, again_s=9) == []
        await jobs.hand_back(await after(0.1, lambda: claimed(jobs, made.job, PUBLISH)), reason="its worker ended")
        found = await jobs.urgent(limit=9, again_s=0.02)
        assert [(due.job, due.stage) for due in found] == [(made.job, Stage.PUBLISH)]
        await asyncio.sleep(0.05)
        await jobs.advance(await claimed(jobs, made.job, PUBLISH), State.DONE, reason="posted")
        await lease_ends()
        assert await jobs.urgent(limit=9, again_s=9) == []

    store(story)


def test_a_paused_fleet_claims_and_wakes_nothing_and_ends_what_it_began(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        running = await claimed(jobs, (await jobs.accept(Intent(REF, A))).job)
        waiting = (await jobs.accept(Intent(ChangeRef("github", "octo/dog", 1), A))).job
        await jobs.hand_back(await claimed(jobs, waiting), reason="due at once")
        await jobs.pause("the model is being changed")
        assert await jobs.paused() == "the model is being changed"
        assert "paused: the model is being changed" in await refused(jobs, waiting)
        assert await jobs.due(Priority.INTERACTIVE, limit=9, again_s=9) == []
        await jobs.advance(running, State.DONE, reason="posted")
        await jobs.resume()
        assert await jobs.paused() == ""
        assert len(await jobs.due(Priority.INTERACTIVE, limit=9, again_s=9)) == 1
        await claimed(jobs, waiting)

    store(story)


def test_one_process_leads_until_it_is_silent(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        assert await jobs.leads("one", for_s=0.1)
        assert await jobs.leads("one", for_s=0.1)
        assert not await jobs.leads("two", for_s=0.1)
        await asyncio.sleep(0.15)
        assert await jobs.leads("two", for_s=0.1)

    store(story)


def test_the_longest_wait_counts_from_when_a_job_could_be_worked_on_and_no_wake_up_shortens_it(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        review, publish = (Stage.REVIEW, Priority.INTERACTIVE), (Stage.PUBLISH, Priority.INTERACTIVE)
        assert set((await jobs.longest_waits()).values()) == {0.0}
        first = await jobs.accept(Intent(REF, A))
        await asyncio.sleep(0.05)
        await jobs.accept(Intent(ChangeRef("github", "octo/dog", 1), A))
        await jobs.due(Priority.INTERACTIVE, limit=9, again_s=9)
        waits = await jobs.longest_waits()
        assert waits.pop(review) >= 0.05
        assert set(waits.values()) == {0.0}

        claim = await claimed(jobs, first.job)
        assert (await jobs.longest_waits())[review] < 0.05
        await jobs.release(claim, State.DEFERRED, reason="no tokens left today", wait_s=9)
        assert (await jobs.longest_waits())[review] < 0.05

        other = await jobs.accept(Intent(ChangeRef("github", "octo/fox", 1), A))
        await jobs.release(await claimed(jobs, other.job), State.REVIEWED, reason="stored")
        await asyncio.sleep(0.05)
        assert (await jobs.longest_waits())[publish] >= 0.05
        await jobs.advance(await claimed(jobs, other.job, PUBLISH), State.DONE, reason="posted")
        assert (await jobs.longest_waits())[publish] == 0.0

    store(story)


def test_a_job_whose_worker_died_waits_from_the_end_of_its_lease(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A, priority=Priority.BATCH))
        await claimed(jobs, made.job)
        assert (await jobs.longest_waits())[Stage.REVIEW, Priority.BATCH] == 0.0
        await lease_ends()
        assert 0.0 < (await jobs.longest_waits())[Stage.REVIEW, Priority.BATCH] < 60

    store(story)


def test_a_job_that_moves_up_from_the_batch_keeps_how_long_it_has_waited(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        await jobs.accept(Intent(REF, A, priority=Priority.BATCH))
        await asyncio.sleep(0.05)
        await jobs.accept(Intent(REF, A))
        waits = await jobs.longest_waits()
        assert waits[Stage.REVIEW, Priority.INTERACTIVE] >= 0.05
        assert waits[Stage.REVIEW, Priority.BATCH] == 0.0

    store(story)


def test_deferred_jobs_that_need_wait_no_longer_are_due_at_once_and_others_stay_as_they_are(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = [await jobs.accept(Intent(ChangeRef("github", "octo/cat", n), A)) for n in range(3)]
        for one, wait_s in zip(made[:2], (1800, 0.0), strict=True):
            await jobs.release(await claimed(jobs, one.job), State.DEFERRED, reason="no balance", wait_s=wait_s)
        assert await jobs.hasten("the provider answers again") == 1
        due = await jobs.due(Priority.INTERACTIVE, limit=9, again_s=9)
        assert made[0].job in [one.job for one in due]
        assert (await jobs.decisions(made[0].job))[-1].detail == "the provider answers again"
        assert (await jobs.decisions(made[1].job))[-1].event == "job.deferred"
        assert await jobs.hasten("again") == 0
        await claimed(jobs, made[0].job)

    store(story)
