"""SIGTERM and SIGKILL at each stage of a review: finished or handed back in time, and one review in the end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.kimi import Fault
from tests.fakes.program import until
from tests.fakes.town import Town, town

REVIEWS = r"/pulls/\d+/reviews$"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with town(tmp_path_factory.mktemp("town")) as opened:
        yield opened


def fetching(place: Town) -> Callable[[], bool]:
    """The stage in which git reads the change; how to know that it has begun."""
    place.github.git_server.faults.slow_s = 3
    seen = len(place.github.git_server.seen)
    return lambda: any(one.path.endswith("git-upload-pack") for one in place.github.git_server.seen[seen:])


def thinking(place: Town) -> Callable[[], bool]:
    place.kimi.script(Fault(delay_s=60))
    asked = len(place.kimi.requests)
    return lambda: len(place.kimi.requests) > asked


def posting(place: Town) -> Callable[[], bool]:
    slow = place.github.fail("POST", REVIEWS, None, acts=True, hang_s=1.0)
    return lambda: slow.times == 0


@pytest.mark.parametrize("stage", [fetching, thinking, posting])
def test_a_service_that_is_told_to_end_ends_in_time_and_its_review_is_done_once_when_it_is_back(
    place: Town, stage: Callable[[Town], Callable[[], bool]]
) -> None:
    number = place.change(f"def total(items, seen=[]):\n    return {stage.__name__!r}\n")
    has_begun = stage(place)
    job = place.job_of(number)
    until(has_begun, f"{stage.__name__} has begun", log=lambda: place.program.log)
    began = time.monotonic()
    assert place.program.stop() == 0
    # The process tree has 60 s in compose, of which a post that was begun may take 20.
    assert time.monotonic() - began < 25
    place.github.git_server.faults.slow_s = 0
    place.program.start()
    record = place.program.await_state(job, "done", within_s=60)
    assert "attempt.died" not in str(record["decisions"])
    place.assert_one_review(number)


@pytest.mark.parametrize("stage", [fetching, posting])
def test_a_worker_that_is_killed_while_it_reads_or_posts_is_replaced_and_its_review_is_done_once(
    place: Town, stage: Callable[[Town], Callable[[], bool]]
) -> None:
    number = place.change(f"def total(items, seen=[]):\n    return 'killed', {stage.__name__!r}\n")
    has_begun = stage(place)
    job = place.job_of(number)
    until(has_begun, f"{stage.__name__} has begun", log=lambda: place.program.log)
    place.program.kill_worker()
    place.github.git_server.faults.slow_s = 0
    place.program.await_state(job, "done", within_s=60)
    place.assert_one_review(number)


@pytest.mark.long
def test_a_review_whose_worker_is_killed_at_every_attempt_ends_as_a_dead_letter_and_the_change_is_told(
    tmp_path: Path,
) -> None:
    with town(tmp_path) as place:
        place.kimi.script(*[Fault(delay_s=120)] * 3)
        number = place.change()
        job = place.job_of(number)
        for attempt in (1, 2, 3):
            until(lambda n=attempt: len(place.kimi.requests) == n, "the model was asked", within_s=60)  # type: ignore[misc]
            place.program.kill_worker()
        record = place.program.await_state(job, "failed", within_s=60)
        assert "died 3 times" in str(record["reason"])
        until(lambda: place.github.notes("acme/shop", number) != [], "the change is told")
        [note] = place.github.notes("acme/shop", number)
        assert "died 3 times" in note
        assert place.github.reviews("acme/shop", number) == []


def test_a_service_that_was_killed_whole_goes_on_where_it_was_when_it_is_started_again(place: Town) -> None:
    number = place.change("def total(items, seen=[]):\n    return 'all of it'\n")
    has_begun = thinking(place)
    job = place.job_of(number)
    until(has_begun, "the model was asked", log=lambda: place.program.log)
    assert place.program.process is not None
    os.killpg(place.program.process.pid, signal.SIGKILL)
    place.program.process.wait()
    place.program.start()
    place.program.await_state(job, "done", within_s=60)
    place.assert_one_review(number)


def test_an_embedded_redis_that_is_killed_is_started_again_and_the_review_goes_on(place: Town) -> None:
    number = place.change("def total(items, seen=[]):\n    return 'and its store'\n")
    place.kimi.script(Fault(delay_s=1.5))
    asked = len(place.kimi.requests)
    job = place.job_of(number)
    until(lambda: len(place.kimi.requests) > asked, "the model was asked", log=lambda: place.program.log)
    os.kill(int((place.program.folder / "home" / "redis" / "server.pid").read_text()), signal.SIGKILL)
    until(lambda: "redis.restarted" in place.program.log, "started again", log=lambda: place.program.log)
    until(place.program.is_ready, "ready again", log=lambda: place.program.log)
    place.program.await_state(job, "done", within_s=60)
    place.assert_one_review(number)
