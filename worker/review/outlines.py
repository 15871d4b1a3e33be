"""Outline files in a process of their own, one for a job: a grammar is C code fed by strangers, and may hang or die.

A raw string opened ninety thousand times keeps a grammar busy for minutes without a place to stop it; here the
process is ended, the file is read by the shapes of its lines instead, and the rest goes on in another process.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from typing import IO, Final

import structlog

from worker.core.evidence.outline import Definition, Outline, guessed_outline, outline

log = structlog.get_logger()

_FILE_S: Final = 5.0
"""Of the processor, for one file; by the clock twice as much, since others may use the machine, and the start."""
_START_S: Final = 5.0
_LOSSES_S: Final = 30.0
"""For all files of a job that could not be finished; beyond it nothing is parsed any more."""
_RESTART_S: Final = 0.25
"""What a process costs that is started in the place of a dead one."""
_IDLE_S: Final = 60.0
"""A process that was asked nothing for so long ends by itself: a review may wait for the model for most of an hour."""
_FRESH_S: Final = _IDLE_S / 2
"""One that was asked within that time still runs; any other is not relied on."""
_MEMORY_BYTES: Final = 1_500_000_000
_ANSWER_BYTES: Final = 16_000_000
_POLL_S: Final = 0.25
_BLOCK_BYTES: Final = 1 << 16


class OutlineProcess:
    """Files to outlines, for one job. The process is started when it is needed and ends with `close`, or with us.

    Safe to use from several threads. `limit_s` bounds one file, `losses_s` all that could not be finished.
    """

    def __init__(self, *, limit_s: float = _FILE_S, losses_s: float = _LOSSES_S) -> None:
        self._limit_s = limit_s
        self._left_s = losses_s
        self._turn = threading.Lock()
        self._is_closed = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = 0.0
        self._end: weakref.finalize[..., OutlineProcess] = weakref.finalize(self, _nothing)

    def outlines(self, files: Mapping[str, bytes]) -> dict[str, Outline]:
        """Path → outline, for every file given; by the shapes of its lines where no process could finish it."""
        return {path: self._outline(path, source) for path, source in files.items()}

    def close(self) -> None:
        """End the process. Files that are asked for afterwards are read by the shapes of their lines."""
        self._is_closed.set()
        with self._turn:
            self._end()

    def _outline(self, path: str, source: bytes) -> Outline:
        with self._turn:
            if self._is_closed.is_set() or self._left_s <= 0:
                return guessed_outline(source)
            started = time.monotonic()
            try:
                return _read(self._ask(path, source))
            except (_LostError, OSError) as lost:
                # Whoever cannot finish this file is not asked for another one.
                self._end()
                if not self._is_closed.is_set():
                    self._left_s -= time.monotonic() - started + _RESTART_S
                    log.info("outline.lost", reason=str(lost), is_last=self._left_s <= 0)
        return guessed_outline(source)

    def _ask(self, path: str, source: bytes) -> bytes:
        now = time.monotonic()
        if self._process is None or not self._end.alive or now - self._asked > _FRESH_S:
            self._end()
            self._process = _started()
            self._end = weakref.finalize(self, _ended, self._process)
        header = json.dumps({"path": path, "bytes": len(source), "limit_s": self._limit_s})
        asked = header.encode("ascii") + b"\n" + source
        deadline = now + 2 * self._limit_s + _START_S
        answer = _exchange(self._process, asked, deadline=deadline, is_closed=self._is_closed)
        self._asked = time.monotonic()
        return answer


class _LostError(Exception):
    """The process died over a file, took too long, or answered nonsense."""


def _nothing() -> None:
    """How a process ends that was never started."""


def _started() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(  # our own interpreter and module, nothing of a change in it
        [sys.executable, "-I", "-m", "worker.review.outlines"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        env={},
    )
    # One that does not read must not keep us writing.
    os.set_blocking(_pipe(process.stdin).fileno(), False)
    return process


def _ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        _pipe(pipe).close()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise RuntimeError("The process was started without pipes.")
    return stream


def _exchange(process: subprocess.Popen[bytes], asked: bytes, *, deadline: float, is_closed: threading.Event) -> bytes:
    """Write `asked` and read one line. Raises `_LostError`, and `OSError` where the process is gone."""
    to_send = memoryview(asked)
    answer = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(_pipe(process.stdin), selectors.EVENT_WRITE)
        selector.register(_pipe(process.stdout), selectors.EVENT_READ)
        while not answer.endswith(b"\n"):
            if is_closed.is_set():
                raise _LostError("nobody waits for it any more")
            if time.monotonic() > deadline:
                raise _LostError("it took too long")
            for key, _ in selector.select(_POLL_S):
                if key.fileobj is process.stdin:
                    to_send = to_send[os.write(key.fd, to_send[:_BLOCK_BYTES]) :]
                    if not to_send:
                        selector.unregister(key.fileobj)
                elif block := os.read(key.fd, _BLOCK_BYTES):
                    answer += block
                else:
                    raise _LostError("the process died")
            if len(answer) > _ANSWER_BYTES:
                raise _LostError("its outline is too long")
    return bytes(answer)


def _read(answer: bytes) -> Outline:
    """Raises `_LostError` for what is no outline: a file may have made the process say anything."""
    try:
        default, *definitions = json.loads(answer)
        found = tuple(map(_definition, definitions))
        return Outline(found, None if default is None else _definition(default))
    except (ValueError, TypeError, RecursionError) as error:
        raise _LostError("what it said is no outline") from error


def _definition(fields: object) -> Definition:
    match fields:
        case [str(name), int(start), int(end), int(signature_end)] if 1 <= start <= signature_end <= end:
            return Definition(name, start, end, signature_end)
    raise ValueError("a definition is a name and three numbers of lines")


def main() -> None:
    """The process: a JSON line and a file in, a JSON line out, until the input ends or nobody asks any more."""
    import resource  # only this process may be limited
    import signal

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Both timers end the process: nothing here could run while a grammar does.
    for ends in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(ends, signal.SIG_DFL)
    source = sys.stdin.buffer
    while True:
        signal.setitimer(signal.ITIMER_REAL, _IDLE_S)
        header = source.readline()
        signal.setitimer(signal.ITIMER_REAL, 0)
        if not header:
            return
        asked = json.loads(header)
        data = source.read(asked["bytes"])
        signal.setitimer(signal.ITIMER_PROF, asked["limit_s"])
        found = outline(asked["path"], data)
        signal.setitimer(signal.ITIMER_PROF, 0)
        items = (found.default, *found.definitions)
        fields = [item and (item.name, item.start, item.end, item.signature_end) for item in items]
        sys.stdout.write(json.dumps(fields) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
