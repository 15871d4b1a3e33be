"""A forward proxy on loopback, as stands at the edge of a company's network: CONNECT, and absolute-form requests.

with ForwardProxy(login="worker:pass") as proxy:
    environment = {"HTTPS_PROXY": proxy.url}          # with the login in it
    ...                                               # https://kimi.test:4711 leads to port 4711 of this machine
    assert proxy.seen == ["CONNECT kimi.test:4711"]

It alone knows names that end in `.test`, so what arrives under one of them has come by it.
"""

from __future__ import annotations

import base64
import select
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from urllib.parse import quote, unquote, urlsplit

from tests.fakes.loopback import Loopback, Quiet

NAMES = ".test"


@dataclass(slots=True)
class ForwardProxy:
    """`login` is `name:password`, asked of every request; empty asks for none. `refuses` is a status for each."""

    login: str = ""
    refuses: int | None = None
    seen: list[str] = field(default_factory=list)
    """Method and address of each request that was let through."""
    headers: list[str] = field(default_factory=list)
    """All that it could read in the clear of them."""
    _server: Loopback | None = None

    def __enter__(self) -> ForwardProxy:
        self._server = Loopback(_Handler, self)
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.stop()

    @property
    def where(self) -> str:
        """`host:port`."""
        if self._server is None:
            raise RuntimeError("the proxy is not running: use it as a context manager")
        return self._server.address.removeprefix("http://")

    @property
    def url(self) -> str:
        """As the environment names it: a login is percent-encoded."""
        name, _, password = self.login.partition(":")
        login = f"{quote(name, safe='')}:{quote(password, safe='')}@" if self.login else ""
        return f"http://{login}{self.where}"

    def refusal_of(self, authorization: str | None) -> int | None:
        """The status that a request is turned away with."""
        if self.login and authorization != f"Basic {base64.b64encode(self.login.encode()).decode()}":
            return 407
        return self.refuses


class _Handler(Quiet, BaseHTTPRequestHandler):
    owner: ForwardProxy
    protocol_version = "HTTP/1.1"

    def do_CONNECT(self) -> None:
        host, _, port = self.path.rpartition(":")
        if self._is_let_through(host):
            with socket.create_connection(("127.0.0.1", int(port))) as far:
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _join(self.connection, far)

    def do_GET(self) -> None:
        self._pass_on(b"")

    def do_POST(self) -> None:
        self._pass_on(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

    def _pass_on(self, body: bytes) -> None:
        address = urlsplit(self.path)
        if not self._is_let_through(address.hostname or ""):
            return
        path = address.path + (f"?{address.query}" if address.query else "")
        own = ("proxy-authorization", "proxy-connection", "connection")
        kept = [f"{name}: {value}" for name, value in self.headers.items() if name.lower() not in own]
        with socket.create_connection(("127.0.0.1", address.port or 80)) as far:
            head = "\r\n".join([f"{self.command} {path} HTTP/1.1", *kept, "Connection: close", "", ""])
            far.sendall(head.encode("latin-1") + body)
            while block := far.recv(65_536):
                self.wfile.write(block)

    def _is_let_through(self, host: str) -> bool:
        self.close_connection = True
        owner = self.owner
        status = owner.refusal_of(self.headers.get("Proxy-Authorization"))
        if status is None and not unquote(host).endswith(NAMES):
            status = 502
        if status is not None:
            asks = 'Proxy-Authenticate: Basic realm="proxy"\r\n' if status == 407 else ""
            self.wfile.write(
                f"HTTP/1.1 {status} Refused\r\n{asks}Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
            )
            return False
        owner.seen.append(f"{self.command} {self.path}")
        owner.headers.append(str(self.headers))
        return True


def _join(near: socket.socket, far: socket.socket) -> None:
    """Pass bytes on in both directions until one side ends."""
    with suppress(OSError):
        while True:
            ready, _, _ = select.select([near, far], [], [], 10)
            if not ready:
                return
            for one in ready:
                block = one.recv(65_536)
                if not block:
                    return
                (far if one is near else near).sendall(block)
