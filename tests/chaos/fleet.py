"""The processes of a storm: each can be killed, paused, asked to end, and is started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Member:
    """One process of the fleet. `kills` holds (process id, Unix time) of every SIGKILL."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    kills: list[tuple[int, float]] = field(default_factory=list)
    ends: list[tuple[int, float]] = field(default_factory=list)
    """The same of every SIGTERM."""
    folder: Path | None = None
    """Its working folder; ours when None."""
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it unless it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kills.append((self._process.pid, time.time()))
            self._process.kill()
            self._process.wait()

    @property
    def process(self) -> int | None:
        """The id of the running process."""
        return self._process.pid if self._process is not None and self.is_running else None

    def send(self, sign: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            if sign is signal.SIGTERM:
                self.ends.append((self._process.pid, time.time()))
            self._process.send_signal(sign)

    def end(self, *, timeout_s: float) -> bool:
        """SIGTERM, and SIGKILL where that does not help; whether SIGTERM was enough."""
        if self._process is None:
            return True
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True


def worker(number: int, *, folder: Path, environment: Mapping[str, str], app: str = "worker.main") -> Member:
    """A worker as the containers run it."""
    command = [sys.executable, "-m", "celery", "-A", app, "-q", "worker", "-n", f"w{number}@chaos"]
    return Member(f"worker-{number}", command, {**os.environ, **environment}, folder / f"worker-{number}.log")


def role(name: str, *arguments: str, folder: Path, environment: Mapping[str, str]) -> Member:
    """A role of the program: `api`, `upkeep`."""
    command = [sys.executable, "-m", "worker.cli", name, *arguments]
    return Member(name, command, {**os.environ, **environment}, folder / f"{name}.log")
