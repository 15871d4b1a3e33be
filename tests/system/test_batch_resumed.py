"""`batch` ended half-way and begun again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from tests.fakes.github import TOKEN, GitHubServer
from tests.fakes.github_records import Pull
from tests.fakes.kimi import KEY
from tests.fakes.relay import Relay, relaying
from tests.fakes.shell import ROOT, Shell
from worker.storage.connection import PREFIX
from worker.storage.embedded import EmbeddedRedis

REPOSITORY = "acme/shop"
CHANGES = 40


@dataclass
class Desk:
    """Somebody who queues a batch; no worker runs."""

    github: GitHubServer
    folder: Path
    store: redis.Redis
    environment: dict[str, str]

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return Shell(self.folder, self.folder / "home", self.environment)(*arguments, **environment)

    def queued(self) -> int:
        return int(self.store.zcard(f"{PREFIX}:state:queued"))  # type: ignore[arg-type]

    def begun(self, relay: Relay, *, until_queued: int) -> subprocess.Popen[bytes]:
        """`batch changes --yes` at work, and held once so many changes are queued."""
        relay.holds = lambda: self.queued() >= until_queued
        own = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, "-m", "worker.cli", "batch", "changes", "--yes"],
            cwd=self.folder,
            env=own
            | self.environment
            | {"KIMI_REVIEW_HOME": str(self.folder / "home"), "REDIS_URL": f"redis://127.0.0.1:{relay.port}/0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        give_up_at = time.monotonic() + 30
        while self.queued() < until_queued and process.poll() is None and time.monotonic() < give_up_at:
            time.sleep(0.01)
        return process


@pytest.fixture
def desk(tmp_path: Path, redis_server: EmbeddedRedis, redis_url: str) -> Iterator[Desk]:
    with GitHubServer(tmp_path / "github") as github, redis.Redis(unix_socket_path=str(redis_server.socket)) as store:
        bare = github.create(REPOSITORY)
        base = bare.commit({"shop.py": "x = 1\n"})
        head = bare.commit({"shop.py": "x = 2\n"}, parent=base)
        for number in range(1, CHANGES + 1):
            github.pulls[REPOSITORY, number] = Pull(REPOSITORY, number, [head], base)
        environment = {
            "API_LLM_PROVIDER_MODEL": "kimi-k2.6",
            "API_OPEN_AI_API_KEY": KEY,
            "GITHUB_TOKEN": TOKEN,
            "GITHUB_API_URL": github.api_url,
            "GITHUB_URL": github.git_url,
            "REDIS_URL": redis_url,
        }
        yield Desk(github, tmp_path, store, environment)


def test_a_batch_killed_interrupted_or_cut_off_half_way_is_taken_up_where_it_stopped(
    desk: Desk, redis_server: EmbeddedRedis
) -> None:
    (desk.folder / "changes").write_text("".join(f"{REPOSITORY}#{n}\n" for n in range(1, CHANGES + 1)))
    with relaying(redis_server.socket) as relay:
        for wanted, end in ((5, "killed"), (12, "interrupted"), (20, "cut off")):
            process = desk.begun(relay, until_queued=wanted)
            if end == "cut off":
                relay.cut()
            else:
                process.send_signal(signal.SIGKILL if end == "killed" else signal.SIGINT)
            _, said = process.communicate(timeout=30)
            relay.holds = lambda: False
            assert wanted <= desk.queued() < CHANGES, (end, said)
            assert process.returncode == {"killed": -signal.SIGKILL, "interrupted": 130, "cut off": 4}[end], said
            if end != "killed":
                assert b"give the same command again" in said
                assert len(said.splitlines()) == (1 if end == "interrupted" else 2)
    before = desk.queued()
    done = desk("batch", "changes", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{CHANGES - before} to review, {before} with a job already." in done.stdout
    assert f"{CHANGES - before} queued." in done.stdout
    jobs = json.loads(desk("batch", "status", "--json").stdout)
    assert sorted(job["number"] for job in jobs["jobs"]) == list(range(1, CHANGES + 1))
    assert jobs["counts"]["queued"] == CHANGES
