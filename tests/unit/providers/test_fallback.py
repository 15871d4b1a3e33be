"""The second provider: when it takes over, when it does not, and how the first comes back."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.model import FakeModel
from worker.core.errors import (
    AnswerCutOff,
    BudgetReached,
    ClientNotAllowed,
    ContentFiltered,
    EmptyAnswer,
    LeaseLost,
    NoBalance,
    NotAuthorised,
    Overloaded,
    QuotaUsedUp,
    RateLimited,
    RequestTooLong,
    ReviewError,
    Stalled,
    UnknownModel,
    Unprocessable,
    Unreachable,
)
from worker.core.exchange import Answer, Kind, Prompt
from worker.ports import Flow
from worker.providers.fallback import Backoff, Breaker, FallbackModel

FLOW = Flow(change="github:a/b#1", repository="a/b")
PROMPT = Prompt(Kind.SUMMARY, "", "kind: summary", {}, input_tokens=10, max_output_tokens=10)


class Pair:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.first, self.second = FakeModel(name="kimi-k2.6"), FakeModel(name="claude-sonnet-4-5")
        self.breaker = Breaker(Backoff(first_s=60, most_s=200))
        self.model = FallbackModel(self.first, self.second, clock=self.clock, breaker=self.breaker)

    def ask(self) -> Answer:
        return asyncio.run(self.model.complete(PROMPT, flow=FLOW))

    @property
    def asked(self) -> tuple[int, int]:
        return len(self.first.asked), len(self.second.asked)


@pytest.mark.parametrize(
    "error",
    [
        NoBalance,
        QuotaUsedUp,
        NotAuthorised,
        ClientNotAllowed,
        UnknownModel,
        RateLimited,
        Overloaded,
        Unreachable,
        Stalled,
    ],
    ids=lambda error: error.__name__,
)
def test_the_second_takes_over_and_says_its_own_name(error: type[ReviewError]) -> None:
    pair = Pair()
    pair.first.script(error("as told"))
    answer = pair.ask()
    assert answer.model == "claude-sonnet-4-5"
    assert answer.notes == (f"answered by the second provider (kimi-k2.6 failed: {error.__name__})",)
    assert pair.asked == (1, 1)


@pytest.mark.parametrize(
    "error",
    [RequestTooLong, AnswerCutOff, ContentFiltered, Unprocessable, BudgetReached],
    ids=lambda error: error.__name__,
)
def test_what_is_about_this_very_request_stays_with_the_first(error: type[ReviewError]) -> None:
    pair = Pair()
    pair.first.script(error("as told"))
    with pytest.raises(error):
        pair.ask()
    assert pair.asked == (1, 0)
    assert pair.ask().model == "kimi-k2.6"


@pytest.mark.parametrize("first_fails", [True, False])
def test_neither_is_asked_what_the_last_check_forbids(first_fails: bool) -> None:
    pair = Pair()
    allowed = [None] * first_fails
    if first_fails:
        pair.first.script(Overloaded("x"))

    def gone() -> None:
        if not allowed:
            raise LeaseLost("another worker has the job")
        allowed.pop()

    with pytest.raises(LeaseLost):
        asyncio.run(pair.model.complete(PROMPT, flow=FLOW, last_check=gone))
    assert pair.asked == (int(first_fails), 0)


def test_there_is_one_hop_and_no_way_back() -> None:
    pair = Pair()
    pair.first.script(Overloaded("first"))
    pair.second.script(Overloaded("second"))
    with pytest.raises(Overloaded, match="second"):
        pair.ask()
    assert pair.asked == (1, 1)


def test_the_first_is_left_alone_then_probed_once_and_comes_back() -> None:
    pair = Pair()
    pair.first.script(Overloaded("x"))
    pair.ask()
    pair.clock.advance(59)
    assert pair.ask().notes == ("answered by the second provider (kimi-k2.6 is left alone for now)",)
    assert pair.asked == (1, 2)
    pair.clock.advance(1)
    assert pair.ask().model == "kimi-k2.6"
    assert pair.ask().model == "kimi-k2.6"
    assert pair.breaker.state == "closed"


def test_each_failed_probe_doubles_the_wait_up_to_the_most() -> None:
    pair = Pair()
    waits = []
    for _ in range(4):
        pair.first.script(Overloaded("x"))
        pair.ask()
        before = pair.clock.monotonic()
        while not pair.breaker.admits(pair.clock.monotonic()):
            pair.clock.advance(1)
        waits.append(pair.clock.monotonic() - before)
        pair.breaker.released(pair.clock.monotonic())
    assert waits == [60, 120, 200, 200]


def test_while_one_request_probes_the_others_go_past() -> None:
    breaker = Breaker(Backoff(first_s=10))
    breaker.failed(0.0)
    assert [breaker.admits(10.0), breaker.admits(10.0)] == [True, False]


def test_a_probe_that_tells_nothing_of_the_provider_frees_the_next() -> None:
    pair = Pair()
    pair.breaker.failed(pair.clock.monotonic())
    pair.clock.advance(60)
    pair.first.script(RequestTooLong("about the request"))
    with pytest.raises(RequestTooLong):
        pair.ask()
    assert pair.ask().model == "kimi-k2.6"


def test_a_known_end_of_the_quota_is_waited_for() -> None:
    pair = Pair()
    pair.first.script(QuotaUsedUp("x", until=pair.clock.now() + timedelta(hours=3)))
    pair.ask()
    pair.clock.advance(3 * 3600 - 1)
    assert pair.ask().model == "claude-sonnet-4-5"
    pair.clock.advance(1)
    assert pair.ask().model == "kimi-k2.6"


@pytest.mark.parametrize(
    ("first", "second", "raised"),
    [
        (NoBalance("first"), NotAuthorised("second"), "first"),
        (NotAuthorised("first"), NoBalance("second"), "second"),
        (NoBalance("first"), EmptyAnswer("second"), "second"),
        (Overloaded("first"), NotAuthorised("second"), "first"),
        (UnknownModel("first"), NotAuthorised("second"), "second"),
        (Overloaded("first"), BudgetReached("second"), "second"),
    ],
)
def test_of_two_failures_the_one_that_can_be_tried_soonest_is_raised(
    first: ReviewError, second: ReviewError, raised: str
) -> None:
    pair = Pair()
    pair.first.script(first)
    pair.second.script(second)
    with pytest.raises(ReviewError, match=raised):
        pair.ask()


def test_of_two_quotas_the_one_that_turns_first_is_raised() -> None:
    pair = Pair()
    pair.first.script(QuotaUsedUp("first", until=pair.clock.now() + timedelta(hours=5)))
    pair.second.script(QuotaUsedUp("second", until=pair.clock.now() + timedelta(hours=2)))
    with pytest.raises(QuotaUsedUp, match="second"):
        pair.ask()
