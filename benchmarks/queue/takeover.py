"""How long a job waits after kill -9 of its worker, with the lease as shipped and a queue that is never empty.

    python -m benchmarks.queue.takeover [--kills 12]

Three worker processes do jobs without forge and model (`tests/fakes/pipeline.py`). One at a time is killed while it
holds jobs, and started again at once; the log of decisions says when another worker had them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.fleet import Member, worker
from worker.core.change import ChangeRef
from worker.core.job import Intent, State
from worker.settings import ServiceSettings
from worker.storage.connection import connect
from worker.storage.embedded import start
from worker.storage.jobs import RedisJobs
from worker.storage.queue import CeleryWake, celery_app

WORKERS = 3
THREADS = 4
WAITING = 300
"""Jobs that stand in the queue all the time."""
UNIT_S = 1.0
AFTER_KILL_S = 25.0


async def measured(url: str, workers: list[Member], *, kills: int, seed: int) -> dict[str, object]:
    dice = random.Random(seed)
    client = connect(url)
    jobs, wake = RedisJobs(client), CeleryWake(celery_app(url), client)
    numbers = iter(range(10**9))
    killed_at: dict[int, float] = {}
    held: dict[str, float] = {}
    try:
        for _ in range(kills):
            await fill(jobs, wake, numbers)
            running = await wait_for_work(jobs)
            victim = dice.choice(workers)
            process = victim.process
            if process is None:
                raise RuntimeError(f"{victim.name} does not run")
            victim.kill()
            killed_at[process] = victim.kills[-1][1]
            victim.start()
            held |= dict.fromkeys(running, killed_at[process])
            ends_at = time.monotonic() + AFTER_KILL_S * dice.uniform(0.8, 1.2)
            while time.monotonic() < ends_at:
                await fill(jobs, wake, numbers)
                await asyncio.sleep(1)
        waited = [seconds for job in held for seconds in await takeovers(jobs, job, killed_at)]
        open_jobs = [job for job in held if (found := await jobs.get(job)) and found.state is State.RUNNING]
    finally:
        await client.aclose()
    return {
        "lease_s": ServiceSettings.model_fields["job_lease_s"].default,
        "kills": len(killed_at),
        "jobs_taken_over": len(waited),
        "median_s": round(statistics.median(waited), 1),
        "slowest_s": round(max(waited), 1),
        "still_running": len(open_jobs),
    }


async def fill(jobs: RedisJobs, wake: CeleryWake, numbers: Iterator[int]) -> None:
    """Keep `WAITING` jobs queued, of many repositories so that none counts as a crowd."""
    for _ in range(WAITING - (await jobs.counts())[State.QUEUED]):
        number = next(numbers)
        ref = ChangeRef("github", f"acme/shop-{number}", 1)
        made = await jobs.accept(Intent(ref, f"{number:040x}"))
        await wake.review(made.job, made.priority)


async def wait_for_work(jobs: RedisJobs) -> list[str]:
    """The jobs that run once all threads are busy."""
    while True:
        running = [job.id for job in await jobs.list(states=[State.RUNNING])]
        if len(running) >= WORKERS * THREADS:
            return running
        await asyncio.sleep(0.1)


async def takeovers(jobs: RedisJobs, job: str, killed_at: dict[int, float]) -> list[float]:
    """Seconds from the kill of the process that had `job` to the next claim."""
    found: list[float] = []
    for line in await jobs.decisions(job):
        died = re.search(r"by \S+?-(\d+)-\w+ ended without a word", line.detail)
        if line.event == "attempt.died" and died and int(died[1]) in killed_at:
            found.append(line.at - killed_at[int(died[1])])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="takeover-") as home, start(Path(home)) as server:
        environment = {
            "PIPELINE_REDIS_URL": server.url,
            "PIPELINE_LEASE_S": str(ServiceSettings.model_fields["job_lease_s"].default),
            "PIPELINE_THREADS": str(THREADS),
            "PIPELINE_UNITS": "8",
            "PIPELINE_UNIT_S": str(UNIT_S),
            "PYTHONPATH": str(Path.cwd()),
        }
        workers = [
            worker(n, folder=Path(home), environment=environment, app="tests.fakes.pipeline_worker")
            for n in range(WORKERS)
        ]
        for member in workers:
            member.start()
        try:
            print(json.dumps(asyncio.run(measured(server.url, workers, kills=given.kills, seed=given.seed)), indent=1))
        finally:
            for member in workers:
                member.end(timeout_s=20)


if __name__ == "__main__":
    main()
