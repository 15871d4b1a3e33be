"""Health, metrics and the status page."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.ingress.world import TOKEN, World, refuse_connection
from worker.core.change import ChangeRef
from worker.core.errors import Unreachable
from worker.core.job import Priority, Stage, State
from worker.ingress.vitals import Vitals
from worker.storage.spending import Spent
from worker.storage.throttle import KnownLimit, Standing

BEARER = {"authorization": f"Bearer {TOKEN}"}
BASIC = {"authorization": "Basic " + base64.b64encode(f"anybody:{TOKEN}".encode()).decode()}
VITALS = Vitals(
    waiting={Priority.INTERACTIVE: 2, Priority.CROWD: 0, Priority.BATCH: 410},
    longest_waits_s={(Stage.REVIEW, Priority.INTERACTIVE): 4.0, (Stage.PUBLISH, Priority.INTERACTIVE): 61.5},
    model=Standing(
        limits=(KnownLimit("concurrency", 30, "moonshot code plan"),),
        concurrency=30,
        in_use=17,
        waiting=44,
        minute_requests=88,
        minute_tokens=1_000,
        day_tokens=2_000,
        is_adapting=False,
        paused_until=datetime.now(UTC) + timedelta(hours=1),
        quota_used_up_until=None,
    ),
    month="2026-11",
    spent=Spent(48.1312, 1.2, 1200, 18, 9, 7, 0, 2),
    month_budget_usd=100.0,
)
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def get(world: World, url: str, headers: dict[str, str] | None = None) -> httpx.Response:
    async def send() -> httpx.Response:
        async with world.client() as client:
            return await client.get(url, headers=headers)

    return asyncio.run(send())


def test_alive_asks_nobody(world: World) -> None:
    world.store.down = refuse_connection
    assert get(world, "/livez").status_code == 200


def test_ready_tells_each_check_and_is_503_when_one_fails(world: World) -> None:
    async def fine() -> str:
        return "PONG"

    async def away() -> str:
        raise Unreachable("redis://:password@redis:6379 refused")

    world.checks = {"redis": fine}
    answer = get(world, "/readyz")
    assert (answer.status_code, answer.json()["checks"]) == (200, {"redis": {"ok": True, "detail": "PONG"}})
    world.checks = {"redis": away, "worker": fine}
    answer = get(world, "/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["redis"] == {"ok": False, "detail": "Unreachable"}
    assert answer.json()["checks"]["worker"]["ok"] is True
    assert "password" not in answer.text


def test_metrics_need_the_token_and_count_jobs_by_state(world: World) -> None:
    world.add("a", state=State.DONE)
    world.add("b", state=State.DONE)
    assert get(world, "/metrics").status_code == 401
    text = get(world, "/metrics", BEARER).text
    assert 'kimi_review_jobs{state="done"} 2.0' in text
    assert 'kimi_review_jobs{state="failed"} 0.0' in text


def test_a_route_is_measured_by_its_pattern_not_by_its_path(world: World) -> None:
    async def calls() -> str:
        async with world.client() as client:
            await client.get("/reviews/strange-name", headers=BEARER)
            await client.get("/nowhere-at-all")
            return (await client.get("/metrics", headers=BEARER)).text

    text = asyncio.run(calls())
    assert 'route="/reviews/{job}",status="404"' in text
    assert 'route="other",status="404"' in text
    assert "strange-name" not in text
    assert "nowhere" not in text


def test_the_status_page_shows_a_stranger_counts_alone(world: World) -> None:
    world.add("job-1", state=State.FAILED, reason="the key was refused")
    answer = get(world, "/")
    assert answer.status_code == 200
    assert '<li class="bad"><b>1</b>failed</li>' in answer.text
    for private in ("acme/api", "job-1", "the key was refused", "api.moonshot.ai"):
        assert private not in answer.text


def test_the_status_page_shows_jobs_and_reasons_to_who_has_the_token(world: World) -> None:
    world.add("job-1", state=State.DEFERRED, reason="the day's tokens are used up")
    for headers in (BEARER, BASIC):
        text = get(world, "/?details", headers).text
        for shown in ("github:acme/api#7", "job-1", "the day&#x27;s tokens are used up", "kimi-k2.6"):
            assert shown in text
    refusal = get(world, "/?details")
    assert refusal.status_code == 401
    assert refusal.headers["www-authenticate"].startswith("Basic")


def test_the_status_page_tells_limits_and_money_to_who_has_the_token_alone(world: World) -> None:
    world.vitals = VITALS
    known = get(world, "/", BEARER).text
    for shown in (
        "<dt>batch</dt><dd>410</dd>", "17 of 30<small>moonshot code plan</small>", "<dd>44</dd>",
        "$48.13 of $100.00", "1,200, 2 lost", "The provider asked for a pause",
    ):  # fmt: skip
        assert shown in known
    stranger = get(world, "/").text
    assert "<dt>batch</dt><dd>410</dd>" in stranger
    for private in ("moonshot code plan", "48.13", "of 30", "asked for a pause"):
        assert private not in stranger


def test_jobs_that_wait_for_a_newer_version_are_an_alarm_for_everybody(world: World) -> None:
    assert "newer version" not in get(world, "/").text
    world.add("1" * 20, is_left=True)
    assert "1 job waits for a worker of a newer version" in get(world, "/").text
    world.add("2" * 20, is_left=True)
    assert "2 jobs wait for a worker of a newer version" in get(world, "/", BEARER).text
    assert "kimi_review_jobs_left 2.0" in get(world, "/metrics", BEARER).text


def test_metrics_tell_queues_limits_and_spending_by_the_conventions(world: World) -> None:
    world.vitals = VITALS
    text = get(world, "/metrics", BEARER).text
    for line in (
        'kimi_review_queue_messages{priority="batch"} 410.0',
        'kimi_review_longest_wait_seconds{priority="interactive",stage="publish"} 61.5',
        "kimi_review_paused 0.0",
        "kimi_review_jobs_left 0.0",
        "kimi_review_model_requests_in_flight 17.0",
        "kimi_review_model_requests_waiting 44.0",
        'kimi_review_model_limit{kind="concurrency",source="moonshot code plan"} 30.0',
        'kimi_review_model_paused{reason="cooling_down"} 1.0',
        'kimi_review_model_requests_total{month="2026-11",outcome="answered"} 1200.0',
        'kimi_review_model_requests_total{month="2026-11",outcome="lost"} 2.0',
        'kimi_review_model_tokens_total{kind="cached_input",month="2026-11"} 9.0',
        'kimi_review_model_cost_usd_total{month="2026-11"} 48.1312',
        "kimi_review_model_monthly_budget_usd 100.0",
    ):
        assert line in text
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation and family.name.startswith("kimi_review_") for family in families)


def test_the_second_provider_s_account_has_figures_of_its_own(world: World) -> None:
    told = (KnownLimit("rpm", 3, "told by a refusal"),)
    busy = replace(VITALS.model, in_use=5, paused_until=None, limits=told, is_adapting=True)
    world.vitals = replace(VITALS, fallback=busy)
    text = get(world, "/metrics", BEARER).text
    for line in (
        "kimi_review_model_requests_in_flight 17.0",
        "kimi_review_fallback_requests_in_flight 5.0",
        'kimi_review_fallback_limit{kind="rpm",source="told by a refusal"} 3.0',
        'kimi_review_fallback_paused{reason="cooling_down"} 0.0',
    ):
        assert line in text
    page = get(world, "/", BEARER).text
    assert "Requests to the second provider" in page
    assert "Requests to the second provider" not in get(world, "/").text


def test_figures_of_redis_are_not_told_again_while_it_is_away(world: World) -> None:
    world.vitals = VITALS

    async def twice() -> tuple[str, str]:
        async with world.client() as client:
            first = (await client.get("/metrics", headers=BEARER)).text
            world.store.down = refuse_connection
            return first, (await client.get("/metrics", headers=BEARER)).text

    first, second = asyncio.run(twice())
    assert "kimi_review_queue_messages{" in first
    assert "kimi_review_queue_messages{" not in second
    assert "kimi_review_answer_seconds" in second


def test_the_status_page_tells_how_long_the_longest_waiting_job_does(world: World) -> None:
    world.vitals = VITALS
    text = get(world, "/").text
    assert "<dt>interactive</dt><dd>2<small>longest wait 1 min</small></dd>" in text
    assert "<dt>batch</dt><dd>410</dd>" in text


def test_text_of_strangers_stays_text_on_the_status_page(world: World) -> None:
    world.add("job-1", reason=HOSTILE, ref=ChangeRef("github", f"acme/{HOSTILE}", 1), head=HOSTILE)
    answer = get(world, "/", BEARER)
    tags: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append(tag)
            assert not any(name.startswith("on") for name, _ in attrs)

    Reader().feed(answer.text)
    assert "script" not in tags
    assert "img" not in tags
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_a_path_or_a_method_that_is_none_is_answered_in_our_own_form(world: World) -> None:
    async def send(method: str, url: str) -> httpx.Response:
        async with world.client() as client:
            return await client.request(method, url)

    for url in ("/nowhere", "/webhooks/github/", "/%2e%2e/etc/passwd"):
        answer = asyncio.run(send("POST", url))
        assert answer.status_code == 404
        assert "/webhooks/github" in answer.json()["error"]
    answer = asyncio.run(send("GET", "/webhooks/github"))
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["error"] == "This path takes POST alone."


def test_the_status_page_says_when_the_store_is_away(world: World) -> None:
    world.store.down = refuse_connection
    answer = get(world, "/")
    assert "cannot be reached" in answer.text
