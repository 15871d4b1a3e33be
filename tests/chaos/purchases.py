"""Which model requests of a storm had a right to be sent: the bound on what is bought, job by job.

A job may ask for each of its units once, and once more for every request of that unit that failed by script or was
still unanswered, or not yet saved, when somebody hit its worker or the store.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.fakes.kimi import KimiServer
from worker.core.job import Decision

SAVING_S = 1.0
"""From an answer's last byte to its checkpoint, and from the look at the lease to the request, on a busy machine."""

_CLAIMED = re.compile(r"attempt \d+ by \S+-(\d+)-[0-9a-f]{4}")


@dataclass(frozen=True, slots=True)
class Blow:
    """`process` is None for the store: that hits everybody. Times are Unix seconds; an end counts until it is over."""

    name: str
    process: int | None
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Purchase:
    """One chat completion. `unit` is what it asks about; `until` is Unix seconds, of the answer's last byte."""

    job: str
    unit: str
    began: float
    until: float
    has_failed: bool


@dataclass(slots=True)
class Account:
    """What was bought, what it could be at most, and whose bound was broken."""

    bought: int = 0
    bound: int = 0
    units: int = 0
    failed: int = 0
    interrupted: int = 0
    wrong: list[str] = field(default_factory=list)


def purchases_of(kimi: KimiServer) -> list[Purchase]:
    """What the model server saw.

    Every head of a storm is one chunk, so a job has two units: the findings, and the verdicts on them.
    """
    to_unix_s = time.time() - time.monotonic()
    found: list[Purchase] = []
    for number, request in enumerate(kimi.received):
        if not request.path.endswith("/chat/completions"):
            continue
        ended = kimi.ended_at_s.get(number)
        job = str(request.body.get("prompt_cache_key", ""))
        kind = str(request.body.get("response_format", {}).get("json_schema", {}).get("name", ""))
        # One whose caller died is open until the server writes to it.
        until = kimi.left_at_s.get(number, request.at_s)
        has_failed = request.status != 200 or (ended is None and number in kimi.scripted)
        found.append(Purchase(job, kind, request.at_s + to_unix_s, until + to_unix_s, has_failed))
    return found


def settle(
    purchases: Iterable[Purchase], blows: Sequence[Blow], decisions: Mapping[str, Sequence[Decision]]
) -> Account:
    """Hold each unit's purchases against its bound. `decisions` are the logs by job: they say which process had it."""
    account = Account()
    units: dict[tuple[str, str], list[Purchase]] = defaultdict(list)
    for purchase in purchases:
        units[purchase.job, purchase.unit].append(purchase)
    for (job, unit), bought in units.items():
        claims = _claims(decisions.get(job, ()))
        failed = sum(one.has_failed for one in bought)
        interrupted = sum(not one.has_failed and _was_hit(one, blows, claims) for one in bought)
        account.units += 1
        account.bought += len(bought)
        account.failed += failed
        account.interrupted += interrupted
        if len(bought) > 1 + failed + interrupted:
            account.wrong.append(
                f"job {job} bought its {unit} {len(bought)} times: {failed} failed, {interrupted} were interrupted"
            )
    account.bound = account.units + account.failed + account.interrupted
    return account


def _claims(log: Sequence[Decision]) -> list[tuple[float, int]]:
    """(time, process) of every claim, oldest first."""
    rows = [(line.at, _CLAIMED.match(line.detail)) for line in log if line.event in ("job.running", "job.taken_over")]
    return [(at, int(found[1])) for at, found in rows if found]


def _was_hit(purchase: Purchase, blows: Sequence[Blow], claims: list[tuple[float, int]]) -> bool:
    began, until = purchase.began - SAVING_S, purchase.until + SAVING_S
    place = bisect_right(claims, (purchase.began, 2**63))
    process = claims[place - 1][1] if place else None
    return any(
        blow.began <= until and blow.ended >= began for blow in blows if blow.process is None or blow.process == process
    )
