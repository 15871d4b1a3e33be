"""A real Celery worker over real Redis: what it takes first, what it survives, how it ends."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from tests.fakes.pipeline import BOUGHT, POSTED
from worker.core.change import ChangeRef
from worker.core.job import Intent, Priority, State
from worker.storage.broker import message_for
from worker.storage.connection import connect
from worker.storage.embedded import EmbeddedRedis
from worker.storage.foreign import KEY, count_foreign, list_foreign
from worker.storage.jobs import RedisJobs
from worker.storage.queue import CeleryWake, celery_app


@dataclass(frozen=True, slots=True)
class Scene:
    client: redis.asyncio.Redis
    jobs: RedisJobs
    wake: CeleryWake

    async def accept(self, number: int, priority: Priority = Priority.INTERACTIVE) -> str:
        made = await self.jobs.accept(Intent(ChangeRef("github", "octo/cat", number), "a" * 40, priority=priority))
        await self.wake.review(made.job, priority)
        return made.job

    async def all_in(self, state: State, count: int, *, within_s: float = 60.0) -> None:
        deadline = time.monotonic() + within_s
        while (await self.jobs.counts())[state] < count:
            assert time.monotonic() < deadline, [(job.state, job.reason) for job in await self.jobs.list()]
            await asyncio.sleep(0.05)

    async def long_enough(self, key: str, length: int, *, within_s: float = 60.0) -> None:
        """Wait until the list `key` has so many rows."""
        deadline = time.monotonic() + within_s
        while await self.client.llen(key) < length:
            assert time.monotonic() < deadline, await self.client.lrange(key, 0, -1)
            await asyncio.sleep(0.05)

    async def has_decided(self, job: str, event: str, *, within_s: float = 60.0) -> None:
        """Wait until the job's log of decisions holds an event."""
        deadline = time.monotonic() + within_s
        while event not in [line.event for line in await self.jobs.decisions(job)]:
            assert time.monotonic() < deadline, await self.jobs.decisions(job)
            await asyncio.sleep(0.05)

    async def effects(self, key: str) -> list[str]:
        return [row.decode() if isinstance(row, bytes) else str(row) for row in await self.client.lrange(key, 0, -1)]


def play(url: str, story: Callable[[Scene], Awaitable[None]]) -> None:
    async def played() -> None:
        client = connect(url)
        try:
            await story(Scene(client, RedisJobs(client, lease_s=2.0), CeleryWake(celery_app(url), client)))
        finally:
            await client.aclose()

    asyncio.run(played())


@contextmanager
def working(url: str, log: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of the pipeline without forge and model."""
    environment = {**os.environ, "PIPELINE_REDIS_URL": url, "PYTHONPATH": str(Path.cwd()), **settings}
    command = [sys.executable, "-m", "celery", "-q", "-A", "tests.fakes.pipeline_worker", "worker"]
    with log.open("ab") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def test_interactive_jobs_are_taken_before_a_batch_that_came_first(redis_url: str, tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        batch = [await scene.accept(n, Priority.BATCH) for n in range(8)]
        interactive = [await scene.accept(n) for n in range(8, 16)]
        with working(redis_url, tmp_path / "log", PIPELINE_THREADS="1", PIPELINE_UNITS="1"):
            await scene.all_in(State.DONE, 16)
        order = [line.split()[0] for line in await scene.effects(BOUGHT)]
        # A worker of one thread holds one message and has fetched at most one more.
        assert set(order[:8]) == set(interactive)
        assert set(order[8:]) == set(batch)

    play(redis_url, story)


def test_a_new_interactive_job_is_taken_next_while_two_hundred_batch_jobs_wait(redis_url: str, tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        batch = {await scene.accept(n, Priority.BATCH) for n in range(200)}
        with working(redis_url, tmp_path / "log", PIPELINE_THREADS="1", PIPELINE_UNITS="1", PIPELINE_UNIT_S="0.2"):
            await scene.long_enough(BOUGHT, 3)
            before = len(await scene.effects(BOUGHT))
            interactive = await scene.accept(1000)
            await scene.long_enough(BOUGHT, before + 4)
            order = [line.split()[0] for line in await scene.effects(BOUGHT)]
        # The one that runs, and the one that the worker had fetched: no other goes before it.
        assert interactive in order[before : before + 3]
        assert batch > set(order) - {interactive}

    play(redis_url, story)


def test_a_killed_workers_job_is_taken_over_and_nothing_is_bought_or_posted_twice(
    redis_url: str, tmp_path: Path
) -> None:
    async def story(scene: Scene) -> None:
        job = await scene.accept(1)
        with working(redis_url, tmp_path / "log", PIPELINE_UNITS="10", PIPELINE_UNIT_S="0.3") as first:
            await scene.long_enough(BOUGHT, 4)
            first.send_signal(signal.SIGKILL)
            killed = time.monotonic()
        with working(redis_url, tmp_path / "log", PIPELINE_UNITS="10", PIPELINE_UNIT_S="0.05"):
            await scene.all_in(State.DONE, 1)
        assert time.monotonic() - killed < 15
        # Ten units, and the one that was in flight when the worker died.
        assert len(await scene.effects(BOUGHT)) <= 11
        assert len(await scene.effects(POSTED)) == 1
        assert "attempt.died" in [line.event for line in await scene.jobs.decisions(job)]

    play(redis_url, story)


def test_a_killed_workers_job_is_taken_over_before_hundreds_that_wait(redis_url: str, tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        job = await scene.accept(0)
        with working(redis_url, tmp_path / "log", PIPELINE_UNIT_S="30") as first:
            await scene.all_in(State.RUNNING, 1)
            for number in range(1, 301):
                await scene.accept(number)
            with working(redis_url, tmp_path / "log", PIPELINE_THREADS="1"):
                await scene.all_in(State.DONE, 3)
                first.send_signal(signal.SIGKILL)
                killed_at = time.time()
                while "attempt.died" not in [line.event for line in await scene.jobs.decisions(job)]:
                    assert time.time() < killed_at + 10
                    await asyncio.sleep(0.1)
                # The first worker's threads held jobs of the three hundred too; far more still wait.
                assert (await scene.jobs.counts())[State.QUEUED] > 100

    play(redis_url, story)


def test_sigterm_hands_running_jobs_back_at_once_and_the_next_worker_goes_on(redis_url: str, tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        for number in range(3):
            await scene.accept(number)
        with working(redis_url, tmp_path / "log", PIPELINE_UNITS="20", PIPELINE_UNIT_S="0.5") as first:
            await scene.all_in(State.RUNNING, 3)
            began = time.monotonic()
            first.terminate()
            first.wait(10)
            assert time.monotonic() - began < 5
            assert first.returncode == 0
        assert {(job.state, job.attempt) for job in await scene.jobs.list()} == {(State.QUEUED, 0)}
        with working(redis_url, tmp_path / "log", PIPELINE_UNITS="2"):
            await scene.all_in(State.DONE, 3)
        assert len(await scene.effects(POSTED)) == 3

    play(redis_url, story)


def test_a_worker_that_grows_ends_in_order_and_the_job_it_grew_by_counts_an_attempt(
    redis_url: str, tmp_path: Path
) -> None:
    slow = {"PIPELINE_UNITS": "20", "PIPELINE_UNIT_S": "0.5"}

    async def story(scene: Scene) -> None:
        job = await scene.accept(1)
        with working(redis_url, tmp_path / "log", PIPELINE_MEMORY_MB="400", PIPELINE_LEAK_MB="500", **slow) as first:
            await asyncio.to_thread(first.wait, 20)
            assert first.returncode == 0
        [died] = [line.detail for line in await scene.jobs.decisions(job) if line.event == "attempt.died"]
        assert "for it alone, more than WORKER_MEMORY_MB" in died
        with working(redis_url, tmp_path / "log", PIPELINE_MEMORY_MB="400", PIPELINE_UNITS="2"):
            await scene.all_in(State.DONE, 1)
        assert len(await scene.effects(POSTED)) == 1

    play(redis_url, story)


def test_a_worker_that_grows_hands_back_what_nobody_can_be_blamed_for(redis_url: str, tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        for number in range(3):
            await scene.accept(number)
        grown = {"PIPELINE_MEMORY_MB": "400", "PIPELINE_LEAK_MB": "150", "PIPELINE_UNIT_S": "5"}
        with working(redis_url, tmp_path / "log", **grown) as first:
            await asyncio.to_thread(first.wait, 20)
        assert {(job.state, job.attempt) for job in await scene.jobs.list()} == {(State.QUEUED, 0)}

    play(redis_url, story)


def test_a_store_that_dies_and_comes_back_costs_nothing(
    redis_server: EmbeddedRedis, redis_url: str, tmp_path: Path
) -> None:
    async def story(scene: Scene) -> None:
        for number in range(10):
            await scene.accept(number)
        with working(redis_url, tmp_path / "log", PIPELINE_UNIT_S="0.3"):
            await scene.all_in(State.RUNNING, 1)
            os.kill(int((await scene.client.info("server"))["process_id"]), signal.SIGKILL)
            await asyncio.sleep(1)
            redis_server.ensure_running()
            await scene.all_in(State.DONE, 10)
        posted = await scene.effects(POSTED)
        assert len(posted) == len(set(posted)) == 10

    play(redis_url, story)


def test_messages_that_are_not_ours_are_put_aside_and_their_content_is_not_logged(
    redis_url: str, tmp_path: Path
) -> None:
    # No key by its shape: the log masks those, and would hide that it holds arguments.
    secret = "words-of-a-stranger-in-arguments"

    async def story(scene: Scene) -> None:
        app = celery_app(redis_url)
        app.send_task("no.such.task", args=[secret], queue="interactive")
        # Celery's own, which every worker would run.
        app.send_task("celery.map", args=[{"task": "review.run"}, [[secret]]], queue="interactive")
        app.send_task("review.run", args=[secret], queue="interactive")
        app.send_task("review.run", args=["0" * 20, secret], queue="interactive")
        app.send_task("review.run", args=["x" * 5_000_000], queue="interactive")
        # A newer program's: they name a job of ours, which is not lost with them.
        named = [(await scene.jobs.accept(Intent(ChangeRef("github", "octo/dog", n), "a" * 40))).job for n in (1, 2)]
        app.send_task("review.run", args=[named[0], {"since": secret}], queue="interactive")
        app.send_task("review.triage", args=[named[1], secret], queue="interactive")
        with working(redis_url, tmp_path / "log") as process:
            job = await scene.accept(1)
            await scene.all_in(State.DONE, 1)
            await scene.long_enough(KEY, 7)
            for left in named:
                await scene.has_decided(left, "job.left")
                await scene.wake.review(left, Priority.INTERACTIVE)
            await scene.all_in(State.DONE, 3)
            assert process.poll() is None
        assert (await scene.jobs.get(job)) is not None
        assert await scene.jobs.left() == 0
        reasons = {(row.task, row.reason) for row in await list_foreign(scene.client)}
        assert reasons == {
            ("no.such.task", "unknown task"),
            ("celery.map", "unknown task"),
            ("review.triage", "unknown task"),
            ("review.run", "no job id"),
            ("review.run", "more than a job id"),
        }

    play(redis_url, story)
    assert secret not in (tmp_path / "log").read_text()
    assert (tmp_path / "log").stat().st_size < 100_000


def test_whatever_a_stranger_pushes_into_the_queue_the_worker_lives_and_notes_it(
    redis_url: str, tmp_path: Path
) -> None:
    async def story(scene: Scene) -> None:
        good = json.loads(message_for(celery_app(redis_url), "review.run", "0" * 20, queue="interactive", priority=0))
        secret = "words-of-a-stranger-in-garbage"
        garbage = [
            f"garbage {secret}".encode(),
            b"",
            b"null",
            b"\xff\xfe\x00",
            b"[" * 100_000,
            b'{"__type__": "uuid", "__value__": [1]}',
            *(json.dumps(spoilt).encode() for spoilt in spoilt_messages(good, secret)),
        ]
        await scene.client.lpush("interactive", *garbage)
        with working(redis_url, tmp_path / "log") as process:
            job = await scene.accept(1)
            await scene.all_in(State.DONE, 1)
            assert process.poll() is None
        assert (await scene.jobs.get(job)) is not None
        kept = await list_foreign(scene.client, limit=1000)
        assert await count_foreign(scene.client) == len(kept) > len(garbage) / 2
        assert {row.reason for row in kept} >= {"not JSON", "no Celery message", "its body is no call of a task"}
        log = (tmp_path / "log").read_text()
        # A task's name is told; nothing else of a message is.
        assert secret not in log.replace(f'"task": "{secret}"', "")
        assert "Unrecoverable" not in log

    play(redis_url, story)


def spoilt_messages(good: dict[str, Any], secret: str) -> Iterator[dict[str, Any]]:
    """`good` with one part missing or of another kind, for each of its parts and each kind."""
    kinds: tuple[object, ...] = (None, 1, secret, [], [secret], {}, {"at": secret}, "2999-01-01T00:00:00")
    parts = [(), *((name,) for name in ("headers", "properties"))]
    for folder in parts:
        for name in good[folder[0]] if folder else good:
            for kind in kinds:
                spoilt = copy.deepcopy(good)
                (spoilt[folder[0]] if folder else spoilt)[name] = kind
                yield spoilt
            missing = copy.deepcopy(good)
            del (missing[folder[0]] if folder else missing)[name]
            yield missing
    for body in ("[]", "null", "[1, 2, 3]", "[[], {}, {}]", "{}", '[["x"], {}, null]', '[["x"], {}, {"chord": 1}]'):
        yield {**good, "body": b64encode(body.encode()).decode()}


@pytest.mark.parametrize("lost", ["message", "everything but the record"])
def test_a_job_whose_message_was_lost_is_done_all_the_same(redis_url: str, tmp_path: Path, lost: str) -> None:
    async def story(scene: Scene) -> None:
        await scene.accept(1)
        await scene.client.delete("interactive", "unacked", "unacked_index")
        with working(redis_url, tmp_path / "log"):
            if lost == "everything but the record":
                await scene.client.delete("_kombu.binding.interactive", "_kombu.binding_permanent.interactive")
            await scene.all_in(State.DONE, 1)
        assert len(await scene.effects(POSTED)) == 1

    play(redis_url, story)
