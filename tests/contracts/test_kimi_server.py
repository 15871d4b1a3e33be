"""The strict server that stands for Kimi: it refuses what the real one refuses, or the tests on it prove nothing."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import pytest

from tests.fakes.kimi import KEY, Fault, KimiLimits, KimiServer, canned

GOOD: dict[str, Any] = {
    "model": "kimi-k2.6",
    "messages": [{"role": "user", "content": "kind: summary"}],
    "stream": True,
    "stream_options": {"include_usage": True},
    "max_completion_tokens": 100,
}


def post(kimi: KimiServer, body: dict[str, Any], key: str = KEY) -> httpx.Response:
    url = f"{kimi.base_url}/chat/completions"
    return httpx.post(
        url, json=body, headers={"Authorization": f"Bearer {key}"}, trust_env=False, timeout=10, verify=False
    )


def schema(node: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": node}}}


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({}, 200, "[DONE]"),
        ({"temperature": 0.6}, 400, "invalid temperature: only 1 is allowed for this model"),
        ({"top_p": 1}, 400, "invalid top_p"),
        ({"stream": False}, 400, "streamed"),
        ({"max_completion_tokens": None}, 400, "max_completion_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1}}, 400, "invalid thinking"),
        ({"messages": [{"role": "user", "content": ""}]}, 400, "must not be empty"),
        ({"model": "kimi-k2.5"}, 404, "Not found the model kimi-k2.5 or Permission denied"),
        ({"max_completion_tokens": 262_144}, 400, "exceeded model token limit: 262144 (requested: 2621"),
        (schema({"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}}), 400, "pattern"),
        (schema({"type": "object", "properties": {"a": {"description": "no type"}}}), 400, "needs a type"),
        (schema({"type": "array", "items": {"oneOf": []}}), 400, "oneOf"),
    ],
)
def test_a_request_is_held_to_the_real_servers_rules(change: dict[str, Any], status: int, words: str) -> None:
    with KimiServer(brain=canned("{}")) as kimi:
        response = post(kimi, {**GOOD, **change})
    assert response.status_code == status
    assert words in response.text


def test_a_wrong_key_is_refused() -> None:
    with KimiServer() as kimi:
        assert post(kimi, GOOD, key="sk-other").status_code == 401
        assert kimi.answered == []


def test_tokens_are_counted_times_the_factor() -> None:
    body = {**GOOD, "messages": [{"role": "user", "content": "one two three four " * 100}]}
    with KimiServer(brain=canned("{}")) as plain, KimiServer(brain=canned("{}"), token_factor=1.5) as dear:
        post(plain, body)
        post(dear, body)
        assert dear.requests[0].input_tokens == pytest.approx(plain.requests[0].input_tokens * 1.5, rel=0.02)


def test_requests_above_the_concurrency_are_refused_and_written_down() -> None:
    with KimiServer(brain=canned("{}"), limits=KimiLimits(concurrency=2), default=Fault(delay_s=0.3)) as kimi:
        threads = [threading.Thread(target=post, args=(kimi, GOOD)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(request.status for request in kimi.requests) == [200, 200, 429, 429, 429]
        assert len(kimi.violations) == 3
        assert kimi.most_running == 2
        assert post(kimi, GOOD).status_code == 200


def test_a_minutes_requests_are_a_sliding_window() -> None:
    with KimiServer(brain=canned("{}"), limits=KimiLimits(rpm=2, window_s=0.5)) as kimi:
        assert [post(kimi, GOOD).status_code for _ in range(3)] == [200, 200, 429]
        assert "max RPM: 2" in kimi.violations[0]
        time.sleep(0.55)
        assert post(kimi, GOOD).status_code == 200


@pytest.mark.parametrize(("name", "limits"), [("TPM", KimiLimits(tpm=300)), ("TPD", KimiLimits(tpd=300))])
def test_tokens_count_input_plus_the_cap(name: str, limits: KimiLimits) -> None:
    with KimiServer(brain=canned("{}"), limits=limits) as kimi:
        assert [post(kimi, GOOD).status_code for _ in range(3)] == [200, 200, 429]
        assert f"{name} rate limit, current: " in kimi.violations[0]


def test_faults_are_met_in_order_one_by_one() -> None:
    with KimiServer(brain=canned("{}")) as kimi:
        kimi.script(Fault(503, "<html>busy</html>"), Fault(finish="length"))
        first, second, third = post(kimi, GOOD), post(kimi, GOOD), post(kimi, GOOD)
    assert (first.status_code, first.headers["content-type"]) == (503, "text/html")
    assert '"length"' in second.text
    assert '"length"' not in third.text
