"""Two releases of the program at work on one Redis, as in a rolling upgrade: what one begins the other one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import redis

from tests.chaos.fleet import Member
from tests.fakes.github import TOKEN, GitHubServer
from tests.fakes.kimi import KEY, Fault, KimiServer
from tests.fakes.program import API_TOKEN, WEBHOOK_SECRET, free_port, until
from tests.upgrade.releases import Release

REPOSITORY = "acme/shop"
PREFIX = "{kimi-review}"
LEASE_S = 5
POSTS = r"/pulls/\d+/reviews$"
LINES = 40
"""Of a file, so that two of them are two units of the least size."""


@dataclass
class Crossing:
    """`url` is the one Redis; `logs` receives a file for each process."""

    github: GitHubServer
    kimi: KimiServer
    url: str
    logs: Path
    members: list[Member] = field(default_factory=list)

    # ------------------------------------------------------------------------------------ processes

    def start(self, role: str, release: Release, *options: str) -> Member:
        """Start a process of a release. Its working folder is empty: the packages come from the release alone."""
        name = f"{role}-{len(self.members)}-{release.name.replace(' ', '-')}"
        folder = self.logs / name
        folder.mkdir()
        member = Member(
            name,
            [sys.executable, "-m", "worker.cli", role, *options],
            {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(release.folder)}
            | {name: value for name, value in self._settings().items() if release.knows(name)},
            self.logs / f"{name}.log",
            folder=folder,
        )
        self.members.append(member)
        member.start()
        return member

    def worker(self, release: Release) -> Member:
        return self.start("worker", release)

    def api(self, release: Release) -> Api:
        port = free_port()
        return Api(self.start("api", release, "--port", str(port)), f"http://127.0.0.1:{port}")

    def command(self, release: Release, *arguments: str) -> str:
        """What a command of a release prints."""
        return self._run(release, "-m", "worker.cli", *arguments)

    def _run(self, release: Release, *arguments: str) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.logs), "PYTHONPATH": str(release.folder)}
        done = subprocess.run(
            [sys.executable, *arguments],
            env=environment | {name: value for name, value in self._settings().items() if release.knows(name)},
            cwd=self.logs,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def key(self, release: Release) -> str:
        """What a release makes of the settings in a job's key."""
        code = "from worker import settings; print(settings.load(role=settings.Role.QUERY).result_hash)"
        return self._run(release, "-c", code)

    def end(self, member: Member) -> None:
        """SIGTERM, as an upgrade sends it."""
        assert member.end(timeout_s=30), f"{member.name} did not end\n{self.said()}"

    def _settings(self) -> Mapping[str, str]:
        return {
            "REDIS_URL": self.url,
            "KIMI_REVIEW_HOME": str(self.logs / "home"),
            "API_LLM_PROVIDER_MODEL": "kimi-k2.6",
            "API_OPENAI_FORCE_BASE_URL": self.kimi.base_url,
            "API_OPEN_AI_API_KEY": KEY,
            "API_TOKEN": API_TOKEN,
            "GITHUB_TOKEN": TOKEN,
            "GITHUB_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "GITHUB_API_URL": self.github.api_url,
            "GITHUB_URL": self.github.git_url,
            "REVIEW_SETTLE_S": "0",
            "REVIEW_VERIFY": "false",
            "REVIEW_CHUNK_TOKENS": "1000",
            "JOB_LEASE_S": str(LEASE_S),
            "LOG_FORMAT": "json",
        }

    # --------------------------------------------------------------------------------- what is done

    def change(self, *, files: int = 1) -> int:
        """Open a change with one finding in each of its files, which are a unit each; its number."""
        bare = self.github.repository(REPOSITORY)
        mark = len(self.github.pulls)
        base = bare.commit({f"part{index}/module.py": "\n" for index in range(files)})
        written = {f"part{index}/module.py": _text(mark, index) for index in range(files)}
        return self.github.open_pull(REPOSITORY, head=bare.commit(written, parent=base), base=base)

    def deliver(self, api: Api, number: int, *, delivery: str = "", action: str = "opened") -> dict[str, Any]:
        url = f"{api.url}/webhooks/github"
        more = {"action": action, "delivery": delivery}
        answer = self.github.deliver(url, secret=WEBHOOK_SECRET, repository=REPOSITORY, number=number, **more)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    # --------------------------------------------------------------------------------- what is seen

    def await_(self, holds: Any, what: str, *, within_s: float = 40) -> None:
        until(holds, what, log=self.said, within_s=within_s)

    def record(self, job: str) -> dict[str, str]:
        """The fields of a job's record as they are stored."""
        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            return dict(client.hgetall(f"{PREFIX}:job:{job}"))

    def saved(self, job: str) -> list[str]:
        """The names of a job's checkpoints."""
        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            return [str(name) for name in client.hkeys(f"{PREFIX}:job:{job}:saved")]

    def units(self, job: str) -> int:
        return sum(name.startswith("unit:") for name in self.saved(job))

    def events(self, job: str) -> list[str]:
        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            return [str(line) for line in client.lrange(f"{PREFIX}:job:{job}:log", 0, -1)]

    def assert_one_review(self, number: int, *, comments: int = 1) -> None:
        """One visible review of the change's head, with a comment for each file, and nothing else."""
        reviews = self.github.reviews(REPOSITORY, number)
        assert len(reviews) == 1, f"{len(reviews)} reviews\n{self.said()}"
        assert reviews[0].commit == self.github.pull(REPOSITORY, number).head
        assert len(reviews[0].comments) == len({comment.path for comment in reviews[0].comments}) == comments
        assert self.github.notes(REPOSITORY, number) == []

    def said(self) -> str:
        """The end of every process's log."""
        logs = [f"--- {member.name}\n{member.log.read_text('utf-8', 'replace')[-4000:]}" for member in self.members]
        return "\n".join(logs)


@dataclass(frozen=True, slots=True)
class Api:
    """A running `api`."""

    member: Member
    url: str

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/livez", timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def job(self, job: str) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {API_TOKEN}"}
        answer = httpx.get(f"{self.url}/reviews/{job}", headers=headers, timeout=5, trust_env=False)
        answer.raise_for_status()
        return dict(answer.json())


@contextmanager
def crossing(folder: Path, url: str) -> Iterator[Crossing]:
    """Forge, model and logs under `folder`, over the Redis at `url`. All processes are ended with the context."""
    folder.mkdir(exist_ok=True)
    with GitHubServer(folder / "github") as github, KimiServer() as kimi:
        github.create(REPOSITORY)
        scene = Crossing(github, kimi, url, folder)
        try:
            yield scene
        finally:
            for member in scene.members:
                member.send(signal.SIGTERM)
            for member in scene.members:
                member.end(timeout_s=30)


def killed_between_units(scene: Crossing, begins: Release, goes_on: Release, *, plan_alike: bool = True) -> None:
    """One release answers deliveries of the other and dies over a review; the other one ends it, and works for it.

    In all: the api of each release stores jobs that workers of the other one do; a job that one began, with a
    checkpoint, the other one takes over; both tell the same of it. Releases that do not `plan_alike` cut a change into
    other units, and buy those.
    """
    api, other_api = scene.api(goes_on), scene.api(begins)
    victim = scene.worker(begins)
    large = scene.change(files=2)
    scene.kimi.script(Fault(), Fault(delay_s=120))
    scene.await_(lambda: api.is_ready() and other_api.is_ready(), "both apis answer")
    job = scene.deliver(api, large, delivery="first")["job"]
    scene.await_(lambda: scene.units(job) == 1 and len(scene.kimi.requests) == 2, "one is saved, the other asked for")
    before = scene.record(job)
    victim.kill()
    scene.worker(goes_on)
    # The same head again by way of the other api: no other job, unless the releases name jobs by other settings.
    again = scene.deliver(other_api, large, delivery="second", action="synchronize")
    if scene.key(begins) == scene.key(goes_on):
        assert (again["job"], again["state"], again["new"]) == (job, before["state"], False)
    job = again["job"]
    small = scene.change()
    other = scene.deliver(other_api, small)["job"]
    scene.await_(lambda: {one.job(job)["state"] for one in (api, other_api)} == {"done"}, "taken over and done")
    scene.await_(lambda: api.job(other)["state"] == "done", "the other api's job is done")
    scene.assert_one_review(large, comments=2)
    scene.assert_one_review(small)
    # Of the two units the one that was saved is not bought again.
    assert len(scene.kimi.requests) <= 3 + (1 if plan_alike else 2), scene.said()
    after = scene.record(job)
    told, other_told = api.job(job), other_api.job(job)
    assert all(told[name] == other_told[name] for name in told.keys() & other_told.keys())
    if after["id"] != before["id"]:
        return
    unknown = set(before) - KNOWN_FIELDS
    assert {name: after.get(name) for name in unknown} == {name: before[name] for name in unknown}
    assert str(scene.events(job)).count("attempt.died") == 1


def killed_over_a_post(scene: Crossing, begins: Release, goes_on: Release) -> None:
    """The forge has accepted a review and its answer is lost with the worker; one of the other release finds it."""
    api = scene.api(begins)
    victim = scene.worker(begins)
    number = scene.change()
    hangs = scene.github.fail("POST", POSTS, None, acts=True, hang_s=60)
    scene.await_(api.is_ready, "the api answers")
    job = scene.deliver(api, number)["job"]
    scene.await_(lambda: hangs.times == 0, "a post is under way")
    victim.kill()
    scene.worker(goes_on)
    scene.await_(lambda: api.job(job)["state"] == "done", "found and done")
    scene.assert_one_review(number)
    assert len(scene.kimi.requests) == 1


def left_until_upgraded(scene: Crossing, older: Release, newer: Release) -> None:
    """A release with another record version: older workers leave its jobs alone, say so, and do their own meanwhile."""
    api, newer_api = scene.api(older), scene.api(newer)
    victim = scene.worker(newer)
    begun = scene.change(files=2)
    scene.kimi.script(Fault(), Fault(delay_s=120))
    scene.await_(lambda: api.is_ready() and newer_api.is_ready(), "both apis answer")
    job = scene.deliver(api, begun)["job"]
    scene.await_(lambda: scene.units(job) == 1 and len(scene.kimi.requests) == 2, "one is saved, the other asked for")
    assert scene.record(job)["version"] == "2"
    victim.kill()

    old = scene.worker(older)
    ours, theirs = scene.change(), scene.change()
    small, new = scene.deliver(api, ours)["job"], scene.deliver(newer_api, theirs)["job"]
    scene.await_(lambda: api.job(small)["state"] == "done", "the older release does its own work")
    # Both are looked at more than once, and nothing counts against them.
    for left in (job, new):
        scene.await_(lambda left=left: int(scene.record(left).get("left_times", 0)) >= 2, "left twice")
        told = api.job(left)
        assert told["attempt"] == (1 if left == job else 0)
        assert "upgrade the workers" in told["reason"]
        assert sum("job.left" in line for line in scene.events(left)) <= 2
        assert scene.record(left)["deaths"] == "0"
    said = scene.command(older, "why", job)
    assert "upgrade the workers" in " ".join(said.split())
    assert "2 jobs wait for a worker of a newer version" in " ".join(scene.command(older, "jobs").split())
    scene.end(old)

    scene.worker(newer)
    for one in (job, small, new):
        scene.await_(lambda one=one: api.job(one)["state"] == "done", f"{one} is done", within_s=100)
    scene.assert_one_review(begun, comments=2)
    scene.assert_one_review(ours)
    scene.assert_one_review(theirs)
    assert len(scene.kimi.requests) <= 4 + 1
    with redis.Redis.from_url(scene.url) as client:
        assert client.zcard(f"{PREFIX}:left") == 0


KNOWN_FIELDS = frozenset(
    {
        "version", "id", "forge", "repository", "number", "head", "priority", "settings_hash", "stage", "forced",
        "attempt", "deaths", "generation", "not_before", "created_at", "updated_at", "state", "reason",
        "superseded_by", "token", "worker", "nonce", "lease_until", "left", "left_at", "left_times", "left_by",
    }
)  # fmt: skip
"""Fields of the record in every release so far: what changes in the course of a job."""


def _text(mark: int, index: int) -> str:
    lines = [f"value_{number} = {number * 7919 + mark}  # of part {index}" for number in range(LINES)]
    lines[LINES // 2] = f"def total_{index}_{mark}(items, seen=[]): return items"
    return "\n".join(lines) + "\n"
