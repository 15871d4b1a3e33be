"""A fleet of processes against a server that counts by its own clock; one of them is killed. The short benchmark."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.throttle.fleet import Fleet, work

LEASE_S = 3.0
ANSWER_S = [0.2, 0.6]


@pytest.mark.chaos
def test_a_fleet_with_a_killed_process_keeps_every_cap_and_uses_it(redis_url: str, tmp_path: Path) -> None:
    at_once = Fleet(redis_url, tmp_path, "at-once", {"concurrency": 12}, lease_s=LEASE_S)
    by_minute = Fleet(
        redis_url,
        tmp_path,
        "by-minute",
        {"concurrency": 60, "rpm": 40, "tpm": 800_000},
        lease_s=LEASE_S,
        minute_s=3.0,
        guard_s=0.5,
    )
    for fleet in (at_once, by_minute):
        fleet.start("giant", giant=60, seconds=ANSWER_S, tokens=[4_000, 30_000])
        fleet.start("batch", batch=100, seconds=ANSWER_S, tokens=[4_000, 30_000])
        fleet.start("small", giant=5, small_every_s=1.0, seconds=ANSWER_S, tokens=[4_000, 30_000])
    runs = work([at_once, by_minute], 9.0, kills=1, chance=random.Random(3))

    assert [run.above_cap for run in runs] == [0, 0]
    assert all(run.requests > 40 for run in runs)
    slots, minutes = runs
    assert slots.slots_used(12, after_s=2.0)[1] > 0.8
    assert slots.small_waits_s
    # Machines that are busy with other tests are slow; behind the giant a small review would wait 2 s and more.
    assert sorted(slots.small_waits_s)[len(slots.small_waits_s) // 2] < 0.6
    assert all(kill.back_s < LEASE_S + 1.0 for run in runs for kill in run.kills)
    assert minutes.requests > 60
