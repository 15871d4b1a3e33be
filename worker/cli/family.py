"""The process tree of `serve`: children that are started again when they die, and that die with their parent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import structlog

log = structlog.get_logger()

GRACE_S = 50.0
"""From SIGTERM to SIGKILL; compose's stop_grace_period of 60 s is longer."""
SHORTEST_LIFE_S = 30.0
"""A child that lives shorter is started again after a growing pause."""
LONGEST_PAUSE_S = 30.0


@dataclass
class Child:
    """One role as a process of its own. `arguments` follow `kimi-review`.

    The child writes one byte to the descriptor given as `--ready-fd` once it works.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: Path | None = None
    """Its working folder, whose `.env` it reads; ours when None."""
    output: Path | None = None
    """Where its stdout and stderr go; ours when None."""
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    _process: asyncio.subprocess.Process | None = field(default=None, repr=False)
    _stopping: bool = False

    async def keep_running(self) -> None:
        """Start it, and again whenever it ends, until `stop`."""
        pause_s = 0.0
        while not self._stopping:
            started = time.monotonic()
            code = await self._live()
            self.ready.clear()
            if self._stopping:
                return
            lived_s = time.monotonic() - started
            # The first restart comes at once: a worker that was killed must not keep its jobs waiting.
            pause_s = 0.0 if lived_s > SHORTEST_LIFE_S else min(max(1.0, pause_s * 2), LONGEST_PAUSE_S)
            log.error("process.died", process=self.name, exit_code=code, lived_s=round(lived_s, 1), pause_s=pause_s)
            await asyncio.sleep(pause_s)

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after `GRACE_S`."""
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), GRACE_S)
        except TimeoutError:
            log.warning("process.killed", process=self.name, grace_s=GRACE_S)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _live(self) -> int:
        reading, writing = os.pipe()
        try:
            command = [sys.executable, "-m", "worker.cli", *self.arguments]
            options = [f"--with-parent={os.getpid()}", f"--ready-fd={writing}"]
            with ExitStack() as held:
                output = held.enter_context(self.output.open("ab")) if self.output else None
                self._process = await asyncio.create_subprocess_exec(
                    *command,
                    *options,
                    env=dict(self.environment),
                    cwd=self.folder,
                    pass_fds=(writing,),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        log.info("process.started", process=self.name, pid=self._process.pid)
        watching = asyncio.create_task(self._await_ready(reading))
        try:
            return await self._process.wait()
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    async def _await_ready(self, reading: int) -> None:
        loop = asyncio.get_running_loop()
        with open(reading, "rb", buffering=0) as pipe:  # noqa: ASYNC230 - a descriptor of ours, never blocked on
            os.set_blocking(reading, False)
            readable = asyncio.Event()
            loop.add_reader(reading, readable.set)
            try:
                await readable.wait()
                # An empty read is the child's end, not its word.
                if pipe.read(1) == b"r":
                    self.ready.set()
            finally:
                loop.remove_reader(reading)


def tell_ready(descriptor: int | None) -> None:
    """In the child: say that it works."""
    if descriptor is not None:
        with contextlib.suppress(OSError):  # the parent is gone; the child follows soon
            os.write(descriptor, b"r")
            os.close(descriptor)
