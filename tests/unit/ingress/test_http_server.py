"""The real server on loopback: what only sockets can show."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import httpx
import pytest

from tests.unit.ingress.world import World, body_of, payload, signed
from worker.core.errors import ConfigurationError
from worker.ingress import server

T = TypeVar("T")


def served(world: World, use: Callable[[int], Awaitable[T]]) -> T:
    async def run() -> T:
        stop = asyncio.Event()
        listener = server.listen("127.0.0.1", 0)
        serving = asyncio.create_task(server.serve(world.app(), listener, stop=stop))
        try:
            return await use(listener.getsockname()[1])
        finally:
            stop.set()
            await serving
            listener.close()

    return asyncio.run(run())


def test_a_delivery_passes_through_the_real_server(world: World) -> None:
    body = body_of(payload())

    async def use(port: int) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.post(f"http://127.0.0.1:{port}/webhooks/github", content=body, headers=signed(body))

    answer = served(world, use)
    assert answer.status_code == 202
    assert "server" not in answer.headers


def test_a_body_in_chunks_beyond_the_limit_ends_with_413_and_the_connection(world: World) -> None:
    async def use(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        with suppress(ConnectionError):  # the server hangs up, as it should
            for _ in range(26_000_000 // 65_536):
                writer.write(chunk)
                await writer.drain()
        received = b""
        with suppress(ConnectionError):  # a reset can overtake the answer
            received = await reader.read()
        writer.close()
        return received

    received = served(world, use)
    assert received == b"" or received.startswith(b"HTTP/1.1 413")
    assert world.webhook.parsed == 0


def test_who_sends_no_request_is_hung_up_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_TIMEOUT_S", 0.1)

    async def use(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nX-Slow: ")
        received = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return received

    assert served(world, use) == b""


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
        b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
    ],
    ids=["the headers of a second request", "a body nobody asked for", "a body to nowhere"],
)
def test_who_trickles_after_an_answer_is_hung_up_on(world: World, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(server, "HEAD_TIMEOUT_S", 0.2)

    async def use(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        received = await reader.readuntil(b"\r\n\r\n")

        async def trickle() -> None:
            with suppress(ConnectionError):  # the server hangs up, as it should
                while True:
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        with suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 3)
        trickling.cancel()
        writer.close()
        return received

    assert served(world, use).startswith(b"HTTP/1.1 ")


def test_requests_sent_in_one_go_are_answered_in_order(world: World) -> None:
    async def use(port: int) -> list[bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
        received = await reader.read()
        writer.close()
        return re.findall(rb"HTTP/1.1 (\d+)", received)

    assert served(world, use) == [b"200", b"404"]


def test_a_port_that_is_taken_is_told_by_the_setting_to_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError, match="API_PORT"):
        server.listen("127.0.0.1", taken.getsockname()[1])


def test_an_answer_does_not_wait_for_the_caller_to_acknowledge_its_first_part() -> None:
    with (
        server.listen("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
