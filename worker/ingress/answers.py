"""The JSON that callers get, and the errors they can act on."""

from __future__ import annotations

from starlette.responses import JSONResponse

from worker.core.delivery import Ignored
from worker.core.job import Accepted, State


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
