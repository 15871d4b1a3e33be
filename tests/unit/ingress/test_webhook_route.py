"""POST /webhooks/github: closed to strangers, and never a 2xx for what is not stored."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
import structlog.testing
from starlette.requests import Request
from starlette.types import Message

from tests.unit.ingress.world import SECRET, TOKEN, World, body_of, payload, refuse_connection, signed
from worker.core.job import State
from worker.ingress.body import LIMIT_BYTES, SMALL_BYTES, BodyReader, BodyRefused

URL = "/webhooks/github"


def post(world: World, body: bytes, headers: dict[str, str], url: str = URL) -> httpx.Response:
    async def call() -> httpx.Response:
        async with world.client() as client:
            return await client.post(url, content=body, headers=headers)

    return asyncio.run(call())


def test_a_signed_delivery_is_stored_and_answered_with_its_job(world: World) -> None:
    body = body_of(payload())
    answer = post(world, body, signed(body))
    assert answer.status_code == 202
    assert answer.json() == {"job": next(iter(world.store.jobs)), "state": "queued", "new": True}


@pytest.mark.parametrize(("state", "said"), [(State.DONE, "reviewed before"), (State.RUNNING, "has a job already")])
def test_a_delivery_that_makes_no_job_is_told_why_in_words(world: World, state: State, said: str) -> None:
    body = body_of(payload())
    job = post(world, body, signed(body)).json()["job"]
    world.store.jobs[job] = replace(world.store.jobs[job], state=state)
    answer = post(world, body, signed(body)).json()
    assert (answer["job"], answer["state"], answer["new"]) == (job, state.value, False)
    assert said in answer["reason"]


def test_the_same_delivery_a_hundred_times_at_once_is_one_job(world: World) -> None:
    body = body_of(payload())

    async def calls() -> list[httpx.Response]:
        async with world.client() as client:
            return await asyncio.gather(*(client.post(URL, content=body, headers=signed(body)) for _ in range(100)))

    answers = asyncio.run(calls())
    assert {answer.status_code for answer in answers} == {202}
    assert len(world.store.jobs) == 1
    assert len({answer.json()["job"] for answer in answers}) == 1


def test_without_a_valid_signature_nothing_is_parsed(world: World) -> None:
    body = body_of(payload())
    good = signed(body)["x-hub-signature-256"]
    other = signed(body_of(payload(number=8)))["x-hub-signature-256"]
    upper = (good.upper(), f"sha256={good[7:].upper()}")
    for signature in (None, "", good[:-1], *upper, good.replace("sha256=", "sha1="), other, f"{good}0", good[7:]):
        headers = signed(body)
        del headers["x-hub-signature-256"]
        if signature is not None:
            headers["x-hub-signature-256"] = signature
        answer = post(world, body, headers)
        assert answer.status_code == 401, signature
        assert SECRET not in answer.text
    assert world.webhook.parsed == 0
    assert world.store.jobs == {}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"[]",
        b'"text"',
        b'{"action":"opened","action":"closed"}',
        b'{"number":NaN}',
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"action":"opened","number":7,"repository":{"full_name":"\\ud800"}}',
        b"\xff\xfe",
        b"{}",
    ],
)
def test_a_signed_body_that_is_no_payload_is_refused(world: World, body: bytes) -> None:
    answer = post(world, body, signed(body))
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert world.store.jobs == {}


@pytest.mark.parametrize("event", ["ping", "push", "some_new_event"])
def test_an_event_that_asks_for_nothing_is_answered_with_200(world: World, event: str) -> None:
    body = body_of({"zen": "Keep it logically awesome."})
    answer = post(world, body, signed(body, event=event))
    assert answer.status_code == 200
    assert answer.json()["ignored"]
    assert world.store.jobs == {}


def test_a_closed_change_is_ignored_and_says_so(world: World) -> None:
    value = payload(action="closed")
    assert post(world, body_of(value), signed(body_of(value))).json() == {"ignored": "action not handled"}


def test_a_forge_without_configuration_answers_404(world: World) -> None:
    answer = post(world, b"{}", {}, url="/webhooks/gitlab")
    assert answer.status_code == 404
    assert "configured" in answer.json()["error"]


@pytest.mark.parametrize("url", ["/webhooks/gitlab", "/webhooks/github/", "/github/webhook", f"/{'x' * 5000}"])
def test_a_call_at_a_wrong_address_is_seen_in_the_log(world: World, url: str) -> None:
    with structlog.testing.capture_logs() as lines:
        assert post(world, b"{}", {}, url).status_code == 404
    [line] = lines
    assert line["log_level"] == "warning"
    assert str(line.get("path") or line.get("forge")) in url
    assert len(str(line)) < 300


def test_a_store_that_refuses_is_503_with_a_time_to_come_back(world: World) -> None:
    world.store.down = refuse_connection
    body = body_of(payload())
    answer = post(world, body, signed(body))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert "6379" not in answer.text


def test_a_store_that_hangs_is_503_within_two_seconds(world: World) -> None:
    async def hang() -> None:
        await asyncio.sleep(60)

    world.store.down = hang
    body = body_of(payload())
    started = time.monotonic()
    answer = post(world, body, signed(body))
    assert answer.status_code == 503
    assert time.monotonic() - started < 2


def test_a_declared_length_above_the_limit_is_refused_unread(world: World) -> None:
    async def call() -> tuple[httpx.Response, int]:
        sent = 0

        async def body() -> AsyncIterator[bytes]:
            nonlocal sent
            sent += 1
            yield b"x"

        async with world.client() as client:
            headers = {"content-length": str(LIMIT_BYTES + 1)}
            return await client.post(URL, content=body(), headers=headers), sent

    answer, sent = asyncio.run(call())
    assert (answer.status_code, sent) == (413, 0)
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("declared", [b"many", b"-1", b"1e3", b"", b"\xb2"], ids=repr)
def test_a_length_that_is_no_number_is_refused(world: World, declared: bytes) -> None:
    body = body_of(payload())

    async def call() -> httpx.Response:
        async with world.client() as client:
            headers = [(name.encode(), value.encode()) for name, value in signed(body).items()]
            return await client.post(URL, content=body, headers=[*headers, (b"content-length", declared)])

    assert asyncio.run(call()).status_code == 400
    assert world.store.jobs == {}


@pytest.mark.parametrize("is_declared", [True, False], ids=["declared", "in chunks"])
def test_a_body_may_be_as_long_as_the_limit_and_no_longer(world: World, is_declared: bool) -> None:
    body = body_of(payload())

    async def call(limit: int) -> int:
        world.reader = BodyReader(limit=limit)

        async def chunks() -> AsyncIterator[bytes]:
            yield body[:10]
            yield body[10:]

        async with world.client() as client:
            content = body if is_declared else chunks()
            return (await client.post(URL, content=content, headers=signed(body))).status_code

    assert asyncio.run(call(len(body))) == 202
    assert asyncio.run(call(len(body) - 1)) == 413


def test_a_caller_that_goes_away_in_the_middle_is_refused_and_gives_its_place_back() -> None:
    async def call() -> tuple[int, int]:
        reader = BodyReader(places=1)
        said = [{"type": "http.request", "body": b"x" * (SMALL_BYTES + 1), "more_body": True}]

        async def then_gone() -> Message:
            return said.pop() if said else {"type": "http.disconnect"}

        async def complete() -> Message:
            return {"type": "http.request", "body": b"x" * (SMALL_BYTES + 1), "more_body": False}

        with pytest.raises(BodyRefused) as refused:
            await reader.read(Request({"type": "http", "headers": []}, then_gone))
        return refused.value.status, len(await reader.read(Request({"type": "http", "headers": []}, complete)))

    assert asyncio.run(call()) == (400, SMALL_BYTES + 1)


def test_an_endless_body_in_chunks_is_refused_with_flat_memory(world: World) -> None:
    reader = BodyReader(limit=2_000_000)
    world.reader = reader
    chunk = b"x" * 65_536

    async def call() -> httpx.Response:
        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield chunk

        async with world.client() as client:
            return await client.post(URL, content=endless())

    tracemalloc.start()
    answer = asyncio.run(call())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer.status_code == 413
    assert peak < 8_000_000


def test_a_slow_sender_is_given_up(world: World) -> None:
    world.reader = BodyReader(timeout_s=0.1)

    async def call() -> httpx.Response:
        async def drip() -> AsyncIterator[bytes]:
            while True:
                yield b"x"
                await asyncio.sleep(0.03)

        async with world.client() as client:
            return await client.post(URL, content=drip())

    assert asyncio.run(call()).status_code == 408


def test_only_a_few_large_bodies_are_held_at_once_and_small_ones_still_pass(world: World) -> None:
    world.reader = BodyReader(places=1)
    small = body_of(payload())

    async def calls() -> tuple[int, int, int]:
        go_on = asyncio.Event()
        is_large = asyncio.Event()

        async def large() -> AsyncIterator[bytes]:
            yield b"x" * (SMALL_BYTES + 1)
            is_large.set()
            await go_on.wait()

        async with world.client() as client:
            first = asyncio.create_task(client.post(URL, content=large()))
            await is_large.wait()
            second = await client.post(URL, content=b"x" * (SMALL_BYTES + 1))
            third = await client.post(URL, content=small, headers=signed(small))
            go_on.set()
            return (await first).status_code, second.status_code, third.status_code

    assert asyncio.run(calls()) == (401, 503, 202)


def test_deliveries_are_counted_by_what_became_of_them(world: World) -> None:
    body = body_of(payload())
    closed = body_of(payload(pull_request={**payload()["pull_request"], "state": "closed"}))  # type: ignore[dict-item]

    async def calls() -> str:
        async with world.client() as client:
            for sent in (body, body, body, closed):
                await client.post(URL, content=sent, headers=signed(sent))
            await client.post(URL, content=b"{}")
            await client.post("/webhooks/nobody", content=b"{}")
            return (await client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})).text

    text = asyncio.run(calls())
    assert 'kimi_review_deliveries_total{forge="github",outcome="refused",reason="signature missing"} 1.0' in text
    assert 'kimi_review_deliveries_total{forge="github",outcome="ignored",reason="change is closed"} 1.0' in text
    assert 'kimi_review_deliveries_total{forge="github",outcome="accepted",reason="new"} 1.0' in text
    assert 'kimi_review_deliveries_total{forge="github",outcome="accepted",reason="known"} 2.0' in text
    assert 'forge="unknown",outcome="refused",reason="not configured"} 1.0' in text
    assert "nobody" not in text
