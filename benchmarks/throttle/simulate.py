"""What each tier gives and what the throttle reaches of it: a world without network or processes.

    python -m benchmarks.throttle.simulate

A review makes three requests of 5,000 to 35,000 input tokens with an output cap of 32,768, each answered after 20 to
60 s. There is always another request waiting, and they go strictly in order. The admission counts as the one in Redis
does: buckets, and a guard.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass

from worker.core.limits import LIMIT_KINDS, TIERS, Limits
from worker.storage.throttle import Windows

REQUESTS_PER_REVIEW = 3
INPUT_TOKENS = (5_000, 35_000)
OUTPUT_CAP_TOKENS = 32_768
TOKENS = sum(INPUT_TOKENS) // 2 + OUTPUT_CAP_TOKENS
"""Of one request, on the mean."""
ANSWER_S = (20.0, 60.0)
WANTED_REVIEWS_PER_HOUR = 10_000
HAND_ON_S = 0.01
"""From the end of a request to the start of the next one in its slot: measured by the benchmark's fleet."""


@dataclass(frozen=True)
class Outcome:
    tier: str
    bound_by: str
    given_per_hour: float
    """Requests an hour by the limits alone."""
    reached_per_hour: float

    @property
    def reviews_per_hour(self) -> float:
        return self.reached_per_hour / REQUESTS_PER_REVIEW


def given(limits: Limits) -> tuple[str, float]:
    """The limit that binds, and requests an hour by it."""
    mean_s = sum(ANSWER_S) / 2
    bounds = {
        "concurrency": (limits.concurrency or math.inf) * 3600 / mean_s,
        "rpm": (limits.rpm or math.inf) * 60,
        "tpm": (limits.tpm or math.inf) * 60 / TOKENS,
        "tpd": (limits.tpd or math.inf) / TOKENS / 24,
    }
    return min(bounds.items(), key=lambda bound: bound[1])


def reached(limits: Limits, *, hours: float, seed: int = 1) -> float:
    """Requests an hour that an always full queue gets through the admission."""
    chance, windows = random.Random(seed), Windows()
    bucket_s = windows.bucket_ms / 1000
    most = {kind: limits.value(kind) or math.inf for kind in LIMIT_KINDS}
    now, answered, day_tokens = 0.0, 0, 0
    ends: list[float] = []
    leaving: deque[tuple[float, int]] = deque()
    minute_tokens = 0
    tokens = chance.randint(*INPUT_TOKENS) + OUTPUT_CAP_TOKENS
    while now < hours * 3600:
        while leaving and leaving[0][0] <= now:
            minute_tokens -= leaving.popleft()[1]
        while ends and ends[0] <= now:
            heapq.heappop(ends)
            answered += 1
        if day_tokens + tokens > most["tpd"]:
            # The rest is deferred to the next day: `hours` is one day where a limit counts by the day.
            return (answered + len(ends)) / hours
        if len(ends) >= most["concurrency"]:
            now = ends[0]
        elif len(leaving) + 1 > most["rpm"] or minute_tokens + tokens > most["tpm"]:
            now = leaving[0][0]
        else:
            heapq.heappush(ends, now + HAND_ON_S + chance.uniform(*ANSWER_S))
            bucket = math.floor(now / bucket_s) * bucket_s
            leaving.append((bucket + bucket_s + windows.minute_s + windows.guard_s, tokens))
            minute_tokens, day_tokens = minute_tokens + tokens, day_tokens + tokens
            tokens = chance.randint(*INPUT_TOKENS) + OUTPUT_CAP_TOKENS
    return answered / hours


def outcomes() -> list[Outcome]:
    rows = []
    for tier in TIERS:
        bound_by, per_hour = given(tier.limits)
        rows.append(Outcome(tier.name, bound_by, per_hour, reached(tier.limits, hours=24 if tier.limits.tpd else 10)))
    return rows


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2f}"


def table() -> str:
    lines = [
        "| tier | what binds | requests/h given | reached | share | reviews/h | of 10,000 |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in outcomes():
        lines.append(
            f"| {row.tier} | {row.bound_by} | {_short(row.given_per_hour)} | {_short(row.reached_per_hour)} "
            f"| {row.reached_per_hour / row.given_per_hour:.1%} | {_short(row.reviews_per_hour)} "
            f"| {row.reviews_per_hour / WANTED_REVIEWS_PER_HOUR:.1%} |"
        )
    wanted = WANTED_REVIEWS_PER_HOUR * REQUESTS_PER_REVIEW
    lines.append("")
    lines.append(
        f"{WANTED_REVIEWS_PER_HOUR:,} reviews an hour need {wanted * sum(ANSWER_S) / 2 / 3600:,.0f} requests at once, "
        f"{wanted / 60:,.0f} a minute and {wanted / 60 * TOKENS / 1e6:,.1f} million tokens a minute."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
