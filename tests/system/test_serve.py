"""`kimi-review serve` as a process: ready when all of it works, whole again after a kill, gone when told."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from worker.storage.embedded import start

ROOT = Path(__file__).parents[2]
SECRET = "f3b1a7c95d2e4860b9c1d7e2"
KEY = "sk-planted0123456789abcdef"


@dataclass
class Service:
    """One `serve` with a folder, a home and a log of its own."""

    folder: Path
    process: subprocess.Popen[bytes]
    url: str = ""

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8")

    @property
    def worker(self) -> int:
        """The worker's process id, as the log tells it last."""
        lines = [line for line in self.log.splitlines() if "process.started process=worker" in line]
        return int(lines[-1].rpartition("pid=")[2])

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


def launch(folder: Path, **environment: str) -> Service:
    home = folder / "home"
    given = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "KIMI_REVIEW_HOME": str(home),
        "API_OPENAI_FORCE_BASE_URL": "http://127.0.0.1:9/v1",
        "API_OPEN_AI_API_KEY": KEY,
        "GITHUB_TOKEN": "ghp_planted0123456789",
        "GITHUB_WEBHOOK_SECRET": SECRET,
        "GITHUB_API_URL": "http://127.0.0.1:9",
        "GITHUB_URL": "http://127.0.0.1:9",
    }
    command = [sys.executable, "-m", "worker.cli", "serve", "--port", "0", "--port-file", str(folder / "port")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=given | environment, stdout=log, stderr=log)
    return Service(folder, process)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    running = launch(tmp_path)
    port = tmp_path / "port"
    until(lambda: port.exists() and port.read_text() != "", running)
    running.url = f"http://127.0.0.1:{port.read_text()}"
    until(running.is_ready, running)
    yield running
    running.process.terminate()
    running.process.wait(30)
    with start(tmp_path / "home"):
        pass  # whoever attaches last stops the embedded Redis of a service that was killed


def until(holds: Callable[[], bool], service: Service, *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, service.log
        time.sleep(0.05)


def is_gone(pid: int) -> bool:
    """Whether the process ended; one that waits for its parent to notice has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_it_says_which_provider_and_model_it_uses_and_never_a_secret(service: Service) -> None:
    lines = [line for line in service.log.splitlines() if "provider=" in line]
    assert len(lines) >= 2, "api and worker say it each"
    assert all("model=kimi-k2.6" in line and "host=127.0.0.1" in line for line in lines)
    for secret in (KEY, SECRET, "ghp_planted0123456789"):
        assert secret not in service.log


def test_a_killed_worker_comes_back_and_the_service_is_not_ready_meanwhile(service: Service) -> None:
    killed = service.worker
    os.kill(killed, signal.SIGKILL)
    until(lambda: not service.is_ready(), service)
    until(service.is_ready, service)
    assert service.worker != killed
    assert service.process.poll() is None


def test_told_to_end_it_ends_with_0_and_leaves_no_process(service: Service) -> None:
    worker = service.worker
    service.process.terminate()
    assert service.process.wait(30) == 0
    assert is_gone(worker)
    assert "Traceback" not in service.log
    assert f"service.ready url={service.url}/" in service.log
    for line in service.log.splitlines():
        # Celery, kombu and the HTTP server say nothing beside our events.
        assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z (info   |warning|error  ) [a-z]+\.[a-z_]+( |$)", line), line


def test_a_worker_does_not_outlive_a_killed_service(service: Service) -> None:
    worker = service.worker
    service.process.kill()
    service.process.wait(10)
    until(lambda: is_gone(worker), service, seconds=15)


def test_a_port_that_is_taken_ends_it_with_78_and_the_settings_name(service: Service, tmp_path: Path) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    port = service.url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "worker.cli", "serve", "--port", port],
        cwd=folder,
        env=os.environ | {
            "KIMI_REVIEW_HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            "API_OPENAI_FORCE_BASE_URL": "http://127.0.0.1:9/v1",
            "GITHUB_TOKEN": "ghp_planted0123456789",
            "GITHUB_WEBHOOK_SECRET": SECRET,
        },
        capture_output=True,
        timeout=30,
        check=False,
    )  # fmt: skip
    assert done.returncode == 78
    assert b"API_PORT" in done.stderr
