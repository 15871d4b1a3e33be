"""Records of a newer and of an older program: during a rolling upgrade both work on one store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
import redis.asyncio

from worker.core.change import ChangeRef
from worker.core.job import Claim, Intent, NotClaimed, Priority, State
from worker.storage.connection import PREFIX, connect
from worker.storage.foreign import KEY, list_foreign
from worker.storage.jobs import RedisJobs

REF = ChangeRef("github", "octo/cat", 7)
A, B = "a" * 40, "b" * 40
REVIEW = (State.QUEUED, State.RUNNING)
PUBLISH = (State.REVIEWED, State.PUBLISHING)


@dataclass(frozen=True, slots=True)
class Upgrade:
    client: redis.asyncio.Redis
    jobs: RedisJobs

    async def written(self, **fields: str) -> str:
        """A job with these fields in its record, as another version left it."""
        made = await self.jobs.accept(Intent(REF, A))
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


@pytest.fixture
def during(redis_url: str) -> Callable[[Callable[[Upgrade], Awaitable[None]]], None]:
    def run(story: Callable[[Upgrade], Awaitable[None]]) -> None:
        async def told() -> None:
            client = connect(redis_url)
            try:
                await story(Upgrade(client, RedisJobs(client, lease_s=0.15)))
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


@pytest.mark.parametrize("written", [{"state": "triaged"}, {"version": "2"}, {"state": "triaged", "version": "9"}])
def test_what_only_a_newer_program_knows_is_left_to_it_and_not_lost(during: Told, written: dict[str, str]) -> None:
    async def story(upgrade: Upgrade) -> None:
        job = await upgrade.written(**written)
        before = await upgrade.fields(job)
        for states in (REVIEW, PUBLISH):
            answer = await upgrade.jobs.claim(job, worker="w", states=states)
            assert isinstance(answer, NotClaimed)
            assert "newer version of this program: upgrade this worker" in answer.reason
        # The same delivery again: known, not made anew.
        again = await upgrade.jobs.accept(Intent(REF, A, delivery="d2"))
        assert (again.job, again.is_new) == (job, False)
        assert await upgrade.fields(job) == before
        found = await upgrade.jobs.get(job)
        assert found is not None
        assert not found.state.is_final
        assert [other.id for other in await upgrade.jobs.find(REF)] == [job]

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
def test_upkeep_passes_over_what_it_does_not_know_and_wakes_the_rest(during: Told, written: dict[str, str]) -> None:
    async def story(upgrade: Upgrade) -> None:
        job = await upgrade.written()
        ours = (await upgrade.jobs.accept(Intent(ChangeRef("github", "octo/dog", 1), A))).job
        for one in (job, ours):
            await upgrade.claimed(one, REVIEW)
        await upgrade.client.hset(f"{PREFIX}:job:{job}", mapping=written)
        await asyncio.sleep(0.2)
        assert [due.job for due in await upgrade.jobs.urgent(limit=9, again_s=9)] == [ours]
        due = await upgrade.jobs.due(Priority.INTERACTIVE, limit=9, again_s=9)
        assert ours in [one.job for one in due]
        assert await upgrade.jobs.get(job) is not None

    during(story)


def test_a_newer_head_takes_over_from_a_job_that_is_not_known(during: Told) -> None:
    async def story(upgrade: Upgrade) -> None:
        job = await upgrade.written(state="triaged", version="2", tomorrow="kept")
        newer = await upgrade.jobs.accept(Intent(REF, B))
        await upgrade.claimed(newer.job, REVIEW)
        fields = await upgrade.fields(job)
        assert (fields["state"], fields["superseded_by"], fields["tomorrow"]) == ("superseded", B, "kept")

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
