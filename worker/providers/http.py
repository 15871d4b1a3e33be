"""An HTTP answer that is no success → one of our errors, with one line that says what to change.

The decision follows the status, then `error.type`, then the words: the same type carries different meanings on
different statuses, and Kimi's Code Plan uses one type (`access_terminated_error`) for a used-up window and for a
program it does not admit. The whole table is proven row by row in `tests/contracts/test_error_table.py`.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx

from worker.core.errors import (
    ClientNotAllowed,
    ContentFiltered,
    LimitKind,
    NoBalance,
    NotAuthorised,
    Overloaded,
    ParameterRefused,
    QuotaUsedUp,
    RateLimited,
    RequestTooLong,
    ReviewError,
    Stalled,
    UnknownModel,
    Unprocessable,
    Unreachable,
    WrongEndpoint,
)
from worker.core.redaction import Redactor
from worker.outward import proxy_status
from worker.providers.endpoint import Endpoint
from worker.providers.table import PROVIDERS, provider_for_key

QUOTED_CHARS = 240
"""How much of the server's own words a message repeats; they are a stranger's text and may echo the request."""

PASSES = "this passes by itself as a rule, and a second provider (FALLBACK_…) bridges it"
"""The cure for what is tried again anyway."""

_OVERLOADED = re.compile(r"overloaded|over capacity|at capacity|server is busy", re.I)
_BALANCE = re.compile(
    r"insufficient[_ ](?:\w+ )?(?:balance|funds|credit|quota)|exceeded[_ ](?:your )?current[_ ]quota|recharge|"
    r"balance (?:is )?(?:too low|not enough)|credit balance|not enough credit|more credits|余额|欠费",
    re.I,
)
_PERIOD = re.compile(
    r"usage limit for this (?:period|billing cycle)|(?:monthly|weekly|daily|5-hour|5h)[^.]{0,20} usage limit|"
    r"quota will (?:be refreshed|reset)",
    re.I,
)
_CONCURRENT = re.compile(r"concurrent request limit|concurrency", re.I)
_MEMBERSHIP = re.compile(r"membership", re.I)
_CODING_ONLY = re.compile(
    r"only available for coding agents|coding agents? only|not on (?:the )?(?:white|allow)list", re.I
)
_TOO_LONG = re.compile(
    r"exceeded model token limit|input token length too long|context[_ ]length|maximum context|prompt is too long|"
    r"too many (?:input )?tokens|request[_ ]too[_ ]large",
    re.I,
)
_TOO_LONG_NUMBERS = (
    re.compile(r"token limit:?\s*(?P<limit>\d+)\s*\(requested:?\s*(?P<requested>\d+)\)", re.I),
    re.compile(r"maximum context length is (?P<limit>\d+) tokens.*?(?P<requested>\d+) tokens", re.I | re.S),
    re.compile(r"(?P<requested>\d+) tokens > (?P<limit>\d+)", re.I),
)
_FILTERED = re.compile(r"content[_ ]filter|high risk|content_policy|safety system", re.I)
_NO_MODEL = re.compile(
    r"not found the model|model[_ ]not[_ ]found|model .{0,80}(?:does not exist|not found)|no endpoints found", re.I
)
_INVALID = re.compile(
    r"invalid|unsupported|unknown|unrecogni[sz]ed|unexpected|not (?:supported|allowed|permitted|accepted)|"
    r"cannot|must|only .{1,40} is allowed|extra inputs|incompatible|deprecated|no longer",
    re.I,
)
_LIMITS: tuple[tuple[LimitKind, re.Pattern[str]], ...] = (
    ("tpd", re.compile(r"\bTPD\b[^.]*?limit:\s*(?P<value>\d+)|max TPD:\s*(?P<max>\d+)|\bTPD\b|tokens per day", re.I)),
    ("tpm", re.compile(r"\bTPM\b[^.]*?limit:\s*(?P<value>\d+)|max TPM:\s*(?P<max>\d+)|\bTPM\b|tokens per min", re.I)),
    ("rpm", re.compile(r"\bRPM\b[^.]*?limit:\s*(?P<value>\d+)|max RPM:\s*(?P<max>\d+)|\bRPM\b|requests per min", re.I)),
    (
        "concurrency",
        re.compile(r"concurrency:\s*(?P<value>\d+)|max concurrency:\s*(?P<max>\d+)|concurren(?:cy|t)", re.I),
    ),
)
_TRY_AGAIN = re.compile(r"(?:try|retry) again (?:after|in)\s+(?P<n>\d+(?:\.\d+)?)\s*(?P<unit>ms|milli|s|m)", re.I)

# Organisation, project, key and user ids as they stand in error texts; an id has a digit in it, a word has not.
_IDS = re.compile(
    r"\b(?:org|organization|proj|project|ak|sk|pk|key|cak|uid|user|acct|account)[-_](?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{4,}|"
    r"\b(?:sk|ak)-[A-Za-z0-9_-]{8,}|\bBearer\s+\S+|\b[\w.+-]+@[\w-]+\.[\w.]+|"
    r"\b[0-9a-f]{32}\b|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Complaint:
    """What an error body says, whichever envelope it came in; empty where it says nothing."""

    type: str = ""
    code: str = ""
    message: str = ""
    parameter: str = ""

    @property
    def words(self) -> str:
        """Type, code and message in one, for patterns."""
        return f"{self.type} {self.code} {self.message}"


def complaint_of(body: bytes) -> Complaint:
    """Read an error body: OpenAI's envelope, Anthropic's, Moonshot's two others, a list of them, HTML or nothing."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        text = body[:20_000].decode("utf-8", "replace")
        title = re.search(r"<(?:title|h1)[^>]*>(.*?)</", text, re.I | re.S)
        if title or text.lstrip()[:1] == "<":
            return Complaint(type="html", message=title.group(1).strip() if title else "an HTML page")
        return Complaint(message=text.strip())
    return complaint_in(value)


def complaint_in(value: object) -> Complaint:
    """The same for an error that came inside a stream, parsed already."""
    if isinstance(value, list):
        return complaint_in(value[0]) if value else Complaint()
    if not isinstance(value, dict):
        return Complaint(message=_text(value))
    error = value.get("error")
    if isinstance(error, dict):
        raw = error.get("metadata", {}).get("raw") if isinstance(error.get("metadata"), dict) else None
        return Complaint(
            type=_text(error.get("type")),
            code=_text(error.get("code")),
            # OpenRouter says "Provider returned error" and keeps the provider's own words in `raw`.
            message=" ".join(part for part in (_text(error.get("message")), _text(raw)) if part),
            parameter=_text(error.get("param")),
        )
    detail = value.get("detail")
    if isinstance(detail, list):
        said = "; ".join(_text(item.get("msg")) for item in detail if isinstance(item, dict))
    else:
        said = _text(detail)
    return Complaint(
        type=_text(error) or _text(value.get("type")),
        code=_text(value.get("code")),
        message=_text(value.get("message")) or said,
    )


def classify(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    endpoint: Endpoint,
    now: datetime,
    sent: Collection[str] = (),
) -> ReviewError:
    """The error for one refused request. `sent` names the members of its body that could be left out.

    `now` is aware, in UTC.
    """
    return classify_complaint(status, headers, complaint_of(body), endpoint=endpoint, now=now, sent=sent)


def classify_complaint(
    status: int,
    headers: Mapping[str, str],
    complaint: Complaint,
    *,
    endpoint: Endpoint,
    now: datetime,
    sent: Collection[str] = (),
) -> ReviewError:
    """`classify`, for a complaint that was read already."""
    asked = _Refusal(status, headers, complaint, endpoint, now)
    if 300 <= status < 400:
        return _redirected(asked)
    if status == 401:
        return _not_authorised(asked)
    if status == 407:
        return proxy_asks_for_login(endpoint)
    if status == 402:
        return _no_balance(asked)
    if status == 403:
        return _forbidden(asked)
    if status in (404, 405, 410):
        return _not_found(asked)
    if status in (400, 413, 422):
        return _bad_request(asked, sent)
    if status == 429:
        return _too_many(asked)
    if status in (503, 529) or (status >= 500 and _OVERLOADED.search(complaint.words)):
        return _overloaded(asked)
    if status in (408, 409, 425, 499) or status >= 500:
        return Unreachable(asked.line("no answer", PASSES), retry_after_s=asked.retry_after_s)
    return Unprocessable(asked.line("request refused", "see docs/providers.md"))


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    headers: Mapping[str, str]
    complaint: Complaint
    endpoint: Endpoint
    now: datetime

    @property
    def retry_after_s(self) -> float | None:
        return retry_after_s(self.headers, self.complaint.message, now=self.now)

    def line(self, what: str, cure: str) -> str:
        """Who, what (with the server's own words), which setting to change: one line."""
        said = safe_words(self.complaint.message, self.endpoint.api_key)
        words = f': "{said}"' if said else ""
        return f"{self.endpoint.who}: {what} ({self.status}){words}; {cure}"


def _redirected(asked: _Refusal) -> ReviewError:
    target = httpx.URL(asked.endpoint.root).join(asked.headers.get("location", "")).host
    return WrongEndpoint(
        f"{asked.endpoint.who}: redirects to {safe_words(target) or 'another address'} ({asked.status}), which is not"
        f" followed so that the key stays here; write the final address into {asked.endpoint.names.base_url}"
    )


def _not_authorised(asked: _Refusal) -> ReviewError:
    return NotAuthorised(asked.line("key not accepted", key_advice(asked.endpoint)))


def _no_balance(asked: _Refusal) -> ReviewError:
    if asked.endpoint.provider.plan == "code" or _MEMBERSHIP.search(asked.complaint.message):
        return NoBalance(
            asked.line("membership not verified", "renew it at https://www.kimi.com/code, or use another key")
        )
    return NoBalance(asked.line("no balance left", "top the account up, or set FALLBACK_… to a second provider"))


def _forbidden(asked: _Refusal) -> ReviewError:
    complaint = asked.complaint
    if _PERIOD.search(complaint.message):
        return _period_used_up(asked)
    if _CONCURRENT.search(complaint.message):
        return _rate_limited(asked)
    if complaint.type == "exceeded_current_quota_error" or _BALANCE.search(complaint.words):
        return _no_balance(asked)
    if _OVERLOADED.search(complaint.words):
        return _overloaded(asked)
    if complaint.type == "access_terminated_error" or _CODING_ONLY.search(complaint.message):
        return ClientNotAllowed(
            asked.line(
                "this plan's OpenAI-style address admits other programs only",
                f"set {asked.endpoint.names.base_url} to https://api.kimi.com/coding/v1/messages (the plan's"
                " Anthropic-style address), or use a Developer API key with https://api.moonshot.ai/v1",
            )
        )
    if _NO_MODEL.search(complaint.words):
        return _unknown_model(asked)
    return NotAuthorised(asked.line("not permitted", key_advice(asked.endpoint)))


def _not_found(asked: _Refusal) -> ReviewError:
    complaint = asked.complaint
    if complaint.type == "url.not_found" or complaint.code == "5":
        return _wrong_path(asked)
    if complaint.type in ("resource_not_found_error", "not_found_error") or _NO_MODEL.search(complaint.words):
        return _unknown_model(asked)
    return _wrong_path(asked)


def _wrong_path(asked: _Refusal) -> ReviewError:
    endpoint = asked.endpoint
    if re.search(r"/v\d+(/|$)", endpoint.root):
        cure = f"check {endpoint.names.base_url} ({endpoint.root}): no such API is served there"
    else:
        cure = f"{endpoint.names.base_url} lacks /v1: write {endpoint.root}/v1"
    return WrongEndpoint(asked.line("no such address", cure))


def _unknown_model(asked: _Refusal) -> ReviewError:
    endpoint = asked.endpoint
    return UnknownModel(
        asked.line(
            f"model {endpoint.model} is unknown, retired or not permitted for this key",
            f"change {endpoint.names.model} (`kimi-review check` lists what is on offer)",
        )
    )


def _bad_request(asked: _Refusal, sent: Collection[str]) -> ReviewError:
    complaint = asked.complaint
    if asked.status == 413 or _TOO_LONG.search(complaint.words):
        limit, requested = too_long_numbers(complaint.message)
        return RequestTooLong(
            asked.line("request too long", "it is split; set LLM_CONTEXT_TOKENS if the window is smaller than known"),
            limit_tokens=limit,
            requested_tokens=requested,
        )
    if _FILTERED.search(complaint.words):
        return ContentFiltered(asked.line("content filter", "the file is isolated and named as not reviewed"))
    if complaint.type == "exceeded_current_quota_error" or _BALANCE.search(complaint.words):
        return _no_balance(asked)
    if _NO_MODEL.search(complaint.words):
        return _unknown_model(asked)
    parameter = named_parameter(complaint, sent)
    if parameter:
        return ParameterRefused(
            asked.line(f"parameter {parameter} refused", "it is left out from now on"), parameter=parameter
        )
    return Unprocessable(asked.line("request refused", "check LLM_EXTRA_BODY and LLM_THINKING"))


def _too_many(asked: _Refusal) -> ReviewError:
    complaint = asked.complaint
    if _PERIOD.search(complaint.message):
        return _period_used_up(asked)
    if (
        complaint.type in ("exceeded_current_quota_error", "insufficient_quota")
        or complaint.code == "insufficient_quota"
    ):
        return _no_balance(asked)
    # Kimi's Anthropic-style path says rate_limit_error and writes that the engine is overloaded.
    if complaint.type in ("engine_overloaded_error", "overloaded_error") or _OVERLOADED.search(complaint.words):
        return _overloaded(asked)
    if _BALANCE.search(complaint.message):
        return _no_balance(asked)
    return _rate_limited(asked)


def _rate_limited(asked: _Refusal) -> ReviewError:
    limit, value = limit_told(asked.complaint.message)
    if limit == "tpd":
        return QuotaUsedUp(
            asked.line("the day's tokens are used up", "reviews wait for midnight UTC; LLM_TPD keeps below the limit"),
            until=next_midnight(asked.now),
        )
    setting = {
        "rpm": "LLM_RPM",
        "tpm": "LLM_TPM",
        "concurrency": "LLM_MAX_CONCURRENT_REQUESTS",
        None: "LLM_MAX_CONCURRENT_REQUESTS, LLM_RPM and LLM_TPM",
    }[limit]
    told = "rate limit" if limit is None else f"{limit} limit{'' if value is None else f' of {value}'}"
    return RateLimited(
        asked.line(f"{told} reached", f"{setting} tells the account's limits beforehand"),
        retry_after_s=asked.retry_after_s,
        limit=limit,
        limit_value=value,
    )


def _period_used_up(asked: _Refusal) -> ReviewError:
    # A header that says hours is the window's reset; one that says seconds is the gateway's habit and tells nothing.
    wait_s = asked.retry_after_s
    until = asked.now + timedelta(seconds=wait_s) if wait_s is not None and wait_s >= 60 else None
    return QuotaUsedUp(asked.line("the plan's quota is used up", "reviews wait until its window turns"), until=until)


def _overloaded(asked: _Refusal) -> ReviewError:
    return Overloaded(
        asked.line("no capacity at the moment", PASSES),
        retry_after_s=asked.retry_after_s,
    )


def key_advice(endpoint: Endpoint) -> str:
    """Which addresses the configured kind of key works with."""
    names = endpoint.names
    row = provider_for_key(endpoint.api_key)
    if not endpoint.api_key:
        return f"set {names.api_key}"
    if row is not None and endpoint.host not in row.hosts:
        return f"this kind of key ({row.key_prefix}…) belongs to {row.base_url}: set {names.base_url} to it"
    if row is not None:
        return f"make a new key for {row.base_url} and set {names.api_key}"
    if any(endpoint.host in provider.hosts for provider in PROVIDERS if provider.name in ("moonshot", "kimi-code")):
        return (
            f"check {names.api_key}: keys of platform.moonshot.ai work with https://api.moonshot.ai/v1 only, those of"
            " platform.moonshot.cn with https://api.moonshot.cn/v1 only, those that begin with sk-kimi- with"
            f" https://api.kimi.com/coding/v1 only; {names.base_url} must be the one the key is from"
        )
    return f"check {names.api_key}, and that it belongs to {names.base_url} ({endpoint.root})"


def not_reached(error: httpx.HTTPError | httpx.InvalidURL | OSError, *, endpoint: Endpoint) -> ReviewError:
    """The error for a request that got no HTTP answer, or lost it on the way."""
    who, setting = endpoint.who, endpoint.names.base_url
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return WrongEndpoint(f"{who}: not an address that can be asked; check {setting}")
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return WrongEndpoint(
                f"{who}: its certificate cannot be verified ({cause.verify_message}); check {setting}, or name"
                " your network's certificate authority in SSL_CERT_FILE"
            )
        cause = cause.__cause__ or cause.__context__
    if (status := proxy_status(error)) is not None:
        if status == 407:
            return proxy_asks_for_login(endpoint)
        return Unreachable(f"{who}: the proxy answers {status}; check what it lets through{endpoint.remark}")
    if isinstance(error, httpx.TimeoutException):
        return Stalled(f"{who}: no connection in time ({type(error).__name__}); {PASSES}{endpoint.remark}")
    return Unreachable(
        f"{who}: no answer ({type(error).__name__}); check {setting} and the network if this lasts{endpoint.remark}"
    )


def proxy_asks_for_login(endpoint: Endpoint) -> NotAuthorised:
    """407: to a request for a way (CONNECT) it comes as an error, to an `http://` address as an answer."""
    return NotAuthorised(
        f"{endpoint.who}: the proxy asks for a name and a password (407); put them into its address{endpoint.remark}"
    )


def retry_after_s(headers: Mapping[str, str], message: str, *, now: datetime) -> float | None:
    """Seconds the server asks to wait: `Retry-After` in seconds or as a date (RFC 9110 §10.2.3), else its words."""
    lowered = {name.lower(): value for name, value in headers.items()}
    milliseconds = _number(lowered.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    asked = lowered.get("retry-after", "").strip()
    seconds = _number(asked)
    if seconds is not None:
        return seconds
    if asked:
        try:
            moment = parsedate_to_datetime(asked)
        except ValueError:
            return None
        # A date without a zone is UTC: RFC 9110 §5.6.7 allows no other.
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, (moment - now).total_seconds())
    words = _TRY_AGAIN.search(message)
    if not words:
        return None
    unit = words["unit"].lower()
    return float(words["n"]) * {"ms": 0.001, "milli": 0.001, "s": 1.0, "m": 60.0}[unit]


def limit_told(message: str) -> tuple[LimitKind | None, int | None]:
    """Which of the account's limits the text names, and its figure: ("rpm", 3) of "max RPM: 3"."""
    for kind, pattern in _LIMITS:
        found = pattern.search(message)
        if found:
            figure = found["value"] or found["max"]
            return kind, int(figure) if figure else None
    return None, None


def too_long_numbers(message: str) -> tuple[int | None, int | None]:
    """(limit, requested) in tokens, as far as the text tells them."""
    for pattern in _TOO_LONG_NUMBERS:
        found = pattern.search(message)
        if found:
            return int(found["limit"]), int(found["requested"])
    return None, None


def named_parameter(complaint: Complaint, sent: Collection[str]) -> str:
    """Which of the members `sent` (dotted where nested) a 400 complains about; the longest name wins."""
    if complaint.parameter in sent:
        return complaint.parameter
    message = f"{complaint.parameter} {complaint.message}"
    if not _INVALID.search(message):
        return ""
    for name in sorted(sent, key=lambda name: (-len(name), name)):
        if re.search(rf"(?<![\w.]){re.escape(name)}(?![\w])", message):
            return name
    return ""


def safe_words(text: str, api_key: str = "") -> str:
    """A stranger's text for a message of ours: one line, printable, short, without ids and without the key."""
    text = _IDS.sub("[id]", Redactor([api_key])(text))
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= QUOTED_CHARS else text[: QUOTED_CHARS - 1] + "…"


def next_midnight(now: datetime) -> datetime:
    """When the day's token quota turns. Nothing documents the zone; UTC is what the figures of the console follow."""
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day + timedelta(days=1)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < 1e9 else None


def _text(value: object) -> str:
    return "" if value is None or isinstance(value, dict | list) else str(value)
