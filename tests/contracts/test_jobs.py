"""What every store of job records promises, whoever dies and whenever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.fakes.jobs import FakeJobs
from worker.core.change import ChangeRef
from worker.core.errors import LeaseLost, NotFound, Superseded
from worker.core.job import Claim, Intent, NotClaimed, Priority, Stage, State
from worker.ports import Jobs
from worker.storage.connection import connect
from worker.storage.jobs import RedisJobs

REF = ChangeRef("github", "octo/cat", 7)
A, B, C = ("a" * 40, "b" * 40, "c" * 40)
REVIEW = (State.QUEUED, State.RUNNING)
PUBLISH = (State.REVIEWED, State.PUBLISHING)

Story = Callable[[Callable[[Jobs], Awaitable[None]]], None]


@pytest.fixture(params=["fake", "redis"])
def store(request: pytest.FixtureRequest) -> Story:
    """Tell a story to a store whose leases last 0.15 s."""
    if request.param == "fake":
        return lambda story: asyncio.run(story(FakeJobs(lease_s=0.15)))  # type: ignore[arg-type]
    url = request.getfixturevalue("redis_url")

    @asynccontextmanager
    async def opened() -> AsyncIterator[Jobs]:
        client = connect(url)
        try:
            yield RedisJobs(client, lease_s=0.15)
        finally:
            await client.aclose()

    async def told(story: Callable[[Jobs], Awaitable[None]]) -> None:
        async with opened() as jobs:
            await story(jobs)

    return lambda story: asyncio.run(told(story))


async def claimed(jobs: Jobs, job_id: str, states: tuple[State, ...] = REVIEW, worker: str = "w1") -> Claim:
    claim = await jobs.claim(job_id, worker=worker, states=states)
    assert isinstance(claim, Claim), claim
    return claim


async def refused(jobs: Jobs, job_id: str, states: tuple[State, ...] = REVIEW) -> str:
    answer = await jobs.claim(job_id, worker="w2", states=states)
    assert isinstance(answer, NotClaimed), answer
    return answer.reason


async def state_of(jobs: Jobs, job_id: str) -> State:
    job = await jobs.get(job_id)
    assert job is not None
    return job.state


async def after(seconds: float, act: Callable[[], Awaitable[Claim]]) -> Claim:
    await asyncio.sleep(seconds)
    return await act()


async def lease_ends() -> None:
    await asyncio.sleep(0.2)


# --------------------------------------------------------------------------------------- acceptance


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


# --------------------------------------------------------------------------------------- newer heads


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


# ------------------------------------------------------------------------------------ lease and fence


def test_a_job_is_had_by_one_worker_at_a_time(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        answers = await asyncio.gather(*(jobs.claim(made.job, worker=f"w{n}", states=REVIEW) for n in range(50)))
        assert sum(isinstance(answer, Claim) for answer in answers) == 1

    store(story)


def test_the_heartbeat_keeps_the_lease_and_without_it_another_takes_over(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        first = await claimed(jobs, made.job)
        for _ in range(4):
            await asyncio.sleep(0.06)
            await jobs.renew(first)
        assert "leased by w1" in await refused(jobs, made.job)
        await lease_ends()
        second = await claimed(jobs, made.job, worker="w2")
        assert second.token > first.token
        assert second.job.attempt == 2

    store(story)


def test_a_late_writer_is_refused_everywhere(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        late = await claimed(jobs, made.job)
        await lease_ends()
        await claimed(jobs, made.job, worker="w2")
        assert not await jobs.is_current(late)
        for write in (
            jobs.renew(late),
            jobs.save(late, "report", b"mine"),
            jobs.advance(late, State.DONE),
            jobs.release(late, State.REVIEWED, reason="mine"),
            jobs.hand_back(late, reason="mine"),
            jobs.died(late, reason="mine"),
            jobs.note_head(late, B),
        ):
            with pytest.raises(LeaseLost):
                await write
        assert await jobs.load(made.job) == {}
        assert await state_of(jobs, made.job) is State.RUNNING

    store(story)


def test_an_end_ends_the_lease(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        claim = await claimed(jobs, made.job)
        await jobs.advance(claim, State.DONE, reason="posted")
        with pytest.raises(LeaseLost):
            await jobs.save(claim, "report", b"late")
        assert "already done" in await refused(jobs, made.job)

    store(story)


def test_settling_twice_says_the_same(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        claim = await claimed(jobs, made.job)
        await jobs.release(claim, State.REVIEWED, reason="stored")
        await jobs.release(claim, State.REVIEWED, reason="stored")
        assert await state_of(jobs, made.job) is State.REVIEWED

    store(story)


def test_checkpoints_are_kept_byte_for_byte_over_attempts(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        await jobs.save(await claimed(jobs, made.job), "unit:1", b"\x00\xff\n")
        await lease_ends()
        await jobs.save(await claimed(jobs, made.job), "unit:2", b"")
        assert await jobs.load(made.job) == {"unit:1": b"\x00\xff\n", "unit:2": b""}

    store(story)


# ----------------------------------------------------------------------------- attempts, dead letters


def test_three_attempts_that_died_make_a_dead_letter_with_a_reason(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        for attempt in (1, 2, 3):
            assert (await claimed(jobs, made.job)).job.attempt == attempt
            await lease_ends()
        assert "died 3 times" in await refused(jobs, made.job)
        job = await jobs.get(made.job)
        assert job is not None
        assert job.state is State.FAILED
        assert "w1" in job.reason
        assert [dead.id for dead in await jobs.list(states=[State.FAILED])] == [made.job]

    store(story)


def test_a_fault_of_ours_counts_like_a_death(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        for _ in range(3):
            await jobs.died(await claimed(jobs, made.job), reason="KeyError in attempt 1")
        assert await state_of(jobs, made.job) is State.FAILED

    store(story)


def test_waiting_for_the_other_side_is_no_death(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        for attempt in range(1, 6):
            claim = await claimed(jobs, made.job)
            assert claim.job.attempt == attempt
            await jobs.release(claim, State.QUEUED, reason="the forge is away")
        assert await state_of(jobs, made.job) is State.QUEUED

    store(story)


def test_a_job_that_is_handed_back_has_lost_no_attempt(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        for _ in range(5):
            claim = await claimed(jobs, made.job)
            assert claim.job.attempt == 1
            await jobs.hand_back(claim, reason="its worker ended")
        assert await state_of(jobs, made.job) is State.QUEUED

    store(story)


def test_publishing_has_attempts_of_its_own(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        await claimed(jobs, made.job)
        await lease_ends()
        await jobs.release(await claimed(jobs, made.job), State.REVIEWED, reason="stored")
        assert "it is reviewed" in await refused(jobs, made.job)
        claim = await claimed(jobs, made.job, PUBLISH)
        assert (claim.job.state, claim.job.attempt) == (State.PUBLISHING, 1)
        await jobs.hand_back(claim, reason="its worker ended")
        assert await state_of(jobs, made.job) is State.REVIEWED

    store(story)


def test_a_dead_letter_is_told_once_and_retried_or_dropped(store: Story) -> None:
    async def story(jobs: Jobs) -> None:
        made = await jobs.accept(Intent(REF, A))
        await jobs.release(await claimed(jobs, made.job), State.FAILED, reason="no such model")
        assert [job.id for job in await jobs.untold(limit=5, again_s=60)] == [made.job]
        assert await jobs.untold(limit=5, again_s=60) == []
        await jobs.told(made.job)
        assert (await jobs.retry(made.job)).state is State.QUEUED
        with pytest.raises(NotFound):
            await jobs.retry(made.job)
        with pytest.raises(NotFound):
            await jobs.drop(made.job)
        await jobs.release(await claimed(jobs, made.job), State.FAILED, reason="no such model")
        await jobs.drop(made.job)
        assert await jobs.get(made.job) is None
        assert await jobs.list() == []
        assert await jobs.untold(limit=5, again_s=0) == []

    store(story)


# -------------------------------------------------------------------------------------- waking, pause


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


# ------------------------------------------------------------------------------------- what is shown


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
