"""The HTTP server below a fake: on a loopback port of its own, in a thread that ends with it."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Quiet:
    """For a handler: `owner` is the fake that it answers for; the handler declares its type."""

    owner: Any

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: a test's output is its own."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what many tests do; it is nothing to print."""


class Loopback:
    """Listens from the beginning, answers from `start` to `stop`."""

    def __init__(
        self, handler: type[BaseHTTPRequestHandler], owner: object, *, waits_for_answers: bool = False
    ) -> None:
        """With `waits_for_answers`, `stop` waits for those under way: for handlers that close each connection."""
        self._server = _Server(("127.0.0.1", 0), type(handler.__name__, (handler,), {"owner": owner}))
        self._server.daemon_threads = not waits_for_answers
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._stopping = threading.Event()

    @property
    def address(self) -> str:
        """`http://127.0.0.1:port`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than the server runs."""
        self._stopping.wait(seconds)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
