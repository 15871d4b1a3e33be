"""Runs the application with uvicorn, under our own signals and our own log."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from worker.core.errors import ConfigurationError

HEAD_TIMEOUT_S = 10.0
"""From the connection, or from the first byte after an answer, to the end of a request's headers."""
GRACE_S = 10
"""For answers that are under way when the server is told to stop."""


class _Impatient(H11Protocol):
    """Hangs up on who sends no whole request: uvicorn itself waits for ever once a byte of it has come.

    That is true for each request of a connection, and for a body that goes on after its answer.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unwatch()

    def _watch(self) -> None:
        """Run a timer while no answer is under way. More bytes do not put it off."""
        if self._is_answering():
            self._unwatch()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._hang_up_on_silence)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _is_answering(self) -> bool:
        # uvicorn sets `cycle` when a request's headers are complete.
        return self.cycle is not None and not self.cycle.response_complete

    def _hang_up_on_silence(self) -> None:
        self._timer = None
        if not self._is_answering() and not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the command that runs the server; it sets `should_exit`."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `ConfigurationError` when the address cannot be had."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise ConfigurationError(
            [f"API_PORT: {host}:{port} cannot be listened on: {error.strerror}. Choose another port or address."]
        ) from error
    # Accepted connections inherit it. asyncio sets it itself, but not where the listener's protocol number is the
    # default one; without it every answer, which is two writes, waits 40 ms for the caller's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


async def serve(app: ASGIApp, listener: socket.socket, *, stop: asyncio.Event) -> None:
    """Serve `app` on `listener` until `stop` is set, then let open answers finish."""
    config = uvicorn.Config(
        app,
        http=_Impatient,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    stopping.cancel()
    await serving
