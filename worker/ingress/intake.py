"""POST /webhooks/… and POST /reviews: from a call to a stored job, or to a refusal that says why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Annotated

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from worker.core.change import ChangeRef
from worker.core.delivery import Ignored
from worker.core.errors import BadInput, ConfigurationError, NotSigned, Transient
from worker.core.job import Accepted, Intent, Priority
from worker.core.job_json import job_json
from worker.core.strict_json import read_object
from worker.ingress.access import is_bearer
from worker.ingress.answers import accepted, refused
from worker.ingress.body import BodyReader, BodyRefused
from worker.ingress.metrics import Counters
from worker.ingress.site import Site

log = structlog.get_logger()

STORE_TIMEOUT_S = 1.8
"""A forge that waits learns within two seconds that the store is away, and keeps the delivery for redelivery."""

STORE_AWAY = (Transient, ConfigurationError, TimeoutError)
"""How it shows: no answer, our login declined, or silence."""

SHOWN = 100
"""Characters of a stranger's path that a log line holds."""

_IN_WORDS = {
    "repository": "is no repository's name; write owner/name",
    "head": "is no full SHA; write 40 or 64 lower-case hex digits, or leave it out",
}
"""In place of a pattern that nobody reads."""

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,98}[A-Za-z0-9_-])?"


class ReviewRequest(BaseModel):
    """The body of POST /reviews."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    forge: Annotated[str, Field(max_length=40)]
    repository: Annotated[str, Field(max_length=300, pattern=rf"^{_PART}(?:/{_PART})+$")]
    number: Annotated[int, Field(ge=1, le=2**31 - 1)]
    head: Annotated[str, Field(pattern=r"^(?:[0-9a-f]{40}|[0-9a-f]{64})$")] | None = None
    priority: Annotated[Priority, Field(strict=False)] = Priority.INTERACTIVE
    force: bool = False


class Intake:
    """Calls that may become a job."""

    def __init__(self, site: Site, counters: Counters, reader: BodyReader) -> None:
        self._site = site
        self._counters = counters
        self._reader = reader

    async def webhook(self, request: Request) -> Response:
        """Verify, then parse, then store; the answer is 2xx only once the job is stored."""
        forge = request.path_params["forge"]
        webhook = self._site.webhooks.get(forge)
        if webhook is None:
            self._counters.delivery("unknown", "refused", "not configured")
            log.warning("delivery.refused", forge=forge[:SHOWN], status=404, reason="not configured")
            return refused(404, "No forge of this name is configured here. Set its token and webhook secret.")
        try:
            body = await self._reader.read(request)
            webhook.verify(request.headers, body)
            said = webhook.parse(request.headers, body)
        except NotSigned as error:
            self._counters.delivery(forge, "refused", f"signature {error.reason}")
            log.warning("delivery.refused", forge=forge, status=401, reason=error.reason)
            return refused(401, str(error))
        except BodyRefused as error:
            self._counters.delivery(forge, "refused", f"body {error.status}")
            log.warning("delivery.refused", forge=forge, status=error.status, reason=str(error))
            return refused(error.status, str(error))
        except BadInput as error:
            self._counters.delivery(forge, "refused", "malformed")
            log.warning("delivery.refused", forge=forge, status=400, reason=str(error))
            return refused(400, str(error))
        if isinstance(said, Ignored):
            log.info("delivery.ignored", forge=forge, reason=said.reason)
            return self._answer(forge, said)
        with structlog.contextvars.bound_contextvars(change=str(said.ref), delivery=said.id):
            return await self._stored(forge, self._site.accept(said))

    async def review(self, request: Request) -> Response:
        """The same for any caller that has the token."""
        if (denied := self._denied(request)) is not None:
            return denied
        try:
            asked = _review_request(await self._reader.read(request))
            if asked.forge not in self._site.webhooks:
                raise BadInput(f"forge: is none of {', '.join(self._site.webhooks) or 'the configured ones: none is'}.")
        except BodyRefused as error:
            return refused(error.status, str(error))
        except BadInput as error:
            return refused(400, str(error))
        intent = Intent(
            ref=ChangeRef(asked.forge, asked.repository, asked.number),
            head=asked.head or "",
            priority=asked.priority,
            force=asked.force,
        )
        with structlog.contextvars.bound_contextvars(change=str(intent.ref)):
            return await self._stored(asked.forge, self._site.request(intent))

    async def job(self, request: Request) -> Response:
        """GET /reviews/{job}: the record and its log of decisions."""
        if (denied := self._denied(request)) is not None:
            return denied
        name = request.path_params["job"]
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                job = await self._site.jobs.get(name)
                if job is None:
                    return refused(404, "There is no job of this id. It may have been dropped, or the id is cut off.")
                return JSONResponse(job_json(job, await self._site.jobs.decisions(name)))
        except STORE_AWAY:
            return refused(503, "The job store cannot be reached.", retry_after="5")

    def _denied(self, request: Request) -> Response | None:
        if is_bearer(request, self._site.api_token):
            return None
        if self._site.api_token is None:
            return refused(401, "This call needs a token, and none is configured. Set API_TOKEN and start again.")
        return refused(401, "Send the header Authorization: Bearer API_TOKEN.", www_authenticate="Bearer")

    async def _stored(self, forge: str, storing: Awaitable[Accepted | Ignored]) -> Response:
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                outcome = await storing
        except STORE_AWAY as error:
            reason = str(error) or f"no answer within {STORE_TIMEOUT_S} s"
            self._counters.delivery(forge, "refused", "store away")
            log.error("delivery.not_stored", forge=forge, reason=reason)
            return refused(503, "The job store cannot be reached; send this again.", retry_after="30")
        return self._answer(forge, outcome)

    def _answer(self, forge: str, outcome: Accepted | Ignored) -> Response:
        if isinstance(outcome, Ignored):
            self._counters.delivery(forge, "ignored", outcome.reason)
        else:
            self._counters.delivery(forge, "accepted", "new" if outcome.is_new else "known")
        return accepted(outcome)


def _review_request(body: bytes) -> ReviewRequest:
    value = read_object(body)
    try:
        return ReviewRequest.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        said = _IN_WORDS.get(where) if first["type"] == "string_pattern_mismatch" else None
        raise BadInput(f"{where[:80]}: {said or first['msg']}.") from None
