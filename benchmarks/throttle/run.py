"""`make bench-throttle`: the throttle under real processes, real HTTP and kill -9, in under four minutes.

    python -m benchmarks.throttle.run [--short]

`--short` turns minutes of three seconds and leaves the long line out; the suite runs it.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.throttle import line, simulate
from benchmarks.throttle.fleet import Fleet, Run, work
from worker.storage.embedded import start

ANSWER_S = [1.0, 2.0]
"""Seconds that one request takes at the gate: evenly spread, so 1.5 on the mean."""
TOKENS = [8_000, 60_000]


def reviews(fleet: Fleet) -> None:
    """A giant review, a batch and small reviews, each in its own process."""
    fleet.start("giant", giant=300, seconds=ANSWER_S, tokens=TOKENS)
    fleet.start("batch", batch=500, seconds=ANSWER_S, tokens=TOKENS)
    fleet.start("small", giant=30, small_every_s=1.5, seconds=ANSWER_S, tokens=TOKENS)


def crowd(fleet: Fleet, *, large: int) -> None:
    for name in ("one", "two", "three"):
        fleet.start(
            name,
            giant=60,
            batch=60,
            seconds=ANSWER_S,
            tokens=TOKENS,
            large_share=0.02 if large else 0,
            large_tokens=large,
        )


def say_waits(name: str, run: Run) -> None:
    waits = sorted(run.small_waits_s)
    print(
        f"{name}: first admission of {len(waits)} small reviews: median {statistics.median(waits):.2f} s, "
        f"worst {waits[-1]:.2f} s (one request takes {sum(ANSWER_S) / 2} s)"
    )


def say_kills(name: str, run: Run, lease_s: float) -> None:
    back = ", ".join(f"{kill.back_s:.1f}" for kill in run.kills)
    print(f"{name}: {len(run.kills)} processes killed, slots back after {back} s (lease {lease_s:g} s)")


def bench(redis_url: str, folder: Path, *, short: bool) -> list[Run]:
    chance = random.Random(7)
    lease_s, minute_s, guard_s = (3.0, 3.0, 0.3) if short else (15.0, 60.0, 1.0)
    settings = {"lease_s": lease_s, "minute_s": minute_s, "guard_s": guard_s}
    done = []

    if not short:
        calm = Fleet(redis_url, folder, "calm", {"concurrency": 30}, **settings)
        reviews(calm)
        (run,) = work([calm], 25, kills=0, chance=chance)
        print(f"30 at once, nobody dies: {run.requests} requests, {run.above_cap} above the cap, ", end="")
        print(f"{run.slots_used(30, after_s=4)[0]:.1%} of the slots in use")
        say_waits("30 at once, nobody dies", run)
        done.append(run)

    deadly = Fleet(redis_url, folder, "deadly", {"concurrency": 30}, **settings)
    reviews(deadly)
    (run,) = work([deadly], 9 if short else 50, kills=1 if short else 2, chance=chance)
    of_all, of_free = run.slots_used(30, after_s=3)
    print(
        f"30 at once, kill -9: {run.requests} requests, {run.above_cap} above the cap, {of_all:.1%} of all slots ",
        end="",
    )
    print(f"in use, {of_free:.1%} of those that no dead process' lease held")
    say_waits("30 at once, kill -9", run)
    say_kills("30 at once, kill -9", run, lease_s)
    done.append(run)

    # Both spend most of the time waiting for the minute to turn, so they run side by side, as two accounts.
    rpm, tpm = (60, 1_000_000) if short else (300, 3_000_000)
    by_requests = Fleet(redis_url, folder, "rpm", {"concurrency": 100, "rpm": rpm}, **settings)
    by_tokens = Fleet(redis_url, folder, "tpm", {"concurrency": 100, "tpm": tpm}, **settings)
    crowd(by_requests, large=0)
    crowd(by_tokens, large=0 if short else 400_000)
    run_r, run_t = work([by_requests, by_tokens], 9 if short else 125, kills=1 if short else 2, chance=chance)
    for name, run, cap, by in (("requests", run_r, rpm, False), ("tokens", run_t, tpm, True)):
        print(f"{cap:,} {name} a minute: {run.requests} requests, {run.above_cap} above the cap, ", end="")
        print(f"pace {run.pace(cap, by_tokens=by):.1%} of the cap")
        print(f"{cap:,} {name} a minute: the way to the gate took {run.ways_s()[0]:.2f} s (p99), ", end="")
        print(f"{run.ways_s()[1]:.2f} s at worst; the guard is {guard_s:g} s")
        say_kills(f"{cap:,} {name} a minute", run, lease_s)
        done.append(run)
    return done


def main() -> None:
    short = "--short" in sys.argv
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, start(Path(folder) / "home") as redis:
        runs = bench(redis.url, Path(folder), short=short)
        print()
        if not short:
            print("| waiting | stand in line, µs of Redis' time | hand a slot on, µs |\n|---|---|---|")
            for price in asyncio.run(line.measure(redis.url, (10, 100, 1_000, 10_000))):
                print(f"| {price.waiters:,} | {price.join_us:.0f} | {price.hand_on_us:.0f} |")
            print()
            print(simulate.table())
    print(f"\n{time.monotonic() - began:.0f} s in all")
    above = sum(run.above_cap for run in runs)
    if above:
        sys.exit(f"{above} requests were above a cap")


if __name__ == "__main__":
    main()
