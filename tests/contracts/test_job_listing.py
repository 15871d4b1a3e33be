"""What every store of job records shows of its jobs."""

from __future__ import annotations

from tests.fakes.job_steps import REF, A, Story, claimed, refused
from worker.core.change import ChangeRef
from worker.core.job import Intent, State
from worker.ports import Jobs


def test_the_log_of_decisions_tells_the_story_in_order(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        claim = await claimed(jobs, made.job)
        await jobs.decided(made.job, "review.started", "head ä\ud800")
        await jobs.release(claim, State.SKIPPED, reason="the change is a draft")
        told = [(line.event, line.detail) for line in await jobs.decisions(made.job)]
        assert [event for event, _ in told] == ["job.queued", "job.running", "review.started", "job.skipped"]
        assert told[3][1] == "the change is a draft"

    store(story)


def test_a_log_of_decisions_is_bounded(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        for number in range(250):
            await jobs.decided(made.job, "unit.answered", str(number))
        told = await jobs.decisions(made.job)
        assert len(told) == 200
        assert told[-1].detail == "249"

    store(story)


def test_jobs_are_listed_newest_first_by_state_and_by_change(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = [(await jobs.accept(Intent(ChangeRef("github", "octo/cat", n), A))).job for n in range(5)]
        await jobs.advance(await claimed(jobs, made[1]), State.DONE, reason="posted")
        assert [job.id for job in await jobs.list(limit=3)] == [made[4], made[3], made[2]]
        assert [job.id for job in await jobs.list(states=[State.DONE])] == [made[1]]
        assert [job.id for job in await jobs.find(ChangeRef("github", "octo/cat", 3))] == [made[3]]
        counts = await jobs.counts()
        assert (counts[State.QUEUED], counts[State.DONE], counts[State.FAILED]) == (4, 1, 0)

    store(story)


def test_a_job_that_is_not_there_is_not_there(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        assert await jobs.get("0" * 20) is None
        assert await jobs.load("0" * 20) == {}
        await jobs.decided("0" * 20, "review.started")
        assert await jobs.decisions("0" * 20) == []
        assert "no such job" in await refused(jobs, "0" * 20)

    store(story)
