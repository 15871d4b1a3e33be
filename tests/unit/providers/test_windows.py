"""How large a model's window is: asked of a real server, kept in a real Redis, believed within reason."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import redis.asyncio
from structlog.testing import capture_logs

from tests.fakes.admission import OpenThrottle
from tests.fakes.kimi import KEY, Fault, KimiServer, error
from worker.bootstrap import Installation
from worker.clock import SystemClock
from worker.core.change import Snapshot
from worker.core.errors import RequestTooLong
from worker.ports import Flow
from worker.providers.check import TINY
from worker.providers.connect import connect as connect_model
from worker.providers.endpoint import Endpoint
from worker.providers.windows import AGAIN_S, FRESH_S, Windows, WindowWishes
from worker.review.local import local_subject
from worker.settings import Role, load
from worker.storage.connection import connect
from worker.storage.windows import RedisWindowNotes

CATALOGUE = 262_144
NOTHING = WindowWishes()


@dataclass
class Offering:
    """A server whose `GET /models` answers as told."""

    status: int = 200
    body: bytes = b""
    waits: threading.Event | None = None
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def offer(self, **members: object) -> None:
        self.body = json.dumps({"data": [{"id": "other"}, {"id": "kimi-k2.6", **members}]}).encode()


@contextmanager
def offering() -> Iterator[Offering]:
    told = Offering()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append(self.path)
            if told.waits is not None:
                # Bytes now and then, so that no deadline between two of them ever ends.
                self.send_response(200)
                self.end_headers()
                while not told.waits.wait(0.02):
                    self.wfile.write(b" ")
                return
            self.send_response(told.status)
            self.end_headers()
            self.wfile.write(told.body)

        def log_message(self, *_: object) -> None:
            """Silent."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that left in the middle is what the test is about."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        told.url = f"http://127.0.0.1:{server.server_port}/v1"
        try:
            yield told
        finally:
            if told.waits is not None:
                told.waits.set()
            server.shutdown()
            thread.join()


@asynccontextmanager
async def windows(url: str, redis_url: str, wishes: WindowWishes = NOTHING) -> AsyncIterator[Windows]:
    client = connect(redis_url)
    try:
        endpoint = Endpoint(url, KEY, "kimi-k2.6")
        yield Windows(endpoint, wishes, RedisWindowNotes(client), SystemClock(), answer_within_s=0.4)
    finally:
        await client.aclose()


def window_of(told: Offering, redis_url: str, wishes: WindowWishes = NOTHING) -> tuple[int, str]:
    async def ask() -> tuple[int, str]:
        async with windows(told.url, redis_url, wishes) as asked:
            model = await asked.model()
            return model.window_tokens, model.window_source

    return asyncio.run(ask())


def forget_when(redis_url: str) -> None:
    """As if the time until the next asking had passed."""

    async def drop() -> None:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            for key in [key async for key in client.scan_iter("*:window:turn:*")]:
                await client.delete(key)

    asyncio.run(drop())


@pytest.mark.parametrize(
    ("members", "window", "source"),
    [
        ({"context_length": 65_536}, 65_536, "GET /models"),
        ({"context_length": 1_048_576}, 1_048_576, "GET /models"),
        ({"context_length": "huge", "max_model_len": 32_768}, 32_768, "GET /models"),
        ({}, CATALOGUE, "the catalogue"),
        ({"context_length": None}, CATALOGUE, "the catalogue"),
        ({"context_length": True}, CATALOGUE, "the catalogue"),
        ({"context_length": -65_536}, CATALOGUE, "the catalogue"),
        ({"context_length": 10**40}, CATALOGUE, "the catalogue"),
        ({"context_length": 65_536.5}, CATALOGUE, "the catalogue"),
        ({"context_length": {"max": 65_536}}, CATALOGUE, "the catalogue"),
        # Nothing could be planned within it, and a lie must not stop a review.
        ({"context_length": 4_096}, CATALOGUE, "the catalogue"),
    ],
)
def test_the_server_s_window_outranks_the_catalogue_s_where_it_can_be_one(
    redis_url: str, members: dict[str, object], window: int, source: str
) -> None:
    with offering() as told:
        told.offer(**members)
        assert window_of(told, redis_url) == (window, source)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"error":{"type":"resource_not_found_error"}}'),
        (401, b'{"error":{"type":"invalid_authentication_error"}}'),
        (500, b"<html>"),
        (302, b""),
        (200, b"<html>no API</html>"),
        (200, b"[" * 50_000),
        (200, b'{"data": {"kimi-k2.6": {"context_length": 65536}}}'),
        (200, b'{"data": [1, null, {"id": 7}, {"id": "other", "context_length": 9000}]}'),
    ],
)
def test_a_server_that_does_not_tell_leaves_the_catalogue_s_window(redis_url: str, status: int, body: bytes) -> None:
    with offering() as told:
        told.status, told.body = status, body
        assert window_of(told, redis_url) == (CATALOGUE, "the catalogue")
        assert window_of(told, redis_url) == (CATALOGUE, "the catalogue")
        assert len(told.asked) == 1


def test_a_server_that_drips_is_left_in_time_and_not_asked_again_at_once(redis_url: str) -> None:
    with offering() as told:
        told.waits = threading.Event()
        clock = SystemClock()
        started = clock.monotonic()
        assert window_of(told, redis_url) == (CATALOGUE, "the catalogue")
        assert clock.monotonic() - started < 3
        assert window_of(told, redis_url) == (CATALOGUE, "the catalogue")
        assert len(told.asked) == 1


def test_settings_outrank_the_server_which_is_then_not_asked(redis_url: str) -> None:
    with offering() as told:
        told.offer(context_length=65_536)
        assert window_of(told, redis_url, WindowWishes(window_tokens=200_000)) == (200_000, "LLM_CONTEXT_TOKENS")
        assert told.asked == []


def test_a_window_that_has_no_room_beside_the_answer_s_setting_is_passed_over(redis_url: str) -> None:
    with offering() as told:
        told.offer(context_length=65_536)
        assert window_of(told, redis_url, WindowWishes(output_tokens=62_000)) == (CATALOGUE, "the catalogue")
        assert window_of(told, redis_url, WindowWishes(output_tokens=32_000)) == (65_536, "GET /models")


def test_many_reviews_that_begin_at_once_ask_once_and_are_planned_alike(redis_url: str) -> None:
    async def all_at_once(url: str) -> set[int]:
        async with windows(url, redis_url) as one, windows(url, redis_url) as other:
            models = await asyncio.gather(*(each.model() for each in [one, other] * 8))
            return {model.window_tokens for model in models}

    with offering() as told:
        told.offer(context_length=65_536)
        assert asyncio.run(all_at_once(told.url)) == {65_536}
        assert told.asked == ["/v1/models"]


def test_what_was_heard_stands_while_the_server_does_not_answer_and_is_replaced_when_it_does(redis_url: str) -> None:
    with offering() as told:
        told.offer(context_length=65_536)
        assert window_of(told, redis_url)[0] == 65_536
        forget_when(redis_url)
        told.status = 500
        assert window_of(told, redis_url)[0] == 65_536
        forget_when(redis_url)
        told.status = 200
        told.offer(context_length=131_072)
        assert window_of(told, redis_url)[0] == 131_072
        forget_when(redis_url)
        told.offer()
        assert window_of(told, redis_url)[0] == CATALOGUE


@pytest.mark.parametrize(("status", "waits_s"), [(200, FRESH_S), (503, AGAIN_S)])
def test_the_server_is_asked_rarely(redis_url: str, status: int, waits_s: float) -> None:
    async def left_s() -> float:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            (key,) = [key async for key in client.scan_iter("*:window:turn:*")]
            return await client.pttl(key) / 1000

    with offering() as told:
        told.status = status
        told.offer(context_length=65_536)
        window_of(told, redis_url)
        assert waits_s - 30 < asyncio.run(left_s()) <= waits_s


def test_a_difference_is_logged_once(redis_url: str) -> None:
    with offering() as told, capture_logs() as lines:
        told.offer(context_length=65_536)
        window_of(told, redis_url)
        window_of(told, redis_url)
    (line,) = [line for line in lines if line["event"] == "model.window_differs"]
    assert (line["told_tokens"], line["catalogue_tokens"], line["used_tokens"]) == (65_536, CATALOGUE, 65_536)
    assert (line["provider"], line["model"]) == ("moonshot-compatible", "kimi-k2.6")


def test_a_refusal_that_names_the_limit_outranks_a_promise_for_all_who_come_later(redis_url: str) -> None:
    too_long = "Your request exceeded model token limit: 65536 (requested: 74613)"

    async def refused(kimi: KimiServer) -> None:
        async with windows(kimi.base_url, redis_url) as asked:
            model = connect_model(
                asked.endpoint,
                info=await asked.model(),
                throttle=OpenThrottle(),
                clock=SystemClock(),
                tell_window=asked.refused,
            )
            with pytest.raises(RequestTooLong):
                await model.complete(TINY, flow=Flow(change="a/b#1", repository="a/b"))
            assert model.info.window_tokens == 65_536

    with KimiServer() as kimi:
        kimi.script(Fault(400, error("invalid_request_error", too_long)))
        asyncio.run(refused(kimi))
        assert window_of(Offering(url=kimi.base_url), redis_url) == (65_536, "a refusal")


@pytest.mark.parametrize(
    ("window", "spare"),
    [(16_384, {}), (40_000, {}), (1_048_576, {}), (16_384, {"LLM_CONTEXT_TOKENS": "262144"})],
)
def test_a_review_is_planned_within_the_window_that_the_server_told(
    redis_url: str, window: int, spare: dict[str, str]
) -> None:
    with offering() as told:
        told.offer(context_length=window)
        bound = int(spare.get("LLM_CONTEXT_TOKENS", window))
        sizes = planned(told.url, redis_url, spare)
    assert all(size <= bound for size in sizes)
    assert (len(sizes) > 4) == (bound < 20_000)


def planned(url: str, redis_url: str, spare: dict[str, str]) -> list[int]:
    """Input and cap of each request that a review of a large change would send."""
    settings = load(
        {"API_OPENAI_FORCE_BASE_URL": url, "API_OPEN_AI_API_KEY": KEY, **spare}, role=Role.REVIEW, dotenv=None
    )

    async def plan() -> list[int]:
        async with Installation(settings, redis_url).services() as services:
            examiner = await services.examiner()
            made = await examiner.planning.plan(local_subject("A..B"), Snapshot("a" * 40, "b" * 40, large_diff()))
            prompts = [await made.prompt(chunk) for chunk in made.plan.chunks]
            return [prompt.input_tokens + prompt.max_output_tokens for prompt in prompts]

    return asyncio.run(plan())


def large_diff() -> bytes:
    """About fifty thousand tokens."""
    rows = b"".join(b"+    total_%d = price[%d] * amount[%d]\n" % (number, number, number) for number in range(100))
    header = b"diff --git a/m%d.py b/m%d.py\nnew file mode 100644\n--- /dev/null\n+++ b/m%d.py\n@@ -0,0 +1,100 @@\n"
    return b"".join(header % (number, number, number) + rows for number in range(30))
