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
"""From the connection to the end of the first request's headers."""
GRACE_S = 10
"""For answers that are under way when the server is told to stop."""


class _Impatient(H11Protocol):
    """Hangs up on who connects and then sends no request: uvicorn itself would wait for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        super().connection_made(transport)
        self.loop.call_later(HEAD_TIMEOUT_S, self._hang_up_on_silence)

    def _hang_up_on_silence(self) -> None:
        # uvicorn sets `cycle` when a request's headers are complete.
        if self.cycle is None and not self.transport.is_closing():
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
