"""Jobs per second through one real worker process whose reviews cost nothing: what Celery, lease and records take."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.chaos.fleet import worker
from worker.core.change import ChangeRef
from worker.core.job import Intent, State
from worker.storage.connection import connect
from worker.storage.jobs import RedisJobs
from worker.storage.queue import CeleryWake, celery_app

THREADS = 16
"""WORKER_THREADS as shipped."""


def measure(url: str, folder: Path, *, jobs: int) -> dict[str, float]:
    """Review and publish `jobs` jobs with one unit each: 2 claims, 3 checkpoints, 2 messages and 4 moves a job."""
    environment = {
        "PIPELINE_REDIS_URL": url,
        "PIPELINE_THREADS": str(THREADS),
        "PIPELINE_LEASE_S": "15",
        "PIPELINE_UNITS": "1",
        "PIPELINE_UNIT_S": "0",
        "PYTHONPATH": str(Path.cwd()),
    }
    member = worker(0, folder=folder, environment=environment, app="tests.fakes.pipeline_worker")
    member.start()
    try:
        return asyncio.run(_dispatched(url, jobs))
    finally:
        member.end(timeout_s=30)


async def _dispatched(url: str, count: int) -> dict[str, float]:
    client = connect(url)
    try:
        jobs, wake = RedisJobs(client), CeleryWake(celery_app(url), client)
        await _accept(jobs, wake, range(1))
        await _all_done(jobs, 1)
        began = time.perf_counter()
        await _accept(jobs, wake, range(1, count + 1))
        await _all_done(jobs, count + 1)
        took_s = time.perf_counter() - began
        return {"jobs": count, "threads": THREADS, "jobs_per_second": round(count / took_s, 1)}
    finally:
        await client.aclose()


async def _accept(jobs: RedisJobs, wake: CeleryWake, numbers: range) -> None:
    for number in numbers:
        made = await jobs.accept(Intent(ChangeRef("github", f"acme/instant-{number}", 1), f"{number:040x}"))
        await wake.review(made.job, made.priority)


async def _all_done(jobs: RedisJobs, count: int) -> None:
    deadline = time.monotonic() + 600
    while (await jobs.counts())[State.DONE] < count:
        if time.monotonic() > deadline:
            raise RuntimeError("the worker does not keep up; its log is in the benchmark's folder")
        await asyncio.sleep(0.05)
