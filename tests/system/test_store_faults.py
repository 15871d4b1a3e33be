"""Redis away, silent, full, read-only or killed under the running program: refused in time, and nothing is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import pytest
import redis

from tests.fakes.kimi import Fault
from tests.fakes.program import until
from tests.fakes.town import LEASE_S, Town, town
from worker.storage.embedded import EmbeddedRedis, start


@dataclass
class Store:
    server: EmbeddedRedis

    def command(self, *words: str) -> None:
        with redis.Redis.from_url(self.server.url) as client:
            client.execute_command(*words)

    @property
    def process(self) -> int:
        with redis.Redis.from_url(self.server.url) as client:
            return int(client.info("server")["process_id"])

    @contextmanager
    def away(self) -> Iterator[None]:
        os.kill(self.process, signal.SIGKILL)
        try:
            yield
        finally:
            self.server.ensure_running()

    @contextmanager
    def silent(self) -> Iterator[None]:
        process = self.process
        os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process, signal.SIGCONT)

    @contextmanager
    def full(self) -> Iterator[None]:
        self.command("CONFIG", "SET", "maxmemory", "1")
        try:
            yield
        finally:
            self.command("CONFIG", "SET", "maxmemory", "0")

    @contextmanager
    def read_only(self) -> Iterator[None]:
        self.command("REPLICAOF", "127.0.0.1", "1")
        try:
            yield
        finally:
            self.command("REPLICAOF", "NO", "ONE")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with start(tmp_path_factory.mktemp("store")) as server:
        yield Store(server)


@pytest.fixture(scope="module")
def place(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A program whose Redis is somebody else's, as in a fleet: it neither starts nor mends it."""
    with town(tmp_path_factory.mktemp("town"), {"REDIS_URL": store.server.url}) as opened:
        yield opened


def test_while_the_store_takes_nothing_deliveries_are_refused_within_two_seconds_and_afterwards_all_works(
    place: Town, store: Store
) -> None:
    troubles = (Store.away, Store.silent, Store.full, Store.read_only)
    accepted = [refused_then_taken(place, store, trouble) for trouble in troubles]
    for number, job in accepted:
        place.program.await_state(job, "done", within_s=60)
        place.assert_one_review(number)


def refused_then_taken(
    place: Town, store: Store, trouble: Callable[[Store], AbstractContextManager[None]]
) -> tuple[int, str]:
    """A delivery during the trouble, and its redelivery afterwards; the change's number and its job."""
    name = trouble.__name__
    number = place.change(f"def total(items, seen=[]):\n    return {name!r}\n")
    with trouble(store):
        for _ in range(2):
            began = time.monotonic()
            answer = place.deliver(number, delivery=f"{name}-1")
            assert answer.status_code == 503, (name, answer.text)
            assert time.monotonic() - began < 2.3, f"{name}: two seconds, and what a busy machine adds"
            assert answer.headers["retry-after"]
        began = time.monotonic()
        ready = place.program.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["redis"]["ok"]) == (503, False), name
        assert time.monotonic() - began < 2.3
        assert place.program.get("/livez").status_code == 200
    until(lambda: place.program.get("/readyz").status_code == 200, "ready again", log=lambda: place.program.log)
    # The forge's redelivery has the same id: had the first one been half written, it would be taken for known and
    # never be reviewed. A store that was only silent has read it meanwhile, as a whole.
    answer = place.deliver(number, delivery=f"{name}-1")
    assert answer.status_code == 202
    assert answer.json()["new"] or trouble is Store.silent
    return number, str(answer.json()["job"])


@pytest.mark.parametrize("gone_s", [2.5, pytest.param(30.0, marks=pytest.mark.long)])
def test_a_store_that_goes_away_during_a_review_loses_nothing(place: Town, store: Store, gone_s: float) -> None:
    number = place.change()
    place.kimi.script(Fault(delay_s=1.0))
    asked = len(place.kimi.requests)
    job = place.job_of(number)
    until(lambda: len(place.kimi.requests) > asked, "the model was asked", log=lambda: place.program.log)
    with store.away():
        time.sleep(gone_s)
    place.program.await_state(job, "done", within_s=60)
    place.assert_one_review(number)
    if gone_s < LEASE_S:
        assert len(place.kimi.requests) == asked + 1, "the answer that came meanwhile is paid for, and kept"
    assert "DeprecationWarning" not in place.program.log, "Celery's advice to change what is set on purpose"


def test_a_slow_store_makes_nothing_twice(place: Town, store: Store) -> None:
    number = place.change()
    asked = len(place.kimi.requests)
    job = place.job_of(number)
    for _ in range(6):
        with store.silent():
            time.sleep(0.4)
        time.sleep(0.1)
    place.program.await_state(job, "done", within_s=60)
    place.assert_one_review(number)
    assert len(place.kimi.requests) == asked + 1


def test_a_store_that_is_emptied_during_a_review_begins_anew_with_the_next_delivery(place: Town, store: Store) -> None:
    number = place.change()
    place.kimi.script(Fault(delay_s=2.0))
    asked = len(place.kimi.requests)
    place.job_of(number)
    until(lambda: len(place.kimi.requests) > asked, "the model was asked", log=lambda: place.program.log)
    store.command("FLUSHALL")
    answer = place.deliver(number)
    assert (answer.status_code, answer.json()["new"]) == (202, True)
    place.program.await_state(answer.json()["job"], "done", within_s=60)
    time.sleep(1.5)  # the first one would be through by now as well
    place.assert_one_review(number)
