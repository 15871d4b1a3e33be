"""Answers over a real connection, in every state they arrive in."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.fakes.admission import OpenThrottle
from tests.fakes.clock import FakeClock
from tests.fakes.kimi import KEY, Fault, KimiServer, canned, error, overloaded, rate_limited
from worker.core.errors import (
    AnswerCutOff,
    ContentFiltered,
    EmptyAnswer,
    NoBalance,
    Overloaded,
    QuotaUsedUp,
    RequestTooLong,
    ReviewError,
    Stalled,
    Unreachable,
)
from worker.core.exchange import STANDIN_MODEL, Answer, Kind, Prompt
from worker.core.retry import RULES
from worker.ports import Flow
from worker.providers.catalogue import lookup
from worker.providers.endpoint import Endpoint
from worker.providers.openai_compatible import OpenAICompatibleModel
from worker.providers.remote import Deadlines
from worker.standin.server import running_standin

FLOW = Flow(change="github:a/b#1", repository="a/b")
TEXT = json.dumps({"summary": "Es ändert 变更 and 🦀 in one place."}, ensure_ascii=False)
PROMPT = Prompt(
    Kind.SUMMARY,
    system="Say it short.",
    user="kind: summary\none file",
    schema={"type": "object", "properties": {"summary": {"type": "string"}}},
    input_tokens=60,
    max_output_tokens=1000,
)


class Asked:
    """One model against a scripted server, and what came of it."""

    def __init__(self, *faults: Fault, deadlines: Deadlines | None = None) -> None:
        self.throttle, self.clock = OpenThrottle(), FakeClock()
        with KimiServer(brain=canned(TEXT)) as kimi:
            kimi.script(*faults)
            self.model = OpenAICompatibleModel(
                Endpoint(kimi.base_url, KEY, "kimi-k2.6"),
                info=lookup("kimi-k2.6"),
                throttle=self.throttle,
                clock=self.clock,
                deadlines=deadlines or Deadlines(),
                randomness=lambda: 0.5,
            )
            self.answer: Answer | None = None
            self.error: ReviewError | None = None
            with capture_logs() as self.logs:
                try:
                    self.answer = asyncio.run(self.model.complete(PROMPT, flow=FLOW))
                except ReviewError as error:
                    self.error = error
            self.requests = kimi.requests

    @property
    def text(self) -> str:
        assert self.answer is not None, self.error
        return self.answer.text

    @property
    def notes(self) -> tuple[str, ...]:
        assert self.answer is not None, self.error
        return self.answer.notes


@pytest.mark.parametrize(
    "fault",
    [
        Fault(),
        Fault(packet_bytes=1),
        Fault(packet_bytes=7, line_end="\r\n"),
        Fault(packet_bytes=5, line_end="\r", comments=True),
        Fault(comments=True, heartbeats=3),
        Fault(has_usage="choice"),
        Fault(has_usage="none"),
        Fault(has_done=False),
        Fault(reasoning=""),
        Fault(finish="tool_calls"),
    ],
    ids=repr,
)
def test_an_answer_is_read_whole_however_it_is_sent(fault: Fault) -> None:
    asked = Asked(fault)
    assert asked.text == TEXT
    assert len(asked.requests) == 1
    assert asked.notes == ()


@pytest.mark.parametrize("has_usage", ["chunk", "choice"])
def test_usage_is_found_in_its_own_chunk_and_in_the_last_choice(has_usage: Any) -> None:
    usage = Asked(Fault(has_usage=has_usage, reports_tokens=1000)).throttle.settled[0]
    assert (usage.input_tokens, usage.cached_tokens, usage.is_estimated) == (1000, 256, False)
    assert usage.output_tokens > 10
    assert usage.cost_usd == pytest.approx((744 * 0.95 + 256 * 0.16 + usage.output_tokens * 4.0) / 1e6)


def test_missing_usage_is_estimated_and_said_to_be() -> None:
    usage = Asked(Fault(has_usage="none")).throttle.settled[0]
    assert usage.is_estimated
    assert usage.input_tokens == PROMPT.input_tokens
    assert usage.output_tokens >= len(TEXT) // 4


def test_reasoning_is_never_part_of_the_answer() -> None:
    asked = Asked(Fault(reasoning='{"summary": "only a thought"}'))
    assert asked.text == TEXT


def test_a_fenced_answer_is_handed_on_as_it_is() -> None:
    assert Asked(Fault(content=f"```json\n{TEXT}\n```")).text == f"```json\n{TEXT}\n```"


# -------------------------------------------------------------------------------- broken streams


def test_a_reset_in_the_middle_is_asked_again() -> None:
    asked = Asked(Fault(reset_after_events=4))
    assert asked.text == TEXT
    assert len(asked.requests) == 2
    assert len(asked.clock.slept) == 1


def test_an_end_in_the_middle_is_asked_again() -> None:
    asked = Asked(Fault(end_after_events=4))
    assert asked.text == TEXT
    assert len(asked.requests) == 2


@pytest.mark.parametrize("fault", [Fault(reset_after_events=6), Fault(end_after_events=6, finish="")], ids=repr)
def test_content_that_is_whole_is_saved_though_the_stream_broke_off_before_saying_so(fault: Fault) -> None:
    asked = Asked(fault)
    assert asked.text == TEXT
    assert len(asked.requests) == 1
    assert "the answer was whole" in asked.notes[0]


def test_a_finish_reason_makes_an_answer_whole_without_done_and_before_a_reset() -> None:
    asked = Asked(replace(Fault(reset_after_events=7), content="no JSON at all, but finished"))
    assert asked.text == "no JSON at all, but finished"
    assert len(asked.requests) == 1


def test_a_connection_that_always_breaks_is_given_up() -> None:
    asked = Asked(*[Fault(reset_after_events=3)] * 20)
    assert type(asked.error) is Unreachable
    assert len(asked.requests) == RULES[Unreachable].attempts


def test_an_error_event_in_the_stream_is_what_it_says() -> None:
    asked = Asked(Fault(error_event=overloaded()))
    assert asked.text == TEXT
    assert [type(error) for error in asked.throttle.refusals] == [Overloaded]
    assert len(asked.requests) == 2


def test_a_server_that_does_not_stream_is_understood() -> None:
    whole = {
        "model": "kimi-k2.6",
        "choices": [{"message": {"content": TEXT, "reasoning_content": "hm"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3}},
    }
    asked = Asked(Fault(200, whole))
    assert asked.text == TEXT
    usage = asked.throttle.settled[0]
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens) == (7, 3, 5)


PAGE = Fault(200, "<html><title>Back soon</title></html>")


def test_a_web_page_in_place_of_an_answer_is_waited_for() -> None:
    assert Asked(PAGE, PAGE).text == TEXT


def test_a_web_page_that_stays_names_the_setting() -> None:
    asked = Asked(*[PAGE] * 20)
    assert type(asked.error) is Unreachable
    assert "API_OPENAI_FORCE_BASE_URL" in str(asked.error)
    assert len(asked.requests) == RULES[Unreachable].attempts


def test_a_closed_port_is_tried_again_and_then_named() -> None:
    with KimiServer() as kimi:
        base_url = kimi.base_url
    clock = FakeClock()
    gone = OpenAICompatibleModel(
        Endpoint(base_url, KEY, "kimi-k2.6"), info=lookup("kimi-k2.6"), throttle=OpenThrottle(), clock=clock
    )
    with pytest.raises(Unreachable, match="API_OPENAI_FORCE_BASE_URL"):
        asyncio.run(gone.complete(PROMPT, flow=FLOW))
    assert len(clock.slept) == RULES[Unreachable].attempts - 1


# ------------------------------------------------------------------------------------- deadlines

QUICK = Deadlines(first_byte_s=0.25, idle_s=0.25, total_s=5.0)


def test_a_first_byte_that_does_not_come_is_waited_for_so_long_and_no_longer() -> None:
    started_s = time.monotonic()
    asked = Asked(*[Fault(first_byte_delay_s=1)] * 5, deadlines=QUICK)
    assert type(asked.error) is Stalled
    assert "no answer within 0.25 s" in str(asked.error)
    assert len(asked.requests) == RULES[Stalled].attempts
    assert time.monotonic() - started_s < 2.5


def test_headers_that_do_not_come_count_as_a_missing_first_byte() -> None:
    asked = Asked(*[Fault(delay_s=1)] * 5, deadlines=QUICK)
    assert "no answer within 0.25 s" in str(asked.error)


def test_a_stream_that_goes_silent_is_left_and_asked_again() -> None:
    asked = Asked(Fault(silence_after_events=3), deadlines=QUICK)
    assert asked.text == TEXT
    assert len(asked.requests) == 2


def test_an_answer_that_was_whole_before_the_silence_is_saved() -> None:
    asked = Asked(Fault(silence_after_events=7), deadlines=QUICK)
    assert asked.text == TEXT
    assert len(asked.requests) == 1
    assert asked.throttle.settled[0].is_estimated


def test_a_request_that_no_minute_of_the_account_can_hold_is_not_waited_for() -> None:
    asked = Asked(Fault(429, rate_limited("TPM rate limit, current: 1060, limit: 1000")))
    assert isinstance(asked.error, RequestTooLong)
    assert (asked.error.limit_tokens, asked.error.requested_tokens) == (1000, 1060)
    assert "REVIEW_CHUNK_TOKENS" in str(asked.error)
    assert asked.clock.slept == []
    assert asked.model.info.window_tokens == 262_144, "an account's limit is no window"


def test_an_account_without_money_is_left_alone_by_the_whole_fleet() -> None:
    asked = Asked(Fault(402, error("insufficient_balance", "Insufficient balance")))
    in_half_an_hour = asked.clock.now() + timedelta(minutes=30)
    assert isinstance(asked.error, NoBalance)
    assert asked.error.until == in_half_an_hour
    assert [(type(told), getattr(told, "until", None)) for told in asked.throttle.refusals] == [
        (QuotaUsedUp, in_half_an_hour)
    ]


def test_a_minute_that_is_full_is_waited_for() -> None:
    asked = Asked(Fault(429, rate_limited("TPM rate limit, current: 563653, limit: 500000")))
    assert asked.text == TEXT
    assert len(asked.clock.slept) == 1


def test_the_end_of_a_stream_is_not_waited_for_as_long_as_the_answer() -> None:
    asked = Asked(Fault(silence_after_events=8), deadlines=Deadlines(idle_s=60, after_finish_s=0.1))
    assert asked.text == TEXT
    assert asked.answer is not None
    assert asked.answer.notes == ("the stream had no end; the answer was whole",)


def test_reasoning_and_comments_count_as_life() -> None:
    asked = Asked(Fault(heartbeats=9, pace_s=0.05), deadlines=QUICK)
    assert asked.text == TEXT
    assert len(asked.requests) == 1


def test_even_a_lively_stream_ends_at_the_total_deadline() -> None:
    deadlines = Deadlines(first_byte_s=0.4, idle_s=0.4, total_s=0.5)
    asked = Asked(*[Fault(heartbeats=40, pace_s=0.05)] * 5, deadlines=deadlines)
    assert type(asked.error) is Stalled
    assert "not finished within 0.5 s" in str(asked.error)


# ---------------------------------------------------------------------------------- poor answers


def test_reasoning_that_used_up_the_cap_is_a_cut_answer() -> None:
    asked = Asked(Fault(content="", finish="length"))
    assert type(asked.error) is AnswerCutOff
    assert "by thinking" in str(asked.error)
    assert len(asked.requests) == 1


def test_a_cut_answer_hands_over_what_arrived() -> None:
    asked = Asked(Fault(content='{"findings": [{"a": 1}, {"b"', finish="length"))
    assert isinstance(asked.error, AnswerCutOff)
    assert asked.error.text == '{"findings": [{"a": 1}, {"b"'


def test_an_empty_answer_is_asked_again_and_both_are_paid_for() -> None:
    asked = Asked(Fault(content=""))
    assert asked.text == TEXT
    assert asked.answer is not None
    assert asked.answer.usage.requests == 2
    assert asked.answer.usage.output_tokens == sum(usage.output_tokens for usage in asked.throttle.settled)


def test_answers_that_stay_empty_are_given_up() -> None:
    asked = Asked(*[Fault(content="  \n")] * 9)
    assert type(asked.error) is EmptyAnswer
    assert len(asked.requests) == RULES[EmptyAnswer].attempts


def test_a_filtered_answer_is_not_asked_again() -> None:
    asked = Asked(Fault(content="", finish="content_filter"))
    assert type(asked.error) is ContentFiltered
    assert len(asked.requests) == 1


def test_two_megabytes_of_repetition_are_stopped() -> None:
    asked = Asked(Fault(content="the same again " * 200_000, finish=""))
    assert isinstance(asked.error, AnswerCutOff)
    assert 2_000_000 <= len(asked.error.text) < 3_000_000
    settled = asked.throttle.settled[-1]
    assert settled.is_estimated
    assert settled.output_tokens == PROMPT.max_output_tokens
    assert len(asked.requests) == 1


# ----------------------------------------------------------------------------------------- throttle


def test_the_throttle_is_told_the_input_the_cap_and_the_price_at_worst() -> None:
    cost = Asked().throttle.costs[0]
    assert (cost.input_tokens, cost.output_cap_tokens) == (60, 1000)
    assert cost.worst_usd == pytest.approx((60 * 0.95 + 1000 * 4.0) / 1e6)


def test_a_cancelled_review_leaves_no_place_taken_and_no_connection_open() -> None:
    async def cancelled(model: OpenAICompatibleModel) -> None:
        asking = asyncio.create_task(model.complete(PROMPT, flow=FLOW))
        await asyncio.sleep(0.2)
        assert throttle.running == 1
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    throttle = OpenThrottle()
    with KimiServer() as kimi:
        kimi.script(Fault(silence_after_events=2))
        endpoint = Endpoint(kimi.base_url, KEY, "kimi-k2.6")
        asyncio.run(
            cancelled(OpenAICompatibleModel(endpoint, info=lookup("kimi-k2.6"), throttle=throttle, clock=FakeClock()))
        )
    assert throttle.running == 0


# ----------------------------------------------------------------------------------------- log


def test_every_call_logs_one_line_that_a_search_for_the_vendor_finds() -> None:
    asked = Asked(Fault(503), Fault(reports_tokens=1000))
    assert [line["event"] for line in asked.logs] == ["model.retry_scheduled", "model.answered"]
    answered = asked.logs[1]
    assert answered["log_level"] == "info"
    assert answered["provider"] == "moonshot-compatible"
    assert (answered["model"], answered["host"], answered["plan"]) == ("kimi-k2.6", "127.0.0.1", "local")
    assert (answered["input_tokens"], answered["finish"]) == (1000, "stop")


def test_the_log_holds_neither_key_nor_prompt_nor_answer() -> None:
    asked = Asked(Fault(503), Fault(end_after_events=4))
    for line in asked.logs:
        for secret in (KEY, "one file", "Say it short", "ändert"):
            assert secret not in repr(line)


def test_the_stand_in_is_known_by_its_answer_and_costs_nothing() -> None:
    with running_standin() as base_url:
        asked = OpenAICompatibleModel(
            Endpoint(base_url, "", "kimi-k2.6"), info=lookup("kimi-k2.6"), throttle=OpenThrottle(), clock=FakeClock()
        )
        answer = asyncio.run(asked.complete(PROMPT, flow=FLOW))
    assert asked.is_standin
    assert answer.model == STANDIN_MODEL
    assert answer.usage.cost_usd == 0.0
    assert "no model" in answer.text
