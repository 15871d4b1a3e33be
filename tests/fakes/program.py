"""The program as its users run it: `kimi-review serve` as a process of its own, with an environment of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

WEBHOOK_SECRET = "a-webhook-secret-of-the-tests"
API_TOKEN = "an-api-token-of-the-tests"
COMMAND = Path(sys.executable).with_name("kimi-review")


@dataclass
class Program:
    """`serve` on a free port. `folder` is its working folder and holds its home; `log` is all it wrote."""

    folder: Path
    environment: Mapping[str, str]
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def webhook_url(self) -> str:
        return f"{self.url}/webhooks/github"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8", "replace")

    def start(self) -> None:
        self.port = self.port or free_port()
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(COMMAND), "serve", "--port", str(self.port)],
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **self.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(lambda: self.is_ready(), "serve is ready", log=lambda: self.log, within_s=90)

    def is_ready(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"serve ended with {self.process.returncode}:\n{self.log}")
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> int:
        """SIGTERM, as `docker stop` sends it; the exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"serve did not end within 60 s of SIGTERM:\n{self.log}") from None

    def kill_worker(self) -> int:
        """SIGKILL the worker process; its pid."""
        workers = [pid for pid in self.children() if b"worker" in command_of(pid)]
        assert workers, f"no worker among the processes of serve:\n{self.log}"
        os.kill(workers[0], signal.SIGKILL)
        return workers[0]

    def children(self) -> list[int]:
        """Pids of all descendants."""
        assert self.process is not None
        found: list[int] = []
        pending = [self.process.pid]
        while pending:
            pid = pending.pop()
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                pids = [int(word) for word in task.read_text().split()]
                found += pids
                pending += pids
        return found

    def get(self, path: str) -> httpx.Response:
        """As somebody who has the token."""
        headers = {"authorization": f"Bearer {self.environment.get('API_TOKEN', API_TOKEN)}"}
        return httpx.get(f"{self.url}{path}", headers=headers, timeout=5, trust_env=False)

    def job(self, job: str) -> dict[str, object]:
        answer = self.get(f"/reviews/{job}")
        answer.raise_for_status()
        return dict(answer.json())

    def await_state(self, job: str, *states: str, within_s: float = 90) -> dict[str, object]:
        until(
            lambda: self.job(job)["state"] in states,
            f"job {job} is {' or '.join(states)}",
            log=lambda: f"{self.job(job)}\n{self.log}",
            within_s=within_s,
        )
        return self.job(job)


@contextmanager
def serving(folder: Path, environment: Mapping[str, str]) -> Iterator[Program]:
    """`serve` while the context lasts; it must end by SIGTERM with exit code 0."""
    folder.mkdir(parents=True, exist_ok=True)
    program = Program(folder, {"KIMI_REVIEW_HOME": str(folder / "home"), "API_TOKEN": API_TOKEN, **environment})
    try:
        program.start()
        yield program
    finally:
        code = program.stop()
    assert code == 0, f"serve ended with {code}:\n{program.log}"


def until(
    holds: Callable[[], bool],
    what: str,
    *,
    log: Callable[[], str] = lambda: "",
    within_s: float = 60,
    every_s: float = 0.1,
) -> None:
    """Wait until `holds`; fail with what was waited for and what the program said."""
    ends_at = time.monotonic() + within_s
    while time.monotonic() < ends_at:
        if holds():
            return
        time.sleep(every_s)
    raise AssertionError(f"after {within_s} s still not so: {what}\n{log()}")


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
