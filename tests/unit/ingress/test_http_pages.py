"""Health, metrics and the status page."""

from __future__ import annotations

import asyncio
import base64
from html.parser import HTMLParser

import httpx

from tests.unit.ingress.world import TOKEN, World, refuse_connection
from worker.core.change import ChangeRef
from worker.core.errors import Unreachable
from worker.core.job import State

BEARER = {"authorization": f"Bearer {TOKEN}"}
BASIC = {"authorization": "Basic " + base64.b64encode(f"anybody:{TOKEN}".encode()).decode()}
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
    assert '<b class="failed">1</b>' in answer.text
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


def test_the_status_page_says_when_the_store_is_away(world: World) -> None:
    world.store.down = refuse_connection
    answer = get(world, "/")
    assert "cannot be reached" in answer.text
