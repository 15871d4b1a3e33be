"""The JSON that callers get, and the errors they can act on."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

from worker.core.delivery import Ignored
from worker.core.job import Accepted, Decision, Job, State


def refused(status: int, error: str, **headers: str) -> JSONResponse:
    """One sentence that says what to do. The connection ends, so that an unread body is not waited for."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSONResponse({"error": error}, status_code=status, headers={"connection": "close"} | named)


_KNOWN = {State.DONE: "this head was reviewed before, and a head is reviewed once; POST /reviews with force does again"}
"""Why a call made no job: what became of the one that was there."""


def accepted(outcome: Accepted | Ignored) -> JSONResponse:
    """202 once stored, 200 when there is nothing to do."""
    if isinstance(outcome, Ignored):
        return JSONResponse({"ignored": outcome.reason})
    told = {"job": outcome.job, "state": outcome.state.value, "new": outcome.is_new}
    if not outcome.is_new:
        told["reason"] = _KNOWN.get(outcome.state, "this head has a job already")
    return JSONResponse(told, status_code=202)


def job_json(job: Job, decisions: tuple[Decision, ...] = ()) -> dict[str, Any]:
    """A job as the API shows it. Times are Unix seconds."""
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
        "decisions": [{"at": one.at, "event": one.event, "detail": one.detail} for one in decisions],
    }
