"""A plan that costs no more than the review may: what is left out is named, the least important first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import IntEnum
from posixpath import basename, splitext
from typing import Final

from worker.core.ledger import Ledger, NotReviewed
from worker.core.model_info import Prices
from worker.core.planning.plan import Chunk, Plan
from worker.core.planning.planner import merged

BUDGET: Final = "budget"

_DOCUMENTS: Final = frozenset((".md", ".rst", ".txt", ".adoc", ".po", ".pot", ".csv", ".tsv", ".svg", ".html"))
_CONFIGURATION: Final = frozenset((".json", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".xml", ".properties", ".lock"))
_TEST_FOLDERS: Final = frozenset(("test", "tests", "testing", "spec", "specs", "__tests__", "testdata", "fixtures"))


class Importance(IntEnum):
    """What kind of file it is; a defect in a higher one does more harm."""

    DOCUMENT = 0
    TEST = 1
    CONFIGURATION = 2
    SOURCE = 3


def importance(path: str) -> Importance:
    """By the path alone: documents and data, tests, configuration, and everything else as source."""
    name = basename(path).lower()
    ending = splitext(name)[1]
    if ending in _DOCUMENTS:
        return Importance.DOCUMENT
    if not _TEST_FOLDERS.isdisjoint(path.lower().split("/")[:-1]) or "test" in name or ".spec." in name:
        return Importance.TEST
    return Importance.CONFIGURATION if ending in _CONFIGURATION else Importance.SOURCE


def within_budget(
    plan: Plan, *, max_requests: int | None = None, max_cost_usd: float | None = None, prices: Prices | None = None
) -> Plan:
    """The plan without the chunks that the budget does not pay for; those become "budget" in its ledger.

    Chunks are kept by the most important kind of file in them, then by how many changed lines of that
    kind they have, then in order; so documents go before tests, tests before configuration, and
    configuration before source. A request is taken to cost its whole input and its whole cap. Without
    `prices` the cost is not known and `max_cost_usd` leaves nothing out.
    """
    left_usd = max_cost_usd if prices is not None else None
    kept: set[str] = set()
    for chunk in sorted(plan.chunks, key=_rank, reverse=True):
        if max_requests is not None and len(kept) >= max_requests:
            break
        if left_usd is not None and prices is not None:
            cost = prices.cost_usd(
                input_tokens=chunk.input_tokens, cached_tokens=0, output_tokens=chunk.max_output_tokens
            )
            if cost > left_usd:
                continue
            left_usd -= cost
        kept.add(chunk.id)
    return _without(plan, [chunk for chunk in plan.chunks if chunk.id not in kept])


def _rank(chunk: Chunk) -> tuple[int, int]:
    kinds = [(importance(file.path), file.changed) for file in chunk.files]
    highest = max(kind for kind, _ in kinds)
    return highest, sum(changed for kind, changed in kinds if kind == highest)


def _without(plan: Plan, dropped: Sequence[Chunk]) -> Plan:
    if not dropped:
        return plan
    names = {chunk.id for chunk in dropped}
    rows = [NotReviewed(file.path, BUDGET, file.changed) for chunk in dropped for file in chunk.files]
    ledger = Ledger(
        plan.ledger.changed_lines,
        plan.ledger.reviewed_lines - sum(row.lines for row in rows),
        merged([*plan.ledger.not_reviewed, *rows]),
    )
    return replace(plan, chunks=tuple(chunk for chunk in plan.chunks if chunk.id not in names), ledger=ledger)
