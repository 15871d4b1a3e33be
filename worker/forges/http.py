"""An HTTP answer of any forge → our error: the one place where that is decided."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from worker.core.errors import (
    NotAuthorised,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    ReviewError,
    Unprocessable,
    Unreachable,
    WrongEndpoint,
)
from worker.core.markdown import cut, visible
from worker.core.redaction import Redactor
from worker.outward import proxy_status

MAX_ANSWER_BYTES = 64 * 1024 * 1024
SECONDARY_WAIT_S = 60.0
"""What GitHub asks for when it names no time:
https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api"""
_LONGEST_WAIT_S = 3600.0
_LIMIT_WORDS = ("secondary rate limit", "abuse detection", "rate limit exceeded", '"abuse"', "submitted too quickly")


class BadCredentials(NotAuthorised):
    """401: this very credential is not taken (any more). `server_time` in Unix seconds, for proofs with a time."""

    def __init__(self, message: str, *, server_time: float) -> None:
        super().__init__(message)
        self.server_time = server_time


class Redirected(WrongEndpoint):
    """`location` as the forge wrote it: for reading, never for following."""

    def __init__(self, message: str, *, location: str) -> None:
        super().__init__(message)
        self.location = location


async def send(
    client: httpx.AsyncClient, request: httpx.Request, *, forge: str, what: str, writes: bool, remark: str = ""
) -> httpx.Response:
    """Send once, follow nothing, and return an answer of 2xx whose body is read.

    Raises our errors for everything else. `what` names the call in words; neither a URL's query nor
    a header gets into a message. With `writes`, an end that leaves open whether the forge acted is
    `OutcomeUnknown`. `remark` ends the sentence on a connection that could not be made.
    """
    try:
        response = await client.send(request, stream=True, follow_redirects=False)
        try:
            await _read(response)
        finally:
            await response.aclose()
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
        # Nothing was sent yet, so a write has not happened.
        if (distrust := _distrust(error)) is not None:
            raise WrongEndpoint(
                f"{forge} shows a certificate that is not trusted ({distrust}). Check the forge's URL in the settings;"
                " SSL_CERT_FILE names a private authority."
            ) from None
        if (status := proxy_status(error)) == 407:
            raise _proxy_asks_for_login(forge, what) from None
        why = _kind(error) if status is None else f"the proxy answers {status}"
        raise Unreachable(f"{forge} cannot be reached for {what}: {why}{remark}.") from None
    except (httpx.TransportError, httpx.DecodingError, _TooLong) as error:
        raise _unclear(f"{forge} gave no whole answer to {what}: {_kind(error)}.", writes=writes) from None
    if (error_ := error_of(response, forge=forge, what=what, writes=writes)) is not None:
        raise error_
    return response


def error_of(response: httpx.Response, *, forge: str, what: str, writes: bool) -> ReviewError | None:
    """The error that an answer stands for; None for 2xx."""
    status = response.status_code
    said = _said(response)
    because = f" ({said})" if said else ""
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return Redirected(
            f"{forge} redirects {what} elsewhere, and credentials follow no redirect. Check the forge's URL in the"
            " settings, and whether the repository was renamed or moved.",
            location=response.headers.get("location", ""),
        )
    if _is_limit(response):
        return RateLimited(f"{forge} limits our requests: {what}{because}.", retry_after_s=_wait_s(response))
    if status == 401:
        return BadCredentials(
            f"{forge} does not accept our credentials for {what}{because}. Renew the token.",
            server_time=server_time(response.headers).timestamp(),
        )
    if status == 407:
        return _proxy_asks_for_login(forge, what)
    if status == 403:
        return NotAuthorised(
            f"{forge} forbids {what}{because}. Check that the token may read the repository and write pull requests."
        )
    if status in (404, 410):
        return NotFound(f"{forge} knows nothing of {what}. It is gone, or the token may not see it.")
    if status == 408 or status >= 500:
        return _unclear(f"{forge} answers {status} to {what}.", writes=writes, retry_after_s=retry_after_s(response))
    return Unprocessable(f"{forge} declines {what} with {status}{because}.")


def json_of(response: httpx.Response, *, forge: str, what: str, writes: bool) -> Any:
    """The answer's JSON. A gateway's page with status 200 is no answer: the outcome of a write is then unknown."""
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        message = f"{forge} answers {what} with something that is not JSON."
        raise _unclear(message, writes=writes) from None


def retry_after_s(response: httpx.Response) -> float | None:
    """RFC 9110 §10.2.3: seconds or a date, counted from the other side's own clock; None when absent or nonsense."""
    value = response.headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return float(min(int(value[:9]), _LONGEST_WAIT_S))
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    return _clamped((_aware(until) - server_time(response.headers)).total_seconds())


def server_time(headers: Mapping[str, str]) -> datetime:
    """The `Date` of an answer, so that a wrong clock of ours does no harm; our own time when there is none."""
    try:
        return _aware(parsedate_to_datetime(headers["date"]))
    except (KeyError, ValueError):
        return datetime.now(UTC)


# --------------------------------------------------------------------------------------- internal


class _TooLong(Exception):
    """The answer passed `MAX_ANSWER_BYTES`."""


async def _read(response: httpx.Response) -> None:
    """`response.aread`, with an end to it."""
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise _TooLong
        parts.append(part)
    response._content = b"".join(parts)


def _proxy_asks_for_login(forge: str, what: str) -> NotAuthorised:
    # To a request for a way (CONNECT) it comes as an error, to an `http://` address as an answer.
    return NotAuthorised(
        f"{forge} cannot be reached for {what}: the proxy asks for a name and a password (407). Put them into its"
        " address, in HTTPS_PROXY or HTTP_PROXY."
    )


def _unclear(message: str, *, writes: bool, retry_after_s: float | None = None) -> ReviewError:
    if writes:
        return OutcomeUnknown(f"{message} Whether it acted is unknown; our marker on the change will tell.")
    return Unreachable(message, retry_after_s=retry_after_s)


def _kind(error: Exception) -> str:
    # The class alone: an exception's text may hold a URL or what a proxy said.
    return type(error).__name__.lstrip("_")


def _distrust(error: Exception) -> str | None:
    """Why the other side's certificate was refused, in OpenSSL's words; None where it was not."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        cause = cause.__cause__ or cause.__context__
    return None


def _is_limit(response: httpx.Response) -> bool:
    # GitHub answers 403 and 422 as well as 429 when a limit is reached, so the status alone does not decide:
    # https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
    if response.status_code == 429:
        return True
    if response.status_code not in (403, 422):
        return False
    if "retry-after" in response.headers or response.headers.get("x-ratelimit-remaining") == "0":
        return True
    text = response.text[:4000].lower()
    return any(words in text for words in _LIMIT_WORDS)


def _wait_s(response: httpx.Response) -> float:
    asked = retry_after_s(response)
    if asked is not None:
        return asked
    reset = response.headers.get("x-ratelimit-reset", "")
    if response.headers.get("x-ratelimit-remaining") == "0" and reset.isascii() and reset.isdigit():
        wait = float(reset[:12]) - server_time(response.headers).timestamp()
        # A second more: the reset is a whole second, and theirs may end after ours.
        return _clamped(wait + 1.0)
    return SECONDARY_WAIT_S


def _clamped(seconds: float) -> float:
    return min(max(seconds, 0.0), _LONGEST_WAIT_S)


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _said(response: httpx.Response) -> str:
    """What the forge says in its JSON, short and safe to show; empty for pages of HTML."""
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(body, dict):
        return ""
    words = [str(body.get("message", ""))]
    errors = body.get("errors")
    if isinstance(errors, list):
        words += [str(e.get("message") or e.get("code") or "") if isinstance(e, dict) else str(e) for e in errors[:3]]
    said = _without_credentials("; ".join(word for word in words if word), response.request)
    return cut(visible(said).replace("\n", " "), 300)


def _without_credentials(text: str, request: httpx.Request) -> str:
    """A forge, or a proxy before it, may repeat what it was sent; a job's reason is stored and shown."""
    _, _, credentials = request.headers.get("authorization", "").partition(" ")
    return Redactor([credentials])(text)
