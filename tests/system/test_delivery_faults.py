"""Deliveries as they really come: many times, too many, in a rush, from bots, with addresses of strangers in them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.git_server import GitServer
from tests.fakes.kimi import Fault, KimiServer
from tests.fakes.program import until
from tests.fakes.town import DEFECT, REPOSITORY, Town, town

BUSY, QUIET = "acme/busy", "other/quiet"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    settings = {"REVIEW_SETTLE_S": "1", "GITHUB_REPOSITORIES": "acme/*", "REVIEW_FORKS": "false"}
    with town(tmp_path_factory.mktemp("town"), settings, repositories=(REPOSITORY, "mallory/shop")) as opened:
        yield opened


def test_one_delivery_that_comes_a_hundred_times_at_once_is_one_job_and_one_review(place: Town) -> None:
    number = place.change()
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: place.deliver(number, delivery="the-same"), range(100)))
    assert {answer.status_code for answer in answers} == {202}
    [job] = {answer.json()["job"] for answer in answers}
    assert sum(answer.json()["new"] for answer in answers) == 1
    place.program.await_state(job, "done")
    place.assert_one_review(number)


def test_five_pushes_within_three_seconds_get_one_review_of_the_newest(place: Town) -> None:
    number = place.change("def total(items):\n    return 0\n")
    asked = len(place.kimi.requests)
    jobs = [place.job_of(number)]
    for push in range(4):
        time.sleep(0.4)
        place.push(number, f"{DEFECT}# {push}\n")
        jobs.append(place.job_of(number, action="synchronize"))
    place.program.await_state(jobs[-1], "done")
    assert [place.program.job(job)["state"] for job in jobs[:-1]] == ["superseded"] * 4
    place.assert_one_review(number)
    assert len(place.kimi.requests) == asked + 1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"author": "renovate[bot]", "author_type": "Bot"}, "author is a bot"),
        ({"draft": True}, "draft"),
        ({"is_fork": True}, "change from a fork"),
        ({"state": "closed", "merged": True}, "change is closed"),
    ],
)
def test_what_nobody_asked_to_be_reviewed_is_ignored_with_its_reason_and_counted(
    place: Town, fields: dict[str, Any], reason: str
) -> None:
    number = place.change(**fields)
    before = place.counted("ignored", reason)
    answer = place.deliver(number)
    assert (answer.status_code, answer.json()) == (200, {"ignored": reason})
    assert place.counted("ignored", reason) == before + 1


def test_a_repository_that_is_not_allowed_is_ignored_and_counted(place: Town) -> None:
    number = place.change(repository="mallory/shop")
    answer = place.deliver(number, repository="mallory/shop")
    assert (answer.status_code, answer.json()) == (200, {"ignored": "repository not allowed"})
    assert place.counted("ignored", "repository not allowed") == 1
    assert place.github.requests("GET", "/repos/mallory/") == []


def test_our_own_review_coming_back_as_a_delivery_starts_nothing(place: Town) -> None:
    number = place.change()
    place.program.await_state(place.job_of(number), "done")
    [review] = place.github.reviews(REPOSITORY, number)
    asked = len(place.kimi.requests)
    for event, member in (("pull_request_review", "review"), ("pull_request_review_comment", "comment")):
        payload = place.github.payload(REPOSITORY, number, "submitted") | {member: {"body": review.body}}
        answer = place.deliver(number, event=event, payload=payload)
        assert (answer.status_code, answer.json()) == (200, {"ignored": "our own post"})
    assert len(place.kimi.requests) == asked


def test_addresses_in_a_payload_are_never_contacted(place: Town, tmp_path: Path) -> None:
    with GitServer(tmp_path) as trap:
        number = place.change()
        payload = place.github.payload(REPOSITORY, number)
        host = trap.url.removeprefix("http://")
        evil = {
            "url": trap.url,
            "html_url": f"{trap.url}/acme/shop/pull/1",
            "clone_url": f"{trap.url}/acme/shop.git",
            "git_url": "file:///etc/passwd",
            "ssh_url": "ext::sh -c 'touch /tmp/owned'",
            "diff_url": f"http://github.com@{host}/diff",
            "patch_url": "http://169.254.169.254/latest/meta-data",
            "statuses_url": f"{trap.url}/statuses",
            "_links": {"self": {"href": trap.url}},
        }
        for member in (
            payload,
            payload["pull_request"],
            payload["repository"],
            payload["pull_request"]["base"]["repo"],
        ):
            member.update(evil)
        answer = place.deliver(number, payload=payload)
        assert answer.status_code == 202
        place.program.await_state(answer.json()["job"], "done")
        assert trap.seen == []
    place.assert_one_review(number)


def test_a_call_without_a_valid_signature_is_counted_by_reason_and_stores_nothing(place: Town) -> None:
    body = b'{"action": "opened"'  # not even JSON: nobody gets that far without a signature
    missing, wrong = place.counted("refused", "signature missing"), place.counted("refused", "signature wrong")
    for headers in ({}, {"x-hub-signature-256": f"sha256={'0' * 64}"}):
        answer = httpx.post(place.program.webhook_url, content=body, headers=headers, trust_env=False)
        assert answer.status_code == 401
    assert place.counted("refused", "signature missing") == missing + 1
    assert place.counted("refused", "signature wrong") == wrong + 1


@pytest.mark.parametrize("count", [300, pytest.param(1000, marks=pytest.mark.long)])
def test_a_rush_of_deliveries_of_one_repository_does_not_keep_another_one_waiting(tmp_path: Path, count: int) -> None:
    # Three hundred reviews at half a second each, four at once, take forty seconds and more.
    slow = KimiServer(default=Fault(delay_s=0.5))
    settings = {"LLM_MAX_CONCURRENT_REQUESTS": "4", "REVIEW_SETTLE_S": "1"}
    with town(tmp_path, settings, repositories=(BUSY, QUIET), kimi=slow) as place:
        numbers = place.crowd(count, repository=BUSY)
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda number: place.deliver(number, repository=BUSY), numbers))
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["job"] for answer in answers}) == count
        until(lambda: len(place.kimi.requests) > 4, "the crowd is being worked on")
        number = place.change(repository=QUIET)
        asked = len(place.kimi.requests)
        place.program.await_state(place.job_of(number, repository=QUIET), "done", within_s=20)
        place.assert_one_review(number, repository=QUIET)
        # It waited for its settling, for a free place, and for the few of the crowd that do not count as one.
        assert len(place.kimi.requests) - asked < 60
