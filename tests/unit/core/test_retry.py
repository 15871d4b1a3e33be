"""Retry or give up: by error class, bounded in attempts and in time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.errors import (
    AnswerCutOff,
    ContentFiltered,
    EmptyAnswer,
    NoBalance,
    NotAuthorised,
    Overloaded,
    ParameterRefused,
    QuotaUsedUp,
    RateLimited,
    RequestTooLong,
    Stalled,
    Transient,
    UnknownModel,
    Unreachable,
)
from worker.core.retry import (
    JOB_RULE,
    RATE_WINDOW_S,
    READ_RULE,
    GiveUp,
    Retry,
    decide,
    decide_job,
    decide_read,
    rule_for,
)

TRANSIENT = [Overloaded("x"), RateLimited("x"), Stalled("x"), EmptyAnswer("x"), Unreachable("x"), Transient("x")]
transient = st.sampled_from(TRANSIENT)
uniform = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    "error",
    [
        NotAuthorised("x"),
        UnknownModel("x"),
        NoBalance("x"),
        QuotaUsedUp("x"),
        RequestTooLong("x"),
        AnswerCutOff("x"),
        ContentFiltered("x"),
        ParameterRefused("x", parameter="thinking"),
        ValueError("a fault of ours"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_cannot_succeed_later_is_never_retried(error: Exception) -> None:
    assert isinstance(decide(error, attempt=1, elapsed_s=0, random=0), GiveUp)


@given(transient, st.integers(1, 2000), st.floats(0, 1e6), uniform)
def test_a_wait_is_bounded_by_the_rule(error: Transient, attempt: int, elapsed_s: float, random: float) -> None:
    rule = rule_for(error)
    verdict = decide(error, attempt=attempt, elapsed_s=elapsed_s, random=random)
    if isinstance(verdict, Retry):
        assert attempt < rule.attempts
        assert 0 <= verdict.wait_s <= rule.cap_s
        assert elapsed_s + verdict.wait_s <= rule.total_s


@given(transient, uniform)
def test_every_transient_error_ends_even_if_it_never_heals(error: Transient, random: float) -> None:
    attempt, elapsed_s = 1, 0.0
    while isinstance(verdict := decide(error, attempt=attempt, elapsed_s=elapsed_s, random=random), Retry):
        attempt, elapsed_s = attempt + 1, elapsed_s + verdict.wait_s
    assert attempt <= rule_for(error).attempts
    assert elapsed_s <= rule_for(error).total_s


def test_the_ceiling_doubles_with_each_attempt_up_to_the_cap() -> None:
    waits = [decide(Unreachable("x"), attempt=n, elapsed_s=0, random=0.999999) for n in range(1, 6)]
    assert [round(wait.wait_s, 1) for wait in waits if isinstance(wait, Retry)] == [0.5, 1.0, 2.0, 4.0, 8.0]


def test_jitter_is_full() -> None:
    assert decide(Overloaded("x"), attempt=5, elapsed_s=0, random=0.0) == Retry(0.0)
    assert decide(Overloaded("x"), attempt=5, elapsed_s=0, random=0.5) == Retry(16.0)


@given(transient, st.floats(0, 100), uniform)
def test_the_servers_wish_is_a_floor(error: Transient, wish_s: float, random: float) -> None:
    asked = type(error)("x", retry_after_s=wish_s)
    verdict = decide(asked, attempt=1, elapsed_s=0, random=random)
    assert isinstance(verdict, GiveUp) or verdict.wait_s >= wish_s


def test_a_wish_beyond_the_total_is_given_up_at_once_rather_than_cut_short() -> None:
    assert isinstance(decide(Overloaded("x", retry_after_s=7200), attempt=1, elapsed_s=0, random=0), GiveUp)


@pytest.mark.parametrize("limit", ["rpm", "tpm"])
def test_one_second_is_too_short_for_a_limit_that_counts_minutes(limit: str) -> None:
    error = RateLimited("max RPM: 3", retry_after_s=1, limit=limit)  # type: ignore[arg-type] # of a parametrised str
    verdict = decide(error, attempt=1, elapsed_s=0, random=0)
    assert verdict == Retry(RATE_WINDOW_S)


def test_one_second_is_obeyed_for_concurrency() -> None:
    error = RateLimited("max organization concurrency: 1", retry_after_s=1, limit="concurrency")
    assert decide(error, attempt=1, elapsed_s=0, random=0) == Retry(1.0)


@pytest.mark.parametrize(
    ("attempt", "least_s", "most_s"),
    [(1, 1.0, 2.0), (2, 2.0, 4.0), (9, 256.0, 512.0), (10, 300.0, 600.0), (12, 300.0, 600.0)],
)
def test_a_job_waits_twice_as_long_each_time_half_of_it_by_chance(attempt: int, least_s: float, most_s: float) -> None:
    assert decide_job(Unreachable("x"), attempt=attempt, random=0.0) == Retry(least_s)
    assert decide_job(Unreachable("x"), attempt=attempt, random=1.0) == Retry(most_s)


def test_a_job_waits_at_least_as_long_as_it_was_asked_to() -> None:
    assert decide_job(Overloaded("x", retry_after_s=900.0), attempt=1, random=1.0) == Retry(901.0)


def test_a_job_is_given_up_when_its_attempts_are_spent() -> None:
    assert isinstance(decide_job(Unreachable("x"), attempt=JOB_RULE.attempts - 1, random=0.0), Retry)
    assert isinstance(decide_job(Unreachable("x"), attempt=JOB_RULE.attempts, random=0.0), GiveUp)


@given(st.one_of(st.none(), st.floats(0, 100)), st.integers(1, 10), st.floats(0, 100), uniform)
def test_a_reading_is_made_again_for_half_a_minute_at_most(
    wish_s: float | None, attempt: int, elapsed_s: float, random: float
) -> None:
    for error in (Unreachable("x", retry_after_s=wish_s), RateLimited("x", retry_after_s=wish_s)):
        verdict = decide_read(error, attempt=attempt, elapsed_s=elapsed_s, random=random)
        if isinstance(verdict, Retry):
            assert attempt < READ_RULE.attempts
            assert verdict.wait_s >= (wish_s or 0)
            assert elapsed_s + verdict.wait_s <= 30


def test_what_may_have_failed_for_a_moment_is_read_again_soon() -> None:
    assert decide_read(Unreachable("x"), attempt=1, elapsed_s=0.1, random=0.5) == Retry(0.5)
    assert decide_read(RateLimited("x", retry_after_s=3), attempt=1, elapsed_s=0.1, random=0.5) == Retry(3.5)


@pytest.mark.parametrize(
    ("error", "elapsed_s"),
    [
        (RateLimited("it names no time"), 0.1),
        (RateLimited("it ends in twenty minutes", retry_after_s=1200), 0.1),
        (Unreachable("it was silent for a minute"), 60.0),
        (Transient("the disk is full"), 0.1),
        (Stalled("git computed for too long"), 0.1),
    ],
    ids=str,
)
def test_what_will_not_heal_in_seconds_is_left_to_the_job(error: Transient, elapsed_s: float) -> None:
    assert isinstance(decide_read(error, attempt=1, elapsed_s=elapsed_s, random=0.0), GiveUp)
