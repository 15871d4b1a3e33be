"""Every way Kimi refuses, row by row: over real HTTP, what it becomes, whether it is asked again, what is said."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from tests.fakes.admission import OpenThrottle
from tests.fakes.clock import FakeClock
from tests.fakes.kimi import ACCOUNT, KEY, Fault, KimiServer, canned, error, no_balance, overloaded, rate_limited
from worker.core.errors import (
    ClientNotAllowed,
    ContentFiltered,
    NoBalance,
    NotAuthorised,
    NotNow,
    Overloaded,
    QuotaUsedUp,
    RateLimited,
    RequestTooLong,
    ReviewError,
    UnknownModel,
    Unprocessable,
    Unreachable,
    WrongEndpoint,
)
from worker.core.exchange import Kind, Prompt
from worker.core.retry import RULES
from worker.ports import Flow
from worker.providers.catalogue import lookup
from worker.providers.endpoint import Endpoint
from worker.providers.http import classify
from worker.providers.openai_compatible import OpenAICompatibleModel

PROMPT = Prompt(
    Kind.SUMMARY,
    system="Say it short.",
    user="kind: summary\none file",
    schema={"type": "object", "properties": {"summary": {"type": "string"}}},
    input_tokens=60,
    max_output_tokens=1000,
)
FLOW = Flow(change="github:a/b#1", repository="a/b")
MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC)
PERIOD = "You've reached your usage limit for this {}. Your quota will be refreshed in the next cycle."
GATEWAY = "<html><head><title>504 Gateway Time-out</title></head><body>nginx</body></html>"


@dataclass(frozen=True)
class Row:
    name: str
    fault: Fault
    becomes: type[ReviewError]
    says: tuple[str, ...] = ()
    """Words that the message must hold: what to change."""
    cools: bool = False
    """Whether the fleet is told."""


ROWS = [
    Row("engine overloaded, 429", Fault(429, overloaded()), Overloaded, ("FALLBACK_",), cools=True),
    Row(
        "overloaded under another type, as the Anthropic-style path says it",
        Fault(429, error("rate_limit_error", "The engine is currently overloaded, please try again later")),
        Overloaded,
        cools=True,
    ),
    Row("503, HTML", Fault(503, "<html><title>503 busy</title></html>"), Overloaded, ("503 busy",), cools=True),
    Row("529, empty", Fault(529), Overloaded, cools=True),
    Row(
        "requests per minute",
        Fault(429, rate_limited("organization max RPM: 3, please try again after 1 seconds"), {"Retry-After": "1"}),
        RateLimited,
        ("rpm limit of 3", "LLM_RPM"),
        cools=True,
    ),
    Row(
        "concurrency",
        Fault(429, rate_limited("max organization concurrency: 1, please try again after 1 seconds")),
        RateLimited,
        ("concurrency limit of 1", "LLM_MAX_CONCURRENT_REQUESTS"),
        cools=True,
    ),
    Row(
        "tokens per minute",
        Fault(429, rate_limited("organization TPM rate limit, current: 563653, limit: 500000")),
        RateLimited,
        ("tpm limit of 500000", "LLM_TPM"),
        cools=True,
    ),
    Row(
        "too many, nothing said",
        Fault(429, error("rate_limit_reached_error", "We're receiving too many requests at the moment.")),
        RateLimited,
        ("too many requests",),
        cools=True,
    ),
    Row("429, empty body", Fault(429), RateLimited, cools=True),
    Row(
        "the day's tokens",
        Fault(429, rate_limited("organization TPD rate limit, current: 1526210, limit: 1500000")),
        QuotaUsedUp,
        ("LLM_TPD", "midnight UTC"),
        cools=True,
    ),
    Row("no balance, 429", Fault(429, no_balance()), NoBalance, ("FALLBACK_",), cools=True),
    Row(
        "no balance, 402",
        Fault(402, {"error": {"message": "Insufficient Balance"}}),
        NoBalance,
        ("top the account up",),
        cools=True,
    ),
    Row(
        "no balance, 403",
        Fault(403, error("exceeded_current_quota_error", f"{ACCOUNT} is not active, exceeded current quota")),
        NoBalance,
        cools=True,
    ),
    Row(
        "no balance, 403, words alone",
        Fault(403, error("permission_error", "insufficient balance")),
        NoBalance,
        cools=True,
    ),
    Row(
        "no quota, as OpenAI says it",
        Fault(429, {"error": {"code": "insufficient_quota", "message": "x"}}),
        NoBalance,
        cools=True,
    ),
    Row(
        "Code Plan: concurrency",
        Fault(403, error("permission_error", "You've reached your concurrent request limit. Please wait.")),
        RateLimited,
        ("LLM_MAX_CONCURRENT_REQUESTS",),
        cools=True,
    ),
    Row(
        "Code Plan: period used up, 403",
        Fault(403, error("access_terminated_error", PERIOD.format("period"))),
        QuotaUsedUp,
        ("window",),
        cools=True,
    ),
    Row(
        "Code Plan: billing cycle used up, 429",
        Fault(429, error("rate_limit_reached_error", PERIOD.format("billing cycle"))),
        QuotaUsedUp,
        cools=True,
    ),
    Row(
        "Code Plan: month",
        Fault(403, error("access_terminated_error", "You've reached your monthly usage limit.")),
        QuotaUsedUp,
        cools=True,
    ),
    Row(
        "Code Plan: week",
        Fault(403, error("access_terminated_error", "You've reached your weekly (7-day) usage limit.")),
        QuotaUsedUp,
        cools=True,
    ),
    Row(
        "Code Plan: client not allowed",
        Fault(403, error("access_terminated_error", "Kimi For Coding is currently only available for Coding Agents")),
        ClientNotAllowed,
        ("https://api.kimi.com/coding/v1/messages", "https://api.moonshot.ai/v1", "API_OPENAI_FORCE_BASE_URL"),
    ),
    Row(
        "wrong key",
        Fault(401, error("invalid_authentication_error", "Invalid Authentication")),
        NotAuthorised,
        ("API_OPEN_AI_API_KEY",),
    ),
    Row(
        "wrong key, the other type",
        Fault(401, error("incorrect_api_key_error", "Incorrect API key provided")),
        NotAuthorised,
        ("API_OPEN_AI_API_KEY",),
    ),
    Row("not permitted", Fault(403, error("permission_denied_error", "no")), NotAuthorised, ("API_OPEN_AI_API_KEY",)),
    Row(
        "unknown model",
        Fault(404, error("resource_not_found_error", "Not found the model kimi-k2.5 or Permission denied")),
        UnknownModel,
        ("API_LLM_PROVIDER_MODEL", "On offer for this key: kimi-k2.6, kimi-k2.7-code, kimi-k3"),
    ),
    Row(
        "unknown address",
        Fault(404, {"code": 5, "error": "url.not_found", "message": "没找到对象", "url": "/chat/completions"}),
        WrongEndpoint,
        ("API_OPENAI_FORCE_BASE_URL",),
    ),
    Row("404, HTML", Fault(404, "<html><h1>Not Found</h1></html>"), WrongEndpoint, ("API_OPENAI_FORCE_BASE_URL",)),
    Row(
        "too long",
        Fault(400, error("invalid_request_error", "Your request exceeded model token limit: 262144 (requested: 9)")),
        RequestTooLong,
        ("LLM_CONTEXT_TOKENS",),
    ),
    Row("too long, other words", Fault(400, error("x", "Input token length too long")), RequestTooLong),
    Row("too many bytes", Fault(413, "<html><title>413</title></html>"), RequestTooLong),
    Row(
        "content filter",
        Fault(400, error("content_filter", "The request was rejected because it was considered high risk")),
        ContentFiltered,
        ("not reviewed",),
    ),
    Row(
        "a 400 that names nothing", Fault(400, error("invalid_request_error", "no")), Unprocessable, ("LLM_EXTRA_BODY",)
    ),
    Row("a 400 without a body", Fault(400), Unprocessable),
    Row("a redirect", Fault(307, "", {"Location": "https://evil.example/v1"}), WrongEndpoint, ("evil.example",)),
    *[
        Row(f"{status}, {name}", Fault(status, body), Unreachable)
        for status in (408, 409, 499, 500, 502, 504)
        for name, body in (("HTML", GATEWAY), ("JSON", error("server_error", "unexpected")))
    ],
    Row("the details envelope", Fault(500, {"detail": [{"msg": "worker died"}]}), Unreachable, ("worker died",)),
    Row(
        "the code envelope", Fault(500, {"code": 13, "message": "internal", "details": []}), Unreachable, ("internal",)
    ),
    Row("a list for an envelope", Fault(500, '[{"error": {"message": "busy"}}]'), Unreachable),
]

ATTEMPTS = {cls: rule.attempts for cls, rule in RULES.items()}


def refused_by(server: KimiServer, throttle: OpenThrottle, clock: FakeClock) -> ReviewError:
    endpoint = Endpoint(server.base_url, KEY, "kimi-k2.6")
    model = OpenAICompatibleModel(
        endpoint, info=lookup("kimi-k2.6"), throttle=throttle, clock=clock, randomness=lambda: 0.01
    )
    with pytest.raises(ReviewError) as caught:
        asyncio.run(model.complete(PROMPT, flow=FLOW))
    return caught.value


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_each_row_of_the_table(row: Row) -> None:
    throttle, clock = OpenThrottle(), FakeClock()
    with KimiServer(brain=canned('{"summary": "x"}')) as kimi:
        kimi.script(*[row.fault] * 20)
        refusal = refused_by(kimi, throttle, clock)
        asked = len(kimi.requests)

    assert type(refusal) is row.becomes
    message = str(refusal)
    assert "\n" not in message
    for words in ("moonshot", "127.0.0.1", *row.says):
        assert words in message
    for secret in (KEY, "org-78cd08", "ak-f94zcr"):
        assert secret not in message
    assert asked == ATTEMPTS.get(row.becomes, 1)
    assert len(clock.slept) == asked - 1
    assert len(throttle.refusals) == (asked if row.cools else 0)
    # The wait is spent, and the fleet told, when the place is free again.
    assert throttle.running == 0
    assert set(throttle.running_at_refusal) <= {0}


def test_a_refused_request_gives_its_tokens_back() -> None:
    throttle = OpenThrottle()
    with KimiServer() as kimi:
        kimi.script(*[Fault(429, overloaded())] * 20)
        refused_by(kimi, throttle, FakeClock())
    assert [usage.input_tokens + usage.output_tokens for usage in throttle.settled] == [0] * ATTEMPTS[Overloaded]


def test_the_figures_of_the_text_are_told() -> None:
    with KimiServer() as kimi:
        kimi.script(*[Fault(429, rate_limited("organization max RPM: 3, please try again after 1 seconds"))] * 20)
        limited = refused_by(kimi, OpenThrottle(), FakeClock())
        # The script still holds what the first model did not come to.
        while kimi.next_fault() is not None:
            pass
        kimi.script(Fault(429, rate_limited("organization TPD rate limit, current: 9, limit: 8")))
        day = refused_by(kimi, OpenThrottle(), FakeClock())
        kimi.script(Fault(400, error("x", "exceeded model token limit: 262144 (requested: 274613)")))
        too_long = refused_by(kimi, OpenThrottle(), FakeClock())
    assert isinstance(limited, RateLimited)
    assert (limited.limit, limited.limit_value, limited.retry_after_s) == ("rpm", 3, 1.0)
    assert isinstance(day, NotNow)
    assert day.until == MIDNIGHT
    assert isinstance(too_long, RequestTooLong)
    assert (too_long.limit_tokens, too_long.requested_tokens) == (262_144, 274_613)


def test_a_requests_limit_is_waited_out_though_the_header_says_one_second() -> None:
    clock = FakeClock()
    with KimiServer(brain=canned("{}")) as kimi:
        kimi.script(*[Fault(429, rate_limited("organization max RPM: 3"), {"Retry-After": "1"})] * 20)
        refused_by(kimi, OpenThrottle(), clock)
    assert min(clock.slept) >= 60


@pytest.mark.parametrize("header", ["7", "Fri, 20 Nov 2026 12:00:07 GMT"], ids=["seconds", "date"])
def test_retry_after_is_obeyed_as_seconds_and_as_a_date(header: str) -> None:
    clock = FakeClock()
    with KimiServer() as kimi:
        kimi.script(Fault(503, "", {"Retry-After": header}), Fault(401))
        refused_by(kimi, OpenThrottle(), clock)
    assert clock.slept[0] == pytest.approx(7, abs=0.1)


@pytest.mark.parametrize(
    ("key", "base_url", "advice"),
    [
        ("sk-kimi-0123456789", "https://api.moonshot.ai/v1", "https://api.kimi.com/coding/v1"),
        ("sk-0123456789", "https://api.moonshot.ai/v1", "https://api.moonshot.cn/v1"),
        ("sk-0123456789", "https://api.kimi.com/coding/v1", "https://api.moonshot.ai/v1"),
        ("sk-ant-0123456789", "https://openrouter.ai/api/v1", "https://api.anthropic.com"),
        ("sk-kimi-0123456789", "https://api.kimi.com/coding/v1", "make a new key"),
        ("", "https://api.moonshot.ai/v1", "set API_OPEN_AI_API_KEY"),
    ],
)
def test_a_refused_key_is_told_where_its_kind_belongs(key: str, base_url: str, advice: str) -> None:
    refusal = classify(401, {}, b"", endpoint=Endpoint(base_url, key, "kimi-k2.6"), now=MIDNIGHT)
    assert advice in str(refusal)
    assert not key or key not in str(refusal)


def test_a_base_url_without_v1_is_told_what_to_write() -> None:
    with KimiServer() as kimi:
        endpoint = Endpoint(kimi.address, KEY, "kimi-k2.6")
        model = OpenAICompatibleModel(endpoint, info=lookup("kimi-k2.6"), throttle=OpenThrottle(), clock=FakeClock())
        with pytest.raises(WrongEndpoint) as caught:
            asyncio.run(model.complete(PROMPT, flow=FLOW))
        assert f"write {kimi.base_url}" in str(caught.value)


def test_the_key_follows_no_redirect() -> None:
    with KimiServer() as elsewhere, KimiServer() as kimi:
        kimi.script(Fault(302, "", {"Location": f"{elsewhere.base_url}/chat/completions"}))
        assert isinstance(refused_by(kimi, OpenThrottle(), FakeClock()), WrongEndpoint)
        assert elsewhere.received == []
