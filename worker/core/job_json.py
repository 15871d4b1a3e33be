"""A job as a JSON value, as the API and the commands show it: scripts rely on its shape. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from worker.core.change import ChangeRef
from worker.core.job import Decision, Job


def job_json(job: Job, decisions: Sequence[Decision] = ()) -> dict[str, Any]:
    """`GET /reviews/{job}`, and a row of what `--json` prints."""
    return {
        "job": job.id,
        "forge": job.ref.forge,
        "repository": job.ref.repository,
        "number": job.ref.number,
        "head": job.head,
        "priority": job.priority.value,
        "state": job.state.value,
        "reason": job.reason,
        "attempt": job.attempt,
        "not_before": job.not_before,
        "created_at": job.created_at,
        "updated_at": job.updated_at,
        "superseded_by": job.superseded_by,
        "decisions": [asdict(one) for one in decisions],
    }


def ignored_json(ref: ChangeRef, ignored: Sequence[Decision]) -> dict[str, Any]:
    """Deliveries of a change that became no job, oldest first and at least one, in the form of a job."""
    return {
        "job": None,
        "forge": ref.forge,
        "repository": ref.repository,
        "number": ref.number,
        "state": "ignored",
        "reason": ignored[-1].detail,
        "decisions": [asdict(one) for one in ignored],
    }
