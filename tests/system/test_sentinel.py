"""Redis behind Sentinels: its master dies or is deposed, and the program goes on with the next one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.kimi import Fault
from tests.fakes.pipeline import BOUGHT, POSTED
from tests.fakes.program import until
from tests.fakes.sentinels import PASSWORD, SENTINEL_PASSWORD, Server, Watched, watched
from tests.fakes.town import town
from tests.system.test_queue import Scene, play, working
from worker.core.errors import ConfigurationError, Unreachable
from worker.core.job import State
from worker.storage.connection import ASK_AGAIN_S, SENTINEL_TIMEOUT_S, connect, connected
from worker.storage.foreign import keep_foreign
from worker.storage.health import check_writes


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Watched by one Sentinel, which decides alone and so at once."""
    with watched(tmp_path_factory.mktemp("redis"), sentinels=1) as found:
        yield found


def test_a_master_that_is_deposed_and_lives_on_is_left_before_it_takes_many_writes(one: Watched) -> None:
    async def story() -> None:
        client = connect(one.url)
        try:
            await check_writes(client)
            one.fail_over()
            promoted = time.monotonic()
            new = one.master()
            assert new is not None
            while new.command("GET", "mark") != b"here":
                assert time.monotonic() - promoted < 5 * ASK_AGAIN_S, "writes still go to the old one"
                await client.set("mark", "here")
                await asyncio.sleep(0.1)
        finally:
            await client.aclose()
        keep_foreign(one.url, task="evil.task", reason="no message of ours", size=1)
        with connected(one.url) as blocking:
            assert blocking.get("mark") == b"here"
        assert new.command("LLEN", "{kimi-review}:foreign") == 1

    asyncio.run(story())


def test_sentinels_that_decline_us_or_know_no_such_master_are_told_apart(one: Watched) -> None:
    async def refused(url: str) -> str:
        client = connect(url)
        try:
            with pytest.raises((ConfigurationError, Unreachable)) as told:
                await check_writes(client)
        finally:
            await client.aclose()
        assert "password-of" not in str(told.value)
        return str(told.value)

    async def story() -> None:
        for wrong in ("", "sentinel_password=a-false-word"):
            url = one.url.replace(f"sentinel_password={SENTINEL_PASSWORD}", wrong)
            assert "the Sentinels decline us. Check sentinel_username, sentinel_password" in await refused(url)
        assert "Redis declines us" in await refused(one.url.replace(PASSWORD, "another"))
        assert "check the hosts and master_name" in await refused(one.url.replace("the-master", "another"))

    asyncio.run(story())


def test_while_the_sentinels_are_silent_the_master_they_named_serves_on(one: Watched) -> None:
    async def story() -> None:
        client = connect(one.url)
        try:
            await check_writes(client)
            with one.sentinels[0].silent():
                began = time.monotonic()
                while time.monotonic() - began < ASK_AGAIN_S + 2 * SENTINEL_TIMEOUT_S:
                    await client.set("mark", "here")
                    await asyncio.sleep(0.05)
        finally:
            await client.aclose()

    asyncio.run(story())


def test_a_sentinel_that_is_silent_is_passed_over(one: Watched, tmp_path: Path) -> None:
    deaf = Server(tmp_path, [], password="")
    deaf.start()
    try:
        url = one.url.replace("/0?", f"/0;sentinel://127.0.0.1:{one.sentinels[0].port}/0?", 1)
        url = url.replace(str(one.sentinels[0].port), str(deaf.port), 1)
        with deaf.silent():
            began = time.monotonic()
            assert asyncio.run(written(url)) == "takes writes"
            assert time.monotonic() - began < 3 * SENTINEL_TIMEOUT_S
    finally:
        deaf.stop()


async def written(url: str) -> str:
    client = connect(url)
    try:
        return await check_writes(client)
    finally:
        await client.aclose()


def test_a_worker_outlives_its_master_and_does_each_job_once(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        with working(store.url, tmp_path / "log", PIPELINE_UNITS="6", PIPELINE_UNIT_S="0.3") as worker:
            await scene.accept(1)
            await scene.long_enough(BOUGHT, 2)
            dead = store.master()
            assert dead is not None
            dead.kill()
            with pytest.raises(Unreachable):
                await scene.accept(2)
            await asyncio.to_thread(store.await_another_master, dead)
            await scene.accept(2)
            await scene.all_in(State.DONE, 2)
            assert worker.poll() is None
        assert len(await scene.effects(POSTED)) == 2
        # Six units each. That in flight when the master died is bought again, and so is one whose note was lost.
        assert len(await scene.effects(BOUGHT)) <= 14

    with watched(tmp_path / "redis", sentinels=1) as store:
        play(store.url, story)


@pytest.mark.long
def test_the_whole_program_outlives_its_master_and_reviews_each_change_once(tmp_path: Path) -> None:
    """Api, worker and upkeep, a forge and a model; three Sentinels, of whom two must agree."""
    with watched(tmp_path / "redis") as store, town(tmp_path, {"REDIS_URL": store.url}) as place:
        running, coming = place.change(), place.change()
        place.kimi.script(Fault(delay_s=2.0))
        first = place.job_of(running)
        until(lambda: bool(place.kimi.requests), "the model was asked", log=lambda: place.program.log)
        dead = store.master()
        assert dead is not None
        dead.kill()
        began = time.monotonic()
        assert place.deliver(coming).status_code == 503
        assert time.monotonic() - began < 2.3
        until(lambda: place.deliver(coming).status_code == 202, "deliveries are taken", log=lambda: place.program.log)
        second = place.job_of(coming)
        assert store.master() is not dead
        for job in (first, second):
            place.program.await_state(job, "done")
        for number in (running, coming):
            place.assert_one_review(number)
        # One for each, and the one that was in flight may be asked again.
        assert len(place.kimi.requests) <= 3
        assert "password-of" not in place.program.log


@pytest.mark.long
def test_a_worker_follows_a_master_that_is_deposed_in_order(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        with working(store.url, tmp_path / "log") as worker:
            await scene.accept(1)
            await scene.all_in(State.DONE, 1)
            await asyncio.to_thread(store.fail_over)
            await asyncio.sleep(3 * ASK_AGAIN_S)
            await scene.accept(2)
            # The worker waits for messages at the old one until that is told, some ten seconds later.
            await scene.all_in(State.DONE, 2)
            assert worker.poll() is None

    with watched(tmp_path / "redis") as store:
        play(store.url, story)
