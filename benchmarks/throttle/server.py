"""A provider's gate: counts requests by its own clock, answers after a while, and never forgives.

    python -m benchmarks.throttle.server SOCKET_FD CAPS_JSON MINUTE_S LOG

Every request is counted when it arrives: how many are open, how many requests and tokens came in the minute before, and
in the running minute of a fixed window too. One above a cap is answered 429 and written down. Each line of LOG is one
arrival or one end: `{"t", "what", "open", "tokens", "worker", "flow", "over", "way_s"}`; `t` in monotonic seconds,
`way_s` since its worker was told that it may go.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections import deque
from pathlib import Path
from typing import TextIO


class Gate:
    """What the account may do, as its server sees it. Caps: concurrency, rpm, tpm; a missing one is no cap."""

    def __init__(self, caps: dict[str, int], minute_s: float, log: TextIO) -> None:
        self.caps = caps
        self.minute_s = minute_s
        self.log = log
        self.open = 0
        self.recent: deque[tuple[float, int]] = deque()
        self.recent_tokens = 0
        self.fixed = (0.0, 0, 0)

    def arrive(self, tokens: int, worker: str, flow: str, sent: float) -> str:
        """Count one request, admitted at `sent`; the answer names the cap that it is above, or is empty."""
        now = time.monotonic()
        while self.recent and self.recent[0][0] <= now - self.minute_s:
            self.recent_tokens -= self.recent.popleft()[1]
        begun, requests, fixed_tokens = self.fixed
        if now - begun >= self.minute_s:
            begun, requests, fixed_tokens = now, 0, 0
        self.recent.append((now, tokens))
        self.recent_tokens += tokens
        self.fixed = (begun, requests + 1, fixed_tokens + tokens)
        self.open += 1
        over = ""
        if self.open > self.caps.get("concurrency", self.open):
            over = "concurrency"
        elif max(len(self.recent), self.fixed[1]) > self.caps.get("rpm", sys.maxsize):
            over = "rpm"
        elif max(self.recent_tokens, self.fixed[2]) > self.caps.get("tpm", sys.maxsize):
            over = "tpm"
        self.note(now, "came", tokens, worker, flow, over, now - sent)
        return over

    def leave(self, tokens: int, worker: str, flow: str) -> None:
        self.open -= 1
        self.note(time.monotonic(), "left", tokens, worker, flow, "")

    def note(self, now: float, what: str, tokens: int, worker: str, flow: str, over: str, way_s: float = 0.0) -> None:
        line = {"t": now, "what": what, "open": self.open, "tokens": tokens, "worker": worker, "flow": flow}
        self.log.write(json.dumps(line | {"over": over, "way_s": way_s}) + "\n")


async def serve(gate: Gate, listener: socket.socket) -> None:
    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                )
                asked = json.loads(await reader.readexactly(length))
                facts = (asked["tokens"], asked["worker"], asked["flow"])
                over = gate.arrive(*facts, asked["sent"])
                try:
                    if not over:
                        # A client that dies closes its connection: its request is no longer open.
                        gone = asyncio.ensure_future(reader.read(1))
                        await asyncio.wait({gone}, timeout=asked["seconds"])
                        if gone.done():
                            return
                        gone.cancel()
                        await asyncio.wait({gone})
                finally:
                    gate.leave(*facts)
                status = b"429 Too Many Requests" if over else b"200 OK"
                body = over.encode()
                writer.write(b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connection, sock=listener, backlog=1024)
    async with server:
        await server.serve_forever()


def main() -> None:
    descriptor, caps, minute_s, log = sys.argv[1:]
    with Path(log).open("w", buffering=1) as file:
        asyncio.run(serve(Gate(json.loads(caps), float(minute_s), file), socket.socket(fileno=int(descriptor))))


if __name__ == "__main__":
    main()
