"""A file whose time tells that a process without a port still works: what a container's health check looks at."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from worker.core.errors import ConfigurationError

BEAT_S = 5.0
"""The health check in docker-compose.yml looks back a minute."""


@contextmanager
def beating(home: Path, role: str) -> Iterator[None]:
    """Touch the role's file while the context lasts. Raises `ConfigurationError` where it cannot be made."""
    path = _path(home, role)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise ConfigurationError(
            [f"KIMI_REVIEW_HOME: {path.parent} cannot be used: {error.strerror}. Name one that this user may write to."]
        ) from error
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_S):
            with suppress(OSError):  # a full disk for a while must not end the beat for good
                path.touch()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)


def _path(home: Path, role: str) -> Path:
    # Workers on several hosts may share the folder of mirrors.
    return home / "run" / f"{role}-{socket.gethostname()}.alive"
