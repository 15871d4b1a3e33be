"""What every model is held to: the two adapters over HTTP and the one in memory."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from tests.fakes import anthropic, kimi
from tests.fakes.admission import OpenThrottle
from tests.fakes.clock import FakeClock
from tests.fakes.model import FakeModel
from worker.core.errors import (
    AnswerCutOff,
    ContentFiltered,
    LeaseLost,
    NotAuthorised,
    Overloaded,
    RateLimited,
    RequestTooLong,
    ReviewError,
    UnknownModel,
)
from worker.core.exchange import Kind, Prompt
from worker.ports import Flow, Model
from worker.providers.catalogue import lookup
from worker.providers.connect import connect
from worker.providers.endpoint import Endpoint

FLOW = Flow(change="github:a/b#1", repository="a/b")
UNIT = "kind: findings\nF1 src/é.py\n1|+|try:\n2|+|    pass\n3|+|except:\n4| |x == None\n-|-|eval(x)\n"
PROMPT = Prompt(
    Kind.FINDINGS,
    system="Find faults.",
    user=UNIT,
    schema={"type": "object", "properties": {"findings": {"type": "array", "items": {"type": "string"}}}},
    input_tokens=200,
    max_output_tokens=4_000,
    cache_key="job-1",
)


class Bench(ABC):
    """A model and the means to make what is behind it misbehave."""

    model: Model

    @abstractmethod
    def fails(self, error: type[ReviewError]) -> None:
        """The next request, for good, meets what this error stands for."""

    @abstractmethod
    def asked(self) -> int:
        """How many requests arrived."""


class KimiBench(Bench):
    def __init__(self, stack: ExitStack) -> None:
        self.server = stack.enter_context(kimi.KimiServer())
        self.throttle = OpenThrottle()
        endpoint = Endpoint(self.server.base_url, kimi.KEY, "kimi-k2.6")
        self.model = connect(endpoint, info=lookup("kimi-k2.6"), throttle=self.throttle, clock=FakeClock())

    def fails(self, error: type[ReviewError]) -> None:
        fault = {
            NotAuthorised: kimi.Fault(401),
            UnknownModel: kimi.Fault(404, kimi.error("resource_not_found_error", "Not found the model")),
            Overloaded: kimi.Fault(429, kimi.overloaded()),
            RateLimited: kimi.Fault(429, kimi.rate_limited("organization max RPM: 3")),
            ContentFiltered: kimi.Fault(400, kimi.error("content_filter", "high risk")),
            AnswerCutOff: kimi.Fault(content='{"findings":[', finish="length"),
            RequestTooLong: kimi.Fault(400, kimi.error("x", "Input token length too long")),
        }[error]
        self.server.script(*[fault] * 20)

    def asked(self) -> int:
        return len(self.server.requests)


class AnthropicBench(Bench):
    def __init__(self, stack: ExitStack) -> None:
        self.server = stack.enter_context(anthropic.AnthropicServer(path="/anthropic/v1/messages"))
        self.throttle = OpenThrottle()
        endpoint = Endpoint(f"{self.server.address}/anthropic", anthropic.KEY, "claude-sonnet-4-5")
        info = lookup("claude-sonnet-4-5")
        self.model = connect(endpoint, info=info, throttle=self.throttle, clock=FakeClock())

    def fails(self, error: type[ReviewError]) -> None:
        answer = {
            NotAuthorised: (401, anthropic.failure("authentication_error", "invalid x-api-key")),
            UnknownModel: (404, anthropic.failure("not_found_error", "model: claude-sonnet-4-5")),
            Overloaded: (529, anthropic.failure("overloaded_error", "Overloaded")),
            RateLimited: (429, anthropic.failure("rate_limit_error", "would exceed your rate limit")),
            ContentFiltered: (200, {"content": "", "stop_reason": "refusal"}),
            AnswerCutOff: (200, {"content": '{"findings":[', "stop_reason": "max_tokens"}),
            RequestTooLong: (400, anthropic.failure("invalid_request_error", "prompt is too long: 9 tokens > 8")),
        }[error]
        self.server.script(*[answer] * 20)

    def asked(self) -> int:
        return len(self.server.requests)


class MemoryBench(Bench):
    def __init__(self, stack: ExitStack) -> None:
        self.model = self.fake = FakeModel(window_tokens=262_144)

    def fails(self, error: type[ReviewError]) -> None:
        self.fake.script(error("as told", text='{"findings":[') if error is AnswerCutOff else error("as told"))

    def asked(self) -> int:
        return len(self.fake.asked)


@pytest.fixture(params=[KimiBench, AnthropicBench, MemoryBench])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield request.param(stack)


def test_a_prompt_is_answered_with_its_text_and_its_cost(bench: Bench) -> None:
    answer = asyncio.run(bench.model.complete(PROMPT, flow=FLOW))
    assert [finding["line"] for finding in json.loads(answer.text)["findings"]] == [3]
    assert answer.model == bench.model.name
    assert answer.usage.requests == 1
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0
    assert answer.usage.cost_usd is not None
    assert not answer.usage.is_estimated
    assert answer.notes == ()
    assert not bench.model.is_standin


def test_one_model_serves_many_event_loops_and_many_requests_at_once(bench: Bench) -> None:
    async def many() -> set[str]:
        answers = await asyncio.gather(*(bench.model.complete(PROMPT, flow=FLOW) for _ in range(5)))
        return {answer.text for answer in answers}

    assert len(asyncio.run(many()) | asyncio.run(many())) == 1
    assert bench.asked() == 10


def test_what_cannot_fit_the_window_is_not_sent(bench: Bench) -> None:
    with pytest.raises(RequestTooLong) as caught:
        asyncio.run(bench.model.complete(replace(PROMPT, input_tokens=262_000), flow=FLOW))
    assert caught.value.limit_tokens is not None
    assert caught.value.requested_tokens is not None
    assert caught.value.requested_tokens > caught.value.limit_tokens
    assert bench.asked() == 0


@pytest.mark.parametrize(
    "error",
    [NotAuthorised, UnknownModel, Overloaded, RateLimited, ContentFiltered, AnswerCutOff, RequestTooLong],
    ids=lambda error: error.__name__,
)
def test_a_failure_is_raised_as_what_it_is(bench: Bench, error: type[ReviewError]) -> None:
    bench.fails(error)
    with pytest.raises(ReviewError) as caught:
        asyncio.run(bench.model.complete(PROMPT, flow=FLOW))
    assert type(caught.value) is error


def test_what_the_last_check_forbids_is_not_sent(bench: Bench) -> None:
    def gone() -> None:
        raise LeaseLost("another worker has the job")

    with pytest.raises(LeaseLost):
        asyncio.run(bench.model.complete(PROMPT, flow=FLOW, last_check=gone))
    assert bench.asked() == 0


def test_what_arrived_of_a_cut_answer_is_handed_over(bench: Bench) -> None:
    bench.fails(AnswerCutOff)
    with pytest.raises(AnswerCutOff) as caught:
        asyncio.run(bench.model.complete(PROMPT, flow=FLOW))
    assert caught.value.text == '{"findings":['
