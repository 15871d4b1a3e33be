"""Records of a newer and of an older program: during a rolling upgrade both work on one store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
import redis.asyncio

from worker.core.change import ChangeRef
from worker.core.errors import LeaseLost
from worker.core.job import RECORD_VERSION, Claim, Intent, NotClaimed, Priority, Stage, State
from worker.storage.connection import PREFIX, connect
from worker.storage.foreign import KEY, list_foreign
from worker.storage.jobs import RedisJobs

REF = ChangeRef("github", "octo/cat", 7)
A, B = "a" * 40, "b" * 40
REVIEW = (State.QUEUED, State.RUNNING)
PUBLISH = (State.REVIEWED, State.PUBLISHING)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """`jobs` are those of this program, `newer` those of a release whose records are of the next version."""

    client: redis.asyncio.Redis
    jobs: RedisJobs
    newer: RedisJobs

    async def written(self, *, number: int = REF.number, **fields: str) -> str:
        """A job with these fields in its record, as another version left it."""
        made = await self.jobs.accept(Intent(ChangeRef("github", "octo/cat", number), A))
        if fields:
            await self.client.hset(f"{PREFIX}:job:{made.job}", mapping=fields)
        return made.job

    async def fields(self, job: str) -> dict[str, str]:
        record = await self.client.hgetall(f"{PREFIX}:job:{job}")
        return {name.decode(): value.decode() for name, value in record.items()}

    async def claimed(self, job: str, states: tuple[State, ...]) -> Claim:
        claim = await self.jobs.claim(job, worker="w", states=states)
        assert isinstance(claim, Claim), claim
        return claim

    async def refused(self, job: str, states: tuple[State, ...]) -> str:
        answer = await self.jobs.claim(job, worker="w", states=states)
        assert isinstance(answer, NotClaimed), answer
        return answer.reason


@pytest.fixture
def during(redis_url: str) -> Callable[[Callable[[Upgrade], Awaitable[None]]], None]:
    def run(story: Callable[[Upgrade], Awaitable[None]]) -> None:
        async def told() -> None:
            client = connect(redis_url)
            try:
                jobs = RedisJobs(client, lease_s=0.15, program="0.1.0")
                newer = RedisJobs(client, lease_s=0.15, version=RECORD_VERSION + 1, program="0.2.0")
                await story(Upgrade(client, jobs, newer))
            finally:
                await client.aclose()

        asyncio.run(told())

    return run


Told = Callable[[Callable[[Upgrade], Awaitable[None]]], None]


def test_fields_of_a_newer_program_outlive_a_whole_life_under_the_older_one(during: Told) -> None:
    async def story(upgrade: Upgrade) -> None:
        job = await upgrade.written(tomorrow="kept", verdict_model="kimi-k9")
        review = await upgrade.claimed(job, REVIEW)
        await upgrade.jobs.renew(review)
        await upgrade.jobs.save(review, "report", b"r")
        await upgrade.jobs.release(review, State.REVIEWED, reason="stored")
        await upgrade.jobs.advance(await upgrade.claimed(job, PUBLISH), State.DONE, reason="posted")
        fields = await upgrade.fields(job)
        assert (fields["tomorrow"], fields["verdict_model"], fields["state"]) == ("kept", "kimi-k9", "done")

    during(story)


@pytest.mark.parametrize(
    "written", [{"state": "triaged"}, {"version": "2"}, {"stage": "triage"}, {"state": "triaged", "version": "9"}]
)
def test_what_only_a_newer_program_knows_is_left_to_it_untouched_and_said_so_once(
    during: Told, written: dict[str, str]
) -> None:
    async def story(upgrade: Upgrade) -> None:
        job = await upgrade.written(**written)
        before = await upgrade.fields(job)
        for states in (REVIEW, PUBLISH, REVIEW):
            assert "upgrade the workers" in await upgrade.refused(job, states)
        # The same delivery again: known, not made anew.
        again = await upgrade.jobs.accept(Intent(REF, A, delivery="d2"))
        assert (again.job, again.is_new) == (job, False)
        after = await upgrade.fields(job)
        assert {name: after[name] for name in before} == before
        assert set(after) - set(before) == {"left", "left_at", "left_times"}
        found = await upgrade.jobs.get(job)
        assert found is not None
        assert not found.state.is_final
        assert found.is_left
        assert "it needs a newer version of this program than 0.1.0 (" in found.reason
        assert await upgrade.jobs.left() == 1
        assert [other.id for other in await upgrade.jobs.find(REF)] == [job]
        told = [line.detail for line in await upgrade.jobs.decisions(job) if line.event == "job.left"]
        assert told == [f"by w: {found.reason}"]

    during(story)


def test_a_job_that_is_left_is_woken_for_ever_more_rarely_and_not_all_at_once(during: Told) -> None:
    async def story(upgrade: Upgrade) -> None:
        jobs = [await upgrade.written(number=number, version="2") for number in range(1, 9)]
        waits: list[list[float]] = []
        for _ in range(5):
            for job in jobs:
                await upgrade.refused(job, REVIEW)
            now_s = (await upgrade.client.time())[0]
            scores = [await upgrade.client.zscore(f"{PREFIX}:due:interactive", job) for job in jobs]
            waits.append([float(score) - now_s for score in scores])
        for least_s, row in zip((5, 10, 20, 30, 30), waits, strict=True):
            assert all(least_s - 1.5 <= wait_s <= 2 * least_s + 1 for wait_s in row)
            assert max(row) - min(row) > 0.1 * least_s

    during(story)


def test_a_newer_worker_takes_up_what_an_older_one_left_and_nothing_counts_against_it(during: Told) -> None:
    async def story(upgrade: Upgrade) -> None:
        made = await upgrade.newer.accept(Intent(REF, A))
        for _ in range(5):
            await upgrade.refused(made.job, REVIEW)
        claim = await upgrade.newer.claim(made.job, worker="new", states=REVIEW)
        assert isinstance(claim, Claim)
        assert (claim.job.attempt, claim.job.is_left) == (1, False)
        assert await upgrade.newer.left() == 0
        await upgrade.newer.advance(claim, State.DONE, reason="posted")
        found = await upgrade.jobs.get(made.job)
        assert found is not None
        assert (found.state, found.reason, found.version) == (State.DONE, "posted", 2)
        assert not {name for name in await upgrade.fields(made.job) if name.startswith("left")}

    during(story)


def test_a_checkpoint_of_a_newer_program_makes_the_job_one_for_newer_workers(during: Told) -> None:
    async def story(upgrade: Upgrade) -> None:
        job = await upgrade.written()
        claim = await upgrade.newer.claim(job, worker="new", states=REVIEW)
        assert isinstance(claim, Claim)
        assert (await upgrade.fields(job))["version"] == "1"
        await upgrade.newer.save(claim, "unit:1", b"as only the newer one writes it")
        # The newer worker dies; its death counts once, when a newer one takes over, and not for older ones that look.
        await asyncio.sleep(0.2)
        for _ in range(4):
            assert "its record is of version 2, and version 1 is known here" in await upgrade.refused(job, REVIEW)
        assert (await upgrade.fields(job))["deaths"] == "0"
        assert isinstance(await upgrade.newer.claim(job, worker="new", states=REVIEW), Claim)
        assert (await upgrade.fields(job))["deaths"] == "1"

    during(story)


def test_a_newer_program_works_on_what_an_older_one_began_and_left_behind(during: Told) -> None:
    async def story(upgrade: Upgrade) -> None:
        job = await upgrade.written()
        await upgrade.jobs.save(await upgrade.claimed(job, REVIEW), "unit:1", b"old")
        await asyncio.sleep(0.2)
        claim = await upgrade.newer.claim(job, worker="new", states=REVIEW)
        assert isinstance(claim, Claim)
        assert claim.job.attempt == 2
        assert await upgrade.newer.load(job) == {"unit:1": b"old"}
        # Until the newer one has saved something, an older one could go on as well.
        await asyncio.sleep(0.2)
        assert (await upgrade.claimed(job, REVIEW)).job.attempt == 3

    during(story)


def test_an_older_worker_that_holds_a_job_does_not_lower_what_a_newer_one_has_raised(during: Told) -> None:
    async def story(upgrade: Upgrade) -> None:
        job = await upgrade.written()
        old = await upgrade.claimed(job, REVIEW)
        await upgrade.client.hset(f"{PREFIX}:job:{job}", "version", "2")
        await upgrade.jobs.save(old, "unit:1", b"old")
        assert (await upgrade.fields(job))["version"] == "2"

    during(story)


def test_what_a_worker_found_it_cannot_read_is_given_back_uncounted_and_kept_from_its_like(during: Told) -> None:
    async def story(upgrade: Upgrade) -> None:
        job = await upgrade.written()
        for _ in range(2):
            claim = await upgrade.claimed(job, REVIEW)
            assert claim.job.attempt == 1
            await upgrade.jobs.leave(claim, reason="the checkpoint cannot be read")
            await upgrade.jobs.leave(claim, reason="the checkpoint cannot be read")
            for _ in range(4):
                assert await upgrade.refused(job, REVIEW) == "the checkpoint cannot be read"
            fields = await upgrade.fields(job)
            assert (fields["attempt"], fields["deaths"], fields["state"]) == ("0", "0", "queued")
            taken = await upgrade.newer.claim(job, worker="new", states=REVIEW)
            assert isinstance(taken, Claim)
            assert taken.job.attempt == 1
            await upgrade.newer.hand_back(taken, reason="its worker ended")
        told = [line.event for line in await upgrade.jobs.decisions(job)]
        assert told.count("job.left") == 2
        with pytest.raises(LeaseLost):
            await upgrade.jobs.leave(claim, reason="late")

    during(story)


def test_a_message_that_cannot_be_read_leaves_its_job_due_unless_somebody_has_it(during: Told) -> None:
    async def story(upgrade: Upgrade) -> None:
        job = await upgrade.written()
        await upgrade.jobs.pass_over(job, worker="w", reason="a message says more")
        found = await upgrade.jobs.get(job)
        assert found is not None
        assert (found.is_left, found.reason) == (True, "a message says more")
        # Nothing in the record is beyond this program: the next message may be one that it can read.
        claim = await upgrade.claimed(job, REVIEW)
        await upgrade.jobs.pass_over(job, worker="w2", reason="a message says more")
        assert await upgrade.jobs.is_current(claim)
        assert await upgrade.jobs.left() == 0
        await upgrade.jobs.advance(claim, State.DONE, reason="posted")
        await upgrade.jobs.pass_over(job, worker="w2", reason="a message says more")
        await upgrade.jobs.pass_over("0" * 20, worker="w2", reason="a message says more")
        assert await upgrade.jobs.left() == 0

    during(story)


def test_where_no_newer_worker_comes_for_a_day_the_job_is_a_dead_letter_that_a_retry_takes_up(during: Told) -> None:
    async def story(upgrade: Upgrade) -> None:
        job = await upgrade.written(version="2")
        await upgrade.refused(job, REVIEW)
        first = float((await upgrade.fields(job))["left_at"])
        await upgrade.client.hset(f"{PREFIX}:job:{job}", "left_at", str(first - 86_401))
        await upgrade.refused(job, REVIEW)
        found = await upgrade.jobs.get(job)
        assert found is not None
        assert found.state is State.FAILED
        assert "no newer worker came within a day: it needs a newer version" in found.reason
        assert [dead.id for dead in await upgrade.jobs.untold(limit=9, again_s=60)] == [job]
        assert await upgrade.jobs.left() == 0
        await upgrade.jobs.retry(job)
        await upgrade.refused(job, REVIEW)
        assert isinstance(await upgrade.newer.claim(job, worker="new", states=REVIEW), Claim)

    during(story)


def test_an_end_that_only_a_newer_program_knows_stays_an_end(during: Told) -> None:
    async def story(upgrade: Upgrade) -> None:
        job = await upgrade.written(state="expired")
        await upgrade.client.zrem(f"{PREFIX}:due:interactive", job)
        before = await upgrade.fields(job)
        await upgrade.refused(job, REVIEW)
        assert await upgrade.fields(job) == before
        assert await upgrade.jobs.left() == 0

    during(story)


def test_the_newest_program_does_the_upkeep_since_older_ones_know_fewer_steps(during: Told) -> None:
    async def story(upgrade: Upgrade) -> None:
        assert await upgrade.jobs.leads("old", for_s=9)
        assert await upgrade.newer.leads("new", for_s=9)
        assert not await upgrade.jobs.leads("old", for_s=9)
        assert await upgrade.newer.leads("new", for_s=0.05)
        await asyncio.sleep(0.1)
        assert await upgrade.jobs.leads("old", for_s=9)
        # As the first versions wrote it.
        await upgrade.client.set(f"{PREFIX}:leader", "host-1-ab")
        assert not await upgrade.jobs.leads("old", for_s=9)
        assert await upgrade.newer.leads("new", for_s=9)

    during(story)


def test_a_state_that_is_not_known_is_shown_in_words(during: Told) -> None:
    async def story(upgrade: Upgrade) -> None:
        found = await upgrade.jobs.get(await upgrade.written(state="triaged", reason="r"))
        assert found is not None
        assert (found.state, found.reason) == (
            State.DEFERRED,
            "triaged: a newer version of this program knows what that is",
        )

    during(story)


@pytest.mark.parametrize("written", [{"stage": "triage"}, {"priority": "urgent"}])
def test_upkeep_wakes_somebody_for_what_it_does_not_know_as_for_the_rest(during: Told, written: dict[str, str]) -> None:
    async def story(upgrade: Upgrade) -> None:
        job = await upgrade.written()
        ours = (await upgrade.jobs.accept(Intent(ChangeRef("github", "octo/dog", 1), A))).job
        for one in (job, ours):
            await upgrade.claimed(one, REVIEW)
        await upgrade.client.hset(f"{PREFIX}:job:{job}", mapping=written)
        await asyncio.sleep(0.2)
        urgent = await upgrade.jobs.urgent(limit=9, again_s=9)
        assert {(due.job, due.stage, due.priority) for due in urgent} == {
            (one, Stage.REVIEW, Priority.INTERACTIVE) for one in (job, ours)
        }
        due = await upgrade.jobs.due(Priority.INTERACTIVE, limit=9, again_s=9)
        assert {one.job for one in due} == {job, ours}

    during(story)


def test_a_newer_head_takes_over_from_a_job_that_is_not_known(during: Told) -> None:
    async def story(upgrade: Upgrade) -> None:
        job = await upgrade.written(state="triaged", version="2", tomorrow="kept")
        await upgrade.refused(job, REVIEW)
        assert await upgrade.jobs.left() == 1
        newer = await upgrade.jobs.accept(Intent(REF, B))
        await upgrade.claimed(newer.job, REVIEW)
        fields = await upgrade.fields(job)
        assert (fields["state"], fields["superseded_by"], fields["tomorrow"]) == ("superseded", B, "kept")
        # What has ended waits for nobody.
        assert await upgrade.jobs.left() == 0
        assert not {name for name in fields if name.startswith("left")}

    during(story)


def test_a_record_that_an_older_program_wrote_with_fewer_fields_is_worked_on(during: Told) -> None:
    async def story(upgrade: Upgrade) -> None:
        job = await upgrade.written()
        await upgrade.client.hdel(f"{PREFIX}:job:{job}", "version", "deaths", "not_before", "forced")
        # It knew no index of urgent jobs: whoever it left behind is found among the due jobs.
        await upgrade.claimed(job, REVIEW)
        await upgrade.client.delete(f"{PREFIX}:urgent", f"{PREFIX}:open")
        await asyncio.sleep(0.2)
        assert [due.job for due in await upgrade.jobs.due(Priority.INTERACTIVE, limit=9, again_s=0)] == [job]
        claim = await upgrade.claimed(job, REVIEW)
        assert await upgrade.jobs.is_current(claim)
        await upgrade.jobs.advance(claim, State.DONE, reason="posted")
        counts = await upgrade.jobs.counts()
        assert counts[State.DONE] == 1

    during(story)


def test_longer_lines_of_a_newer_program_are_read_for_what_is_known(during: Told) -> None:
    async def story(upgrade: Upgrade) -> None:
        job = await upgrade.written()
        await upgrade.client.rpush(f"{PREFIX}:job:{job}:log", json.dumps(["1.5", "job.triaged", "why", {"by": "x"}]))
        last = (await upgrade.jobs.decisions(job))[-1]
        assert (last.at, last.event, last.detail) == (1.5, "job.triaged", "why")
        row = {"task": "t", "reason": "r", "size": 3, "at": 2.0, "queue": "q"}
        await upgrade.client.lpush(KEY, json.dumps(row))
        assert [one.reason for one in await list_foreign(upgrade.client)] == ["r"]

    during(story)
