"""The whole pipeline within the test's process: real settings, wiring, Redis, git and HTTP; only waiting is shortened.

A job goes through what a worker does with a message (`WorkerProcess.run`), so that a fault costs a test a second and
not the start of a process.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import redis
import structlog

from tests.fakes.github import TOKEN, GitHubServer
from tests.fakes.kimi import KEY, KimiServer
from tests.fakes.program import WEBHOOK_SECRET
from worker import logs
from worker.bootstrap import Installation, Services
from worker.core.change import ChangeRef
from worker.core.job import Intent, Job, Priority, Stage
from worker.process import WorkerProcess
from worker.review.upkeep import Upkeep
from worker.settings import Role, Settings, load
from worker.storage.connection import PREFIX

T = TypeVar("T")
REPOSITORY = "acme/shop"
BASE = "def total(items):\n    return sum(items)\n"


class HurriedClock:
    """Real time, but a wait takes at most `most_s`; what was not waited for is added to the time that is told."""

    def __init__(self, *, most_s: float = 0.01, ahead_s: float = 0.0) -> None:
        self._most_s = most_s
        self._ahead_s = ahead_s
        self._loop_s = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._ahead_s + self._loop_s)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() + self._loop_s

    async def sleep(self, seconds: float) -> None:
        self._loop_s += max(0.0, seconds - self._most_s)
        await asyncio.sleep(min(seconds, self._most_s))


@dataclass
class Workshop:
    """One worker without a process of its own, and the servers that it speaks to."""

    github: GitHubServer
    kimi: KimiServer
    installation: Installation
    told: io.StringIO = field(repr=False)

    @property
    def log(self) -> str:
        return self.told.getvalue()

    def change(self, text: str = BASE + "    # eval(x)\n", *, files: Mapping[str, str] | None = None) -> int:
        """Open a change of one file, or of `files`; its number."""
        repository = self.github.repository(REPOSITORY)
        base = repository.commit({"shop.py": BASE})
        head = repository.commit(files or {"shop.py": text}, parent=base)
        return self.github.open_pull(REPOSITORY, head=head, base=base)

    def push(self, number: int, text: str) -> str:
        """A newer head, of which no delivery tells."""
        pull = self.github.pull(REPOSITORY, number)
        head = self.github.repository(REPOSITORY).commit({"shop.py": text}, parent=pull.head)
        self.github.push(REPOSITORY, number, head)
        return head

    def accept(self, number: int, *, priority: Priority = Priority.INTERACTIVE) -> str:
        """What a delivery leaves behind: a stored job; its id."""
        settings = self.installation.settings
        head = self.github.pull(REPOSITORY, number).head
        intent = Intent(
            ChangeRef("github", REPOSITORY, number), head, priority=priority, settings_hash=settings.result_hash
        )

        async def accepted(services: Services) -> str:
            return (await services.jobs.accept(intent)).job

        return self.within(accepted)

    def work(self, job: str) -> Job:
        """What a worker does with the next message for `job`; the job afterwards."""
        self.due(job)
        found = self.job(job)
        stage = Stage.PUBLISH if found.state in ("reviewed", "publishing") else Stage.REVIEW
        WorkerProcess(self.installation.services).run(job, stage)
        return self.job(job)

    def settle(self, job: str, *, at_most: int = 8) -> Job:
        """Work on until the job has an end or is deferred; every wait between attempts is over at once."""
        for _ in range(at_most):
            found = self.work(job)
            if found.state.is_final or found.state == "deferred":
                return found
        raise AssertionError(f"not settled after {at_most} messages: {self.job(job)}\n{self.log}")

    def due(self, job: str) -> None:
        """Its time to be tried again has come."""
        with redis.Redis.from_url(self.installation.redis_url) as client:
            if client.exists(f"{PREFIX}:job:{job}"):
                client.hset(f"{PREFIX}:job:{job}", "not_before", "0")

    def job(self, job: str) -> Job:
        async def found(services: Services) -> Job:
            record = await services.jobs.get(job)
            assert record is not None
            return record

        return self.within(found)

    def decisions(self, job: str) -> list[str]:
        async def found(services: Services) -> list[str]:
            return [f"{line.event} {line.detail}" for line in await services.jobs.decisions(job)]

        return self.within(found)

    def keep_up(self) -> None:
        """One tick of the timer's work: wakes what is due and tells changes of their dead letters."""

        async def ticked(services: Services) -> None:
            upkeep = Upkeep(
                jobs=services.jobs, wake=services.wake, clock=services.clock, who="test", tell=services.tell
            )
            await upkeep.tick()

        self.within(ticked)

    def reconcile(self) -> None:
        """Ask the forge for open changes that nobody reviewed."""

        async def asked(services: Services) -> None:
            await services.reconcile()

        self.within(asked)

    def within(self, story: Callable[[Services], Awaitable[T]]) -> T:
        async def told() -> T:
            async with self.installation.services() as services:
                return await story(services)

        return asyncio.run(told())


@contextmanager
def workshop(
    folder: Path, redis_url: str, *, kimi: KimiServer | None = None, ahead_s: float = 0.0, **environment: str
) -> Iterator[Workshop]:
    """A GitHub with one repository, a Kimi, and an installation over both. `ahead_s`: how wrong our own clock is."""
    with GitHubServer(folder / "github") as github, kimi or KimiServer() as served:
        github.create(REPOSITORY)
        given = {
            "REDIS_URL": redis_url,
            "KIMI_REVIEW_HOME": str(folder / "home"),
            "API_LLM_PROVIDER_MODEL": "kimi-k2.6",
            "API_OPENAI_FORCE_BASE_URL": served.base_url,
            "API_OPEN_AI_API_KEY": KEY,
            "GITHUB_TOKEN": TOKEN,
            "GITHUB_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "GITHUB_API_URL": github.api_url,
            "GITHUB_URL": github.git_url,
            "REVIEW_VERIFY": "false",
        }
        settings = load(given | environment, role=Role.WORKER, dotenv=None)
        with logging_to(io.StringIO(), settings) as told:
            clock = HurriedClock(ahead_s=ahead_s)
            yield Workshop(github, served, Installation(settings, redis_url, clock=clock), told)


@contextmanager
def logging_to(told: io.StringIO, settings: Settings) -> Iterator[io.StringIO]:
    """The program's own log, in a text of its own; afterwards everything logs as before."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure("json", "info", secrets=settings.secrets(), stream=told)
    try:
        yield told
    finally:
        logging.captureWarnings(False)
        structlog.reset_defaults()
        root.handlers[:] = handlers
        root.setLevel(level)
