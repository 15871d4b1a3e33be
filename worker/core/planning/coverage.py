"""What was answered → the ledger of a report. Counted from outcomes, never from what was sent."""

from __future__ import annotations

from collections.abc import Mapping

from worker.core.ledger import Ledger, NotReviewed
from worker.core.planning.plan import Chunk, Plan
from worker.core.planning.planner import merged

NEVER_SENT = "not sent"


def answered(plan: Plan, outcomes: Mapping[str, tuple[Chunk, str | None]]) -> Ledger:
    """The ledger of a review of `plan`.

    `outcomes` holds every chunk that was settled, by id: None when it was answered, else why it was not.
    Chunks that took the place of a larger one stand for it. Lines of the plan that no outcome covers are
    named as not sent, so that a fault in the caller can never make the ledger say too much.
    """
    reviewed = 0
    rows = list(plan.ledger.not_reviewed)
    covered = 0
    for chunk, reason in outcomes.values():
        covered += chunk.changed
        if reason is None:
            reviewed += chunk.changed
        else:
            rows += [NotReviewed(file.path, reason, file.changed) for file in chunk.files]
    if missing := plan.ledger.reviewed_lines - covered:
        rows.append(NotReviewed("", NEVER_SENT, missing))
    return Ledger(plan.ledger.changed_lines, reviewed, merged(rows))
