"""`make bench-queue`: deliveries through the api, jobs through a worker, what a job costs, and whether it stays flat.

Prints one JSON object. The figures are of this machine, with `appendfsync always`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

import redis.asyncio

from benchmarks.queue import deliveries, dispatch
from worker.core.change import ChangeRef
from worker.core.job import Claim, Intent, Priority, State
from worker.storage.connection import connect
from worker.storage.embedded import start
from worker.storage.jobs import RedisJobs
from worker.storage.queue import CeleryWake, celery_app

AT_ONCE = 16


async def accepted(jobs: RedisJobs, numbers: range, *, wake: CeleryWake | None = None) -> dict[str, float]:
    """Accept one delivery for each number, `AT_ONCE` at a time; per second, and the slowest per cent."""
    took_s: list[float] = []
    waiting = iter(numbers)

    async def deliver() -> None:
        for number in waiting:
            began = time.perf_counter()
            ref = ChangeRef("github", f"acme/shop-{number % 50}", number)
            made = await jobs.accept(Intent(ref, f"{number:040x}", delivery=f"d{number}", settings_hash="s"))
            if wake is not None:
                await wake.review(made.job, Priority.INTERACTIVE)
            took_s.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(deliver() for _ in range(AT_ONCE)))
    total_s = time.perf_counter() - began
    return {
        "per_second": round(len(took_s) / total_s),
        "p50_ms": round(statistics.median(took_s) * 1000, 2),
        "p99_ms": round(statistics.quantiles(took_s, n=100)[98] * 1000, 2),
    }


async def life(jobs: RedisJobs, client: redis.asyncio.Redis, number: int) -> dict[str, float]:
    """Commands and bytes of one job from acceptance to its end, with a plan, eight units and a report."""
    await client.config_resetstat()
    ref = ChangeRef("github", "acme/life", number)
    made = await jobs.accept(Intent(ref, f"{number:040x}", delivery=f"l{number}"))
    claim = await jobs.claim(made.job, worker="bench", states=[State.QUEUED])
    if not isinstance(claim, Claim):
        raise TypeError(claim.reason)
    for unit in range(8):
        await jobs.save(claim, f"unit:{unit}", b"x" * 1000)
        await jobs.is_current(claim)
    await jobs.save(claim, "report", b"x" * 4000)
    await jobs.release(claim, State.REVIEWED, reason="the report is stored")
    claim = await jobs.claim(made.job, worker="bench", states=[State.REVIEWED])
    if not isinstance(claim, Claim):
        raise TypeError(claim.reason)
    await jobs.load(made.job)
    await jobs.renew(claim)
    await jobs.is_current(claim)
    await jobs.save(claim, "posted", b"x" * 200)
    await jobs.advance(claim, State.DONE, reason="posted")
    ran = sum(int(row["calls"]) for row in (await client.info("commandstats")).values())
    sent = int((await client.info("commandstats"))["cmdstat_evalsha"]["calls"]) + 1
    taken = 0
    for pattern in (f"*:job:{made.job}*", f"*:change:{ref}*", f"*:delivery:github:l{number}"):
        async for key in client.scan_iter(match=pattern):
            taken += int(await client.memory_usage(key, samples=0) or 0)
    checkpoints = int(await client.memory_usage(f"{{kimi-review}}:job:{made.job}:saved", samples=0) or 0)
    return {
        "commands_sent": sent,
        "commands_run_by_scripts": ran - sent,
        "bytes_of_record": taken - checkpoints,
        "bytes_of_checkpoints": checkpoints,
    }


async def used(client: redis.asyncio.Redis) -> int:
    return int((await client.info("memory"))["used_memory"])


async def growth(jobs: RedisJobs, client: redis.asyncio.Redis, sizes: list[int]) -> list[dict[str, float]]:
    """What accepting, a claim and a tick of upkeep cost as the queue grows."""
    rows: list[dict[str, float]] = []
    queued = 0
    for size in sizes:
        before = await used(client)
        filled = await accepted(jobs, range(queued, size))
        bytes_each = (await used(client) - before) / (size - queued)
        probe = await accepted(jobs, range(10**7 + size, 10**7 + size + 500))
        began = time.perf_counter()
        for _ in range(20):
            await jobs.due(Priority.INTERACTIVE, limit=200, again_s=10)
        tick_ms = (time.perf_counter() - began) / 20 * 1000
        claims: list[float] = []
        for job in await jobs.list(states=[State.QUEUED], limit=200):
            began = time.perf_counter()
            claim = await jobs.claim(job.id, worker="bench", states=[State.QUEUED])
            claims.append(time.perf_counter() - began)
            if isinstance(claim, Claim):
                await jobs.hand_back(claim, reason="bench")
        rows.append(
            {
                "queued": size,
                "filled_per_second": filled["per_second"],
                "accept_p50_ms": probe["p50_ms"],
                "accept_p99_ms": probe["p99_ms"],
                "claim_p50_ms": round(statistics.median(claims) * 1000, 2),
                "upkeep_due_ms": round(tick_ms, 2),
                "bytes_per_queued_job": round(bytes_each),
            }
        )
        queued = size
    return rows


async def store(url: str) -> dict[str, object]:
    """Acceptance without HTTP, and one job's whole life."""
    client = connect(url)
    try:
        jobs = RedisJobs(client)
        wake = CeleryWake(celery_app(url), client)
        return {
            "accept": await accepted(jobs, range(2 * 10**7, 2 * 10**7 + 3000)),
            "accept_and_wake": await accepted(jobs, range(3 * 10**7, 3 * 10**7 + 3000), wake=wake),
            "one_job": await life(jobs, client, 1),
        }
    finally:
        await client.aclose()


async def grown(url: str, sizes: list[int]) -> list[dict[str, float]]:
    """`growth` over a server that holds nothing yet."""
    client = connect(url)
    try:
        return await growth(RedisJobs(client), client, sizes)
    finally:
        await client.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="100,1000,10000,100000")
    parser.add_argument("--deliveries", type=int, default=5000)
    parser.add_argument("--jobs", type=int, default=1000)
    given = parser.parse_args()
    result: dict[str, object] = {}
    for name, measure in {
        "deliveries_through_the_api": lambda url, folder: deliveries.measure(url, folder, count=given.deliveries),
        "dispatched_by_one_worker": lambda url, folder: dispatch.measure(url, folder, jobs=given.jobs),
        "store": lambda url, _: asyncio.run(store(url)),
        "growth": lambda url, _: asyncio.run(grown(url, [int(size) for size in given.sizes.split(",")])),
    }.items():
        # A server of its own for each, so that none finds what another left.
        with tempfile.TemporaryDirectory(prefix="bench-") as home, start(Path(home)) as server:
            result[name] = measure(server.url, Path(home))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
