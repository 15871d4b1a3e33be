"""One process of the fleet: reviews that make requests through the throttle, as fast as it lets them.

    python -m benchmarks.throttle.fleet_worker REDIS_URL SERVER_URL SETTINGS_JSON

Settings: account, name, caps, lease_s, minute_s, guard_s, seed, seconds and tokens (ranges of one request), and how
many requests each kind of review keeps waiting: giant (interactive), batch, and small (a two-request review every
`small_every_s`). Writes JSON lines: its instance, and the wait of each small review's first request.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import Any

import httpx
from redis.asyncio import Redis

from worker.core.job import Priority
from worker.core.limits import Limits
from worker.core.usage import Usage
from worker.ports import Cost, Flow
from worker.storage.throttle import RedisThrottle, Windows


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


async def run(redis_url: str, server_url: str, options: dict[str, Any]) -> None:
    name, chance = options["name"], random.Random(options["seed"])
    redis = Redis.from_url(redis_url)
    throttle = RedisThrottle(
        redis,
        account=options["account"],
        limits=Limits(**options["caps"]),
        lease_s=options["lease_s"],
        windows=Windows(minute_s=options["minute_s"], guard_s=options["guard_s"]),
    )
    say(instance=throttle.instance)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=200)
    client = httpx.AsyncClient(limits=limits, timeout=60, trust_env=False)

    async def request(flow: Flow) -> float:
        tokens = chance.randint(*options["tokens"])
        if chance.random() < options.get("large_share", 0.0):
            tokens = options["large_tokens"]
        cost = Cost(tokens - tokens // 4, tokens // 4)
        began = time.monotonic()
        async with throttle.admit(cost, flow=flow) as slot:
            sent = time.monotonic()
            answer = await client.post(
                server_url,
                json={
                    "tokens": tokens,
                    "worker": name,
                    "flow": flow.change,
                    "sent": sent,
                    "seconds": chance.uniform(*options["seconds"]),
                },
            )
            if answer.status_code == 200:
                await slot.settle(Usage(requests=1, input_tokens=cost.input_tokens, output_tokens=100))
        return sent - began

    async def review(flow: Flow, waiting: int) -> None:
        async def units() -> None:
            while True:
                await request(flow)

        await asyncio.gather(*(units() for _ in range(waiting)))

    async def small_reviews(every_s: float) -> None:
        number = 0
        while True:
            await asyncio.sleep(chance.uniform(0.5, 1.5) * every_s)
            number += 1
            flow = Flow(f"small-{name}-{number}", "busy/repository")
            say(small_wait_s=await request(flow))
            await request(flow)

    work = []
    if options.get("giant"):
        work.append(review(Flow(f"giant-{name}", "busy/repository"), options["giant"]))
    if options.get("batch"):
        work.append(review(Flow(f"batch-{name}", "old/repository", Priority.BATCH), options["batch"]))
    if options.get("small_every_s"):
        work.append(small_reviews(options["small_every_s"]))
    await asyncio.gather(*work)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
