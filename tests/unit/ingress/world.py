"""A site over small true things: signed with HMAC, stored in a dictionary."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import httpx
from pydantic import SecretStr
from starlette.applications import Starlette

from worker.core.change import ChangeRef
from worker.core.delivery import Delivery, Ignored
from worker.core.errors import Unreachable
from worker.core.job import Accepted, Decision, Intent, Job, Priority, State
from worker.forges.github import webhook as github
from worker.ingress.app import create_app
from worker.ingress.body import BodyReader
from worker.ingress.site import Site
from worker.ingress.vitals import Vitals
from worker.ports import Jobs

SECRET = "f3b1a7c95d2e4860b9c1d7e2"
TOKEN = "b7e1f0a2c3d4e5f60718293a"
HEAD = "a" * 40


class GitHubWebhook:
    """GitHub's own module with a secret bound to it; counts what was parsed."""

    def __init__(self) -> None:
        self.parsed = 0

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        github.verify(headers, body, secret=SECRET)

    def parse(self, headers: Mapping[str, str], body: bytes) -> Delivery | Ignored:
        self.parsed += 1
        return github.parse(headers, body)


@dataclass
class Store:
    """Job records in a dictionary, in the order they came; `down` plays a Redis that is away."""

    jobs: dict[str, Job] = field(default_factory=dict)
    log: dict[str, list[Decision]] = field(default_factory=dict)
    down: Callable[[], Awaitable[None]] | None = None

    async def _reach(self) -> None:
        if self.down is not None:
            await self.down()

    async def accept(self, intent: Intent) -> Accepted:
        await self._reach()
        job_id = hashlib.sha256(f"{intent.ref}@{intent.head}".encode()).hexdigest()[:16]
        is_new = job_id not in self.jobs
        if is_new:
            self.jobs[job_id] = Job(job_id, intent.ref, intent.head, intent.priority, State.QUEUED)
            self.log[job_id] = [Decision(1.0, "job.accepted", "from a test")]
        return Accepted(job_id, self.jobs[job_id].state, is_new)

    async def get(self, job_id: str) -> Job | None:
        await self._reach()
        return self.jobs.get(job_id)

    async def decisions(self, job_id: str) -> Sequence[Decision]:
        await self._reach()
        return self.log.get(job_id, [])

    async def list(self, *, states: Sequence[State] = (), limit: int = 100) -> Sequence[Job]:
        await self._reach()
        return [job for job in reversed(self.jobs.values()) if not states or job.state in states][:limit]

    async def counts(self) -> Mapping[State, int]:
        await self._reach()
        return Counter(job.state for job in self.jobs.values())

    async def left(self) -> int:
        await self._reach()
        return sum(job.is_left for job in self.jobs.values())

    async def paused(self) -> str:
        return ""


async def refuse_connection() -> None:
    raise Unreachable("Redis at redis:6379 refused the connection.")


@dataclass
class World:
    """The site under test and what stands behind it."""

    store: Store = field(default_factory=Store)
    webhook: GitHubWebhook = field(default_factory=GitHubWebhook)
    checks: dict[str, Callable[[], Awaitable[str]]] = field(default_factory=dict)
    api_token: SecretStr | None = field(default_factory=lambda: SecretStr(TOKEN))
    reader: BodyReader | None = None
    vitals: Vitals | None = None

    @property
    def site(self) -> Site:
        async def accept(delivery: Delivery) -> Accepted | Ignored:
            return await self.store.accept(Intent(ref=delivery.ref, head=delivery.head, delivery=delivery.id))

        return Site(
            webhooks={"github": self.webhook},
            accept=accept,
            request=self.store.accept,
            jobs=cast("Jobs", self.store),
            api_token=self.api_token,
            provider={"provider": "moonshot", "model": "kimi-k2.6", "host": "api.moonshot.ai"},
            checks=self.checks,
            vitals=self._look if self.vitals is not None else None,
        )

    async def _look(self) -> Vitals:
        assert self.vitals is not None
        return self.vitals

    def app(self) -> Starlette:
        return create_app(self.site, reader=self.reader)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app()), base_url="http://api")

    def add(self, job_id: str, **changes: object) -> None:
        job = Job(job_id, ChangeRef("github", "acme/api", 7), HEAD, Priority.INTERACTIVE, State.QUEUED)
        self.store.jobs[job_id] = replace(job, **changes)  # type: ignore[arg-type]  # fields by name


def payload(**changes: object) -> dict[str, object]:
    """A `pull_request` payload as GitHub sends it, cut to what matters."""
    user = {"login": "mona", "type": "User", "id": 1}
    repository = {"full_name": "acme/api", "id": 5, "fork": False}
    return {
        "action": "opened",
        "number": 7,
        "pull_request": {
            "number": 7,
            "state": "open",
            "draft": False,
            "user": user,
            "head": {"sha": HEAD, "ref": "topic", "repo": repository},
            "base": {"sha": "b" * 40, "ref": "main", "repo": repository},
        },
        "repository": repository,
        "sender": user,
    } | changes


def signed(body: bytes, *, event: str = "pull_request", delivery: str = "d-1") -> dict[str, str]:
    return {
        "x-github-event": event,
        "x-github-delivery": delivery,
        "x-hub-signature-256": "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(),
        "content-type": "application/json",
    }


def body_of(value: object) -> bytes:
    return json.dumps(value).encode()
