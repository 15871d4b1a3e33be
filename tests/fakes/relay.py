"""A way to Redis that can be held and cut: what happens half-way can then be watched."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

HELD_S = 0.005


@dataclass(slots=True)
class Relay:
    """Passes on what `behind`, a Unix socket, answers, but nothing while `holds` says so."""

    behind: Path
    holds: Callable[[], bool] = lambda: False
    port: int = 0
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _is_cut: bool = False

    def cut(self) -> None:
        """End all connections and take no further ones, until `mend`."""
        self._is_cut = True
        self._loop.call_soon_threadsafe(self._hang_up)

    def mend(self) -> None:
        self._is_cut = False

    def _is_held(self) -> bool:
        return self.holds()

    def _hang_up(self) -> None:
        for writer in self._writers:
            writer.close()

    async def _serve(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        async with server:
            with suppress(asyncio.CancelledError):
                await server.serve_forever()
            self._hang_up()
        await asyncio.sleep(0)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if not self._is_cut:
                answers, questions = await asyncio.open_unix_connection(str(self.behind))
                self._writers.add(questions)
                await asyncio.gather(_pump(reader, questions, lambda: False), _pump(answers, writer, self._is_held))
        finally:
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_held: Callable[[], bool]) -> None:
    with suppress(OSError):
        while part := await reader.read(65_536):
            while is_held():  # noqa: ASYNC110 - what is waited for happens in Redis, and nobody tells of it
                await asyncio.sleep(HELD_S)
            writer.write(part)
            await writer.drain()
    writer.close()


@contextmanager
def relaying(behind: Path) -> Iterator[Relay]:
    relay = Relay(behind)
    ready = threading.Event()
    serving = relay._loop.create_task(relay._serve(ready))

    def run() -> None:
        relay._loop.run_until_complete(serving)
        relay._loop.run_until_complete(_rest())
        relay._loop.close()

    thread = threading.Thread(target=run, name="relay")
    thread.start()
    ready.wait(10)
    try:
        yield relay
    finally:
        relay._loop.call_soon_threadsafe(serving.cancel)
        thread.join()


async def _rest() -> None:
    """Until every connection has noticed that it is over."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)
