"""Which chunks matter most: they are sent first, and kept when a review may not have all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import IntEnum
from posixpath import basename, splitext
from typing import Final

from worker.core.ledger import Ledger, NotReviewed
from worker.core.planning.places import DOCUMENTS, is_built_place
from worker.core.planning.plan import Chunk, Plan
from worker.core.planning.planner import merged

BUDGET: Final = "budget"

_CONFIGURATION: Final = frozenset((".json", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".xml", ".properties", ".lock"))
_TEST_FOLDERS: Final = frozenset(("test", "tests", "testing", "spec", "specs", "__tests__", "testdata", "fixtures"))


class Importance(IntEnum):
    """What kind of file it is; a defect in a higher one does more harm."""

    BUILT = 0
    """Scripts where build tools write them: as a rule large, and nobody's work."""
    DOCUMENT = 1
    TEST = 2
    CONFIGURATION = 3
    SOURCE = 4


def importance(path: str) -> Importance:
    """By the path alone: what is built, documents and data, tests, configuration, and everything else as source."""
    if is_built_place(path):
        return Importance.BUILT
    name = basename(path).lower()
    ending = splitext(name)[1]
    if ending in DOCUMENTS:
        return Importance.DOCUMENT
    if not _TEST_FOLDERS.isdisjoint(path.lower().split("/")[:-1]) or "test" in name or ".spec." in name:
        return Importance.TEST
    return Importance.CONFIGURATION if ending in _CONFIGURATION else Importance.SOURCE


def by_importance(chunks: Iterable[Chunk]) -> tuple[Chunk, ...]:
    """The order of sending: what is cut short by a stop, in money or in requests, loses the least important.

    Chunks come by the most important kind of file in them, then by how many changed lines of that kind
    they have, then as they were; so source comes before configuration, that before tests and documents, and last what
    stands where it would be built.
    """
    return tuple(sorted(chunks, key=_rank, reverse=True))


def within_requests(plan: Plan, most: int | None) -> Plan:
    """The plan with at most so many chunks, the most important ones; the others become "budget" in its ledger."""
    if most is None:
        return plan
    kept = {chunk.id for chunk in by_importance(plan.chunks)[:most]}
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
    kept = tuple(chunk for chunk in plan.chunks if chunk.id not in names)
    return replace(plan, chunks=kept, ledger=ledger, unpaid=tuple(dropped))
