"""What the provider can do to a whole review, and what must come of it: bounded, said, and never half-published."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest

from tests.fakes.kimi import KEY, Fault, KimiServer, no_balance, overloaded, rate_limited
from tests.fakes.program import until
from tests.fakes.workshop import REPOSITORY, workshop
from worker.core.job import Claim, Stage, State
from worker.process import WorkerProcess

DEFECT = "def total(items, seen=[]):\n    return sum(items)\n"


def lines(name: str, count: int) -> str:
    """A file of about eleven tokens a line."""
    return "".join(f"{name}_{number} = compute({number}, {number * 7})\n" for number in range(count))


def test_a_refused_key_ends_the_job_with_one_line_that_says_what_to_do(tmp_path: Path, redis_url: str) -> None:
    with workshop(tmp_path, redis_url, kimi=KimiServer(key="sk-another-key-than-ours")) as shop:
        job = shop.settle(shop.accept(shop.change(DEFECT)))
        assert job.state is State.FAILED
        assert "API_OPEN_AI_API_KEY" in job.reason
        assert "\n" not in job.reason
        assert len(shop.kimi.requests) == 1, "a key that was refused is not tried again"
        shop.keep_up()
        shop.keep_up()
        [note] = shop.github.notes(REPOSITORY, 1)
        assert "API_OPEN_AI_API_KEY" in note.replace("\\", "")
        assert KEY not in shop.log + note + job.reason


def test_an_empty_balance_defers_the_review_without_asking_again(tmp_path: Path, redis_url: str) -> None:
    with workshop(tmp_path, redis_url) as shop:
        shop.kimi.script(*[Fault(429, no_balance())] * 3)
        job = shop.settle(shop.accept(shop.change(DEFECT)))
        assert job.state is State.DEFERRED
        assert "balance" in job.reason
        assert job.not_before > time.time() + 600
        assert len(shop.kimi.requests) == 1
        assert shop.github.reviews(REPOSITORY, 1) == []


def test_a_second_provider_answers_where_the_first_has_no_balance_and_the_review_says_so(
    tmp_path: Path, redis_url: str
) -> None:
    with KimiServer(models=("spare-model",)) as spare:
        second = {
            "FALLBACK_LLM_PROVIDER_MODEL": "spare-model",
            "FALLBACK_OPENAI_BASE_URL": spare.base_url,
            "FALLBACK_API_KEY": KEY,
        }
        with workshop(tmp_path, redis_url, **second) as shop:
            shop.kimi.script(Fault(429, no_balance()))
            assert shop.settle(shop.accept(shop.change(DEFECT))).state is State.DONE
            [review] = shop.github.reviews(REPOSITORY, 1)
            assert "spare-model" in review.body
            assert "second provider" in review.body
            assert len(review.comments) == 1


def test_refusals_for_sending_too_much_or_for_overload_are_waited_out(tmp_path: Path, redis_url: str) -> None:
    with workshop(tmp_path, redis_url) as shop:
        shop.kimi.script(
            Fault(429, rate_limited("max organization concurrency: 1, please try again after 1 seconds")),
            Fault(429, overloaded(), {"Retry-After": "1"}),
        )
        assert shop.settle(shop.accept(shop.change(DEFECT))).state is State.DONE
        assert len(shop.github.reviews(REPOSITORY, 1)) == 1
        assert len(shop.kimi.requests) == 3


def test_a_worker_that_ends_while_the_fleet_pauses_hands_its_review_back_and_takes_no_place_with_it(
    tmp_path: Path, redis_url: str
) -> None:
    with workshop(tmp_path, redis_url) as shop:
        shop.kimi.script(Fault(429, overloaded(), {"Retry-After": "2"}))
        job = shop.accept(shop.change(DEFECT))
        worker = WorkerProcess(shop.installation.services)
        working = threading.Thread(target=worker.run, args=(job, Stage.REVIEW))
        working.start()
        until(lambda: shop.within(lambda services: services.throttle.standing()).waiting == 1, "it waits", every_s=0.05)
        began = time.monotonic()
        worker.stop()
        working.join(timeout=10)
        assert time.monotonic() - began < 1.5, "a pause is not waited for"
        assert (shop.job(job).state, shop.job(job).attempt) == (State.QUEUED, 0)
        standing = shop.within(lambda services: services.throttle.standing())
        assert (standing.waiting, standing.in_use) == (0, 0)
        assert shop.settle(job).state is State.DONE
        assert time.monotonic() - began > 1.5, "the pause is the fleet's, whoever ends"
        assert len(shop.kimi.requests) == 2
        assert len(shop.github.reviews(REPOSITORY, 1)) == 1


def test_broken_answers_are_asked_again_and_one_whole_review_comes_of_it(tmp_path: Path, redis_url: str) -> None:
    with workshop(tmp_path, redis_url) as shop:
        shop.kimi.script(
            Fault(500, "<html>oops</html>"),
            Fault(502, "<html>bad gateway</html>"),
            Fault(reset_after_events=2),
            Fault(end_after_events=2, has_done=False),
            Fault(packet_bytes=1, reasoning="思考…", has_done=False),
        )
        assert shop.settle(shop.accept(shop.change(DEFECT))).state is State.DONE
        [review] = shop.github.reviews(REPOSITORY, 1)
        assert [comment.line for comment in review.comments] == [1]
        assert len(shop.kimi.requests) == 5


def test_a_provider_that_always_breaks_off_publishes_nothing_and_the_job_waits(tmp_path: Path, redis_url: str) -> None:
    breaking = Fault(reset_after_events=1)
    with workshop(tmp_path, redis_url, kimi=KimiServer(default=breaking), REVIEW_CHUNK_TOKENS="4000") as shop:
        # The first half is answered: what is paid for is kept, and is no review.
        shop.kimi.script(Fault())
        job = shop.work(shop.accept(shop.change(files={"shop.py": DEFECT, "basket.py": lines("a", 300)})))
        assert job.state is State.QUEUED
        assert job.not_before > 0
        assert 1 < len(shop.kimi.requests) <= 7
        assert shop.github.reviews(REPOSITORY, 1) == []
        assert shop.github.notes(REPOSITORY, 1) == []
        shop.kimi.default, asked = Fault(), len(shop.kimi.requests)
        assert shop.settle(job.id).state is State.DONE
        [review] = shop.github.reviews(REPOSITORY, 1)
        assert "302 of 302 changed lines reviewed" in review.body
        assert len(shop.kimi.requests) == asked + 1


def test_a_stream_that_goes_silent_is_left_after_the_idle_time_and_asked_again(tmp_path: Path, redis_url: str) -> None:
    with workshop(tmp_path, redis_url, LLM_IDLE_TIMEOUT_S="0.3") as shop:
        shop.kimi.script(Fault(silence_after_events=1))
        began = time.monotonic()
        assert shop.settle(shop.accept(shop.change(DEFECT))).state is State.DONE
        assert time.monotonic() - began < 5
        assert len(shop.github.reviews(REPOSITORY, 1)) == 1


def test_a_request_that_the_server_counts_longer_is_split_and_the_next_change_is_planned_by_its_count(
    tmp_path: Path, redis_url: str
) -> None:
    # This server counts three tokens where we expect two, in a window that we believe to fill just so.
    kimi = KimiServer(token_factor=1.5, window_tokens=48_000)
    window = {"LLM_CONTEXT_TOKENS": "48000", "REVIEW_CHUNK_TOKENS": "40000"}
    with workshop(tmp_path, redis_url, kimi=kimi, **window) as shop:
        files = {"shop.py": lines("a", 900), "basket.py": lines("b", 900)}
        first = shop.settle(shop.accept(shop.change(files=files)))
        assert first.state is State.DONE
        [review] = shop.github.reviews(REPOSITORY, 1)
        assert "1802 of 1802 changed lines reviewed." in review.body.replace(",", "")
        refused = [request for request in shop.kimi.requests if request.status == 400]
        assert refused, "the first estimate was too low"
        asked = len(shop.kimi.requests)

        files = {"shop.py": lines("c", 900), "basket.py": lines("d", 900)}
        assert shop.settle(shop.accept(shop.change(files=files))).state is State.DONE
        refused_later = [request for request in shop.kimi.requests[asked:] if request.status == 400]
        assert refused_later == []


def test_a_line_that_the_content_filter_declines_is_isolated_and_its_file_named(tmp_path: Path, redis_url: str) -> None:
    with workshop(tmp_path, redis_url, kimi=KimiServer(declines="of_high_risk")) as shop:
        number = shop.change(files={"declined.py": "a = 1\nof_high_risk = 2\nc = 3\n", "shop.py": DEFECT})
        assert shop.settle(shop.accept(number)).state is State.DONE
        [review] = shop.github.reviews(REPOSITORY, number)
        assert "4 of 5 changed lines reviewed" in review.body
        assert "declined.py" in review.body
        assert "content filter" in review.body
        assert [comment.path for comment in review.comments] == ["shop.py"]


def test_a_budget_reached_in_the_middle_publishes_what_there_is_and_says_so(tmp_path: Path, redis_url: str) -> None:
    limits = {"LLM_REVIEW_BUDGET_USD": "0.01", "LLM_MAX_CONCURRENT_REQUESTS": "1", "REVIEW_CHUNK_TOKENS": "4000"}
    with workshop(tmp_path, redis_url, **limits) as shop:
        files = {"shop.py": DEFECT} | {f"part{number}.py": lines("a", 400) for number in range(5)}
        number = shop.change(files=files)
        job = shop.settle(shop.accept(number))
        assert job.state is State.DONE
        [review] = shop.github.reviews(REPOSITORY, number)
        answered = len(shop.kimi.answered)
        assert 1 <= answered < 6
        assert "budget" in review.body
        assert "2,002 changed lines reviewed" in review.body
        assert "2,002 of 2,002" not in review.body
        # Who asks `why` a review that is done says so little reads it there.
        [stored] = [line for line in shop.decisions(job.id) if line.startswith("job.reviewed")]
        assert re.search(r"\d+ of 2,002 changed lines reviewed; left out: budget [\d,]+$", stored)


def test_a_base_url_that_redirects_gets_no_key_to_its_goal_and_names_the_setting(
    tmp_path: Path, redis_url: str
) -> None:
    with KimiServer() as elsewhere, workshop(tmp_path, redis_url) as shop:
        goal = {"Location": f"{elsewhere.base_url}/chat/completions"}
        shop.kimi.script(*[Fault(307, "", goal)] * 3)
        job = shop.settle(shop.accept(shop.change(DEFECT)))
        assert job.state is State.FAILED
        assert "API_OPENAI_FORCE_BASE_URL" in job.reason
        assert elsewhere.received == []


@pytest.mark.parametrize("ahead_s", [-600.0, 600.0])
def test_a_clock_that_is_ten_minutes_wrong_changes_nothing(tmp_path: Path, redis_url: str, ahead_s: float) -> None:
    with workshop(tmp_path, redis_url, ahead_s=ahead_s) as shop:
        waiting = shop.accept(shop.change(DEFECT))
        # Somebody whose clock is right has it: the lease lasts for whoever's is not.
        held = shop.within(lambda services: services.jobs.claim(waiting, worker="w", states=(State.QUEUED,)))
        assert isinstance(held, Claim)
        assert shop.work(waiting).attempt == 1
        assert shop.kimi.requests == []
        shop.within(lambda services: services.jobs.release(held, State.QUEUED, reason="it may go on"))
        job = shop.settle(waiting)
        assert job.state is State.DONE
        assert abs(job.updated_at - time.time()) < 60, "records are stamped by the store's clock"
        assert len(shop.github.reviews(REPOSITORY, 1)) == 1
        shop.kimi.script(Fault(429, no_balance()))
        second = shop.accept(shop.change(DEFECT))
        for said in ("the provider says so", "the fleet remembers it"):
            deferred = shop.work(second)
            assert (deferred.state, len(shop.kimi.requests)) == (State.DEFERRED, 2), said
            assert 1790 < deferred.not_before - time.time() < 2000, "half an hour and its spread, from now"
