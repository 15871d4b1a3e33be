"""What was answered → the ledger of the report. Sent is not reviewed; only answered is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from worker.core.ledger import Ledger, NotReviewed
from worker.core.planning.plan import Chunk, Plan
from worker.core.planning.planner import merged

NO_ANSWER = "no answer"


def answered(plan: Plan, outcomes: Iterable[tuple[Chunk, str | None]]) -> Ledger:
    """The ledger after the review: `outcomes` has each chunk that came to an end, with None or why it failed.

    A chunk that was divided is not in it, its parts are. Planned lines of which nothing is said count
    as not reviewed: "no answer". Raises `ValueError` when more is said to be answered than was planned.
    """
    missing = Counter[str]()
    for chunk in plan.chunks:
        for file in chunk.files:
            missing[file.path] += file.changed
    reviewed = 0
    failed: list[NotReviewed] = []
    for chunk, reason in outcomes:
        for file in chunk.files:
            missing[file.path] -= file.changed
            if reason is None:
                reviewed += file.changed
            else:
                failed.append(NotReviewed(file.path, reason, file.changed))
    if twice := [path for path, lines in missing.items() if lines < 0]:
        raise ValueError(f"More lines have an outcome than were planned, in {len(twice)} files; first {twice[0]!r}.")
    unsaid = [NotReviewed(path, NO_ANSWER, lines) for path, lines in missing.items() if lines]
    return Ledger(plan.ledger.changed_lines, reviewed, merged([*plan.ledger.not_reviewed, *failed, *unsaid]))
