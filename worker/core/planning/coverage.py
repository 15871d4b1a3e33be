"""What was answered → the ledger of a report. Counted from outcomes, never from what was sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from worker.core.ledger import Ledger, NotReviewed
from worker.core.planning.plan import Chunk, Plan
from worker.core.planning.planner import merged

NEVER_SENT: Final = "not sent"


def answered(plan: Plan, outcomes: Mapping[str, tuple[Chunk, str | None]]) -> Ledger:
    """The ledger of a review of `plan`.

    `outcomes` holds every chunk that was settled, by id: None when it was answered, else why it was not.
    Chunks that took the place of a larger one stand for it. Lines of the plan that no outcome covers are
    named as not sent, so that a fault in the caller can never make the ledger say too much. Raises
    `ValueError` when more lines of a file are settled than were planned.
    """
    unsettled = Counter[str]()
    for chunk in plan.chunks:
        for file in chunk.files:
            unsettled[file.path] += file.changed
    reviewed = 0
    rows = list(plan.ledger.not_reviewed)
    for chunk, reason in outcomes.values():
        for file in chunk.files:
            unsettled[file.path] -= file.changed
            if reason is None:
                reviewed += file.changed
            else:
                rows.append(NotReviewed(file.path, reason, file.changed))
    if twice := [path for path, lines in unsettled.items() if lines < 0]:
        raise ValueError(f"More lines are settled than were planned, in {len(twice)} files; the first is {twice[0]!r}.")
    rows += [NotReviewed(path, NEVER_SENT, lines) for path, lines in unsettled.items() if lines]
    return Ledger(plan.ledger.changed_lines, reviewed, merged(rows))
