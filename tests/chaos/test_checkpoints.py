"""SIGKILL on both sides of every checkpoint of a job: exactly one visible review each time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.chaos.fleet import worker
from tests.chaos.killing import STRUCK
from tests.chaos.storm import SECRET, line_of, text_of
from tests.fakes.github import TOKEN, GitHubServer
from tests.fakes.kimi import KEY, KimiServer
from worker.core.change import ChangeRef
from worker.core.job import Intent, Priority, State
from worker.storage.connection import connect
from worker.storage.embedded import EmbeddedRedis
from worker.storage.jobs import RedisJobs
from worker.storage.queue import CeleryWake, celery_app

POINTS = (
    "after:claim:running",
    "before:save:unit",
    "after:save:unit",
    "before:save:report",
    "after:save:report",
    "before:release:reviewed",
    "after:release:reviewed",
    "after:claim:publishing",
    "before:save:posted",
    "after:save:posted",
    "before:advance:done",
    "after:advance:done",
)
REPOSITORY = "acme/shop"
LEASE_S = 5.0


@pytest.mark.chaos
def test_a_worker_killed_on_either_side_of_each_checkpoint_leaves_one_review_per_change(
    tmp_path: Path, redis_server: EmbeddedRedis, redis_url: str
) -> None:
    with GitHubServer(tmp_path / "github") as github, KimiServer() as kimi:
        base = github.create(REPOSITORY).commit({"app.py": text_of(None, 0)})
        for index in range(len(POINTS)):
            head = github.repository(REPOSITORY).commit({"app.py": text_of(index, 0)}, parent=base)
            github.open_pull(REPOSITORY, head=head, base=base)
        environment = {
            "REDIS_URL": redis_url,
            "KIMI_REVIEW_HOME": str(tmp_path / "state"),
            "API_LLM_PROVIDER_MODEL": "kimi-k2.6",
            "API_OPENAI_FORCE_BASE_URL": kimi.base_url,
            "API_OPEN_AI_API_KEY": KEY,
            "GITHUB_TOKEN": TOKEN,
            "GITHUB_WEBHOOK_SECRET": SECRET,
            "GITHUB_API_URL": github.api_url,
            "GITHUB_URL": github.git_url,
            "REVIEW_VERIFY": "false",
            "JOB_LEASE_S": str(LEASE_S),
            # One job at a time: a kill then strikes the job whose checkpoint it is.
            "WORKER_THREADS": "1",
            "LOG_FORMAT": "json",
            "PYTHONPATH": str(Path.cwd()),
            "CHAOS_POINTS": " ".join(POINTS),
        }
        victim = worker(1, folder=tmp_path, environment=environment, app="tests.chaos.killing_worker")
        try:
            asyncio.run(reviewed(redis_url, github, victim.start))
        finally:
            victim.end(timeout_s=30)
        for number in range(1, len(POINTS) + 1):
            [review] = github.reviews(REPOSITORY, number)
            assert review.commit == github.pull(REPOSITORY, number).head
            assert [comment.line for comment in review.comments] == [line_of(0)]
        # A unit is bought again only where its worker died between the answer and the checkpoint.
        assert len(kimi.requests) <= len(POINTS) + 1


async def reviewed(url: str, github: GitHubServer, keep_alive: object) -> None:
    """Accept all changes and keep a worker alive until every job is done."""
    assert callable(keep_alive)
    client = connect(url)
    try:
        jobs, wake = RedisJobs(client, lease_s=LEASE_S), CeleryWake(celery_app(url), client)
        for (repository, number), pull in github.pulls.items():
            made = await jobs.accept(Intent(ChangeRef("github", repository, number), pull.head))
            await wake.review(made.job, Priority.INTERACTIVE)
        deadline = time.monotonic() + 300
        while (await jobs.counts())[State.DONE] < len(POINTS):
            assert time.monotonic() < deadline, [(job.state, job.reason) for job in await jobs.list()]
            keep_alive()
            await asyncio.sleep(0.1)
        struck = await client.smembers(STRUCK)
        assert {point.decode() if isinstance(point, bytes) else point for point in struck} == set(POINTS)
    finally:
        await client.aclose()
