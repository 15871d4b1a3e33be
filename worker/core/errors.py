"""The one tree of errors, cut by what the reader or the retry does next.

    ReviewError
    ├── ConfigurationError        the operator changes a setting; exit 78, no retry
    ├── BadInput                  the caller changes the call; exit 2, HTTP 400
    ├── NotSigned                 the caller did not prove who it is; HTTP 401, counted by reason
    ├── Transient                 the same call again, later (`core/retry.py` says when)
    │   ├── Unreachable           no answer: DNS, TLS hang, reset, time-out, 5xx, gateway HTML
    │   ├── Overloaded            the other side has no capacity for anybody
    │   ├── RateLimited           our account sends too much; tells which limit where known
    │   ├── Stalled               a stream that went silent or ran past its deadline
    │   └── EmptyAnswer           200 without content
    ├── NotNow                    hours, not seconds: the job is deferred and holds nothing
    │   ├── QuotaUsedUp           the day's tokens or the plan's window are gone
    │   ├── NoBalance             the account has no money left
    │   └── BudgetReached         our own hard stop (month or review)
    ├── Refused                   the same call can never succeed; the operator acts
    │   ├── NotAuthorised         key, token or permission
    │   ├── UnknownModel          the model is retired, misspelt or not permitted
    │   ├── WrongEndpoint         the base URL lacks /v1, redirects, or serves something else
    │   ├── ClientNotAllowed      the plan admits other programs only
    │   ├── NotFound              repository, change or commit is gone
    │   └── Unprocessable         the other side understood and declined this very content
    ├── RequestTooLong            split the chunk, correct the estimate
    ├── AnswerCutOff              finish_reason=length: raise the cap, else split
    ├── ContentFiltered           isolate the file by halving, name it
    ├── ParameterRefused          drop the named parameter once, remember it for the model
    ├── OutcomeUnknown            a write may or may not have happened: look before writing again
    ├── WrittenByNewer            a newer version of this program is needed: the job is left to it, no attempt counts
    ├── Superseded                a newer head took over; not a failure
    └── LeaseLost                 another worker owns the job now; stop, write nothing

A message names who, what, and the next step. It never holds a token, a diff or a prompt.
Adapters raise only these; everything else is a fault of ours and is let through.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from worker.core.usage import Usage

LimitKind = Literal["concurrency", "rpm", "tpm", "tpd"]


class ReviewError(Exception):
    """Base of all errors this program raises on purpose."""


class ConfigurationError(ReviewError):
    """`problems` has one line per wrong setting: its name, what is wrong, what to write; never its value."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class BadInput(ReviewError):
    """The caller asked for something that cannot be: a missing range, bytes that are no diff."""


class NotSigned(ReviewError):
    """`reason` is one of a few fixed words, fit for a counter's label: "missing", "wrong", "malformed"."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Transient(ReviewError):
    """`retry_after_s` is the other side's wish (RFC 9110 §10.2.3), None when it sent none."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unreachable(Transient): ...


class Overloaded(Transient): ...


class RateLimited(Transient):
    """`limit` and `limit_value` are what the other side's text told: ("rpm", 3), or None."""

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        limit: LimitKind | None = None,
        limit_value: int | None = None,
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.limit = limit
        self.limit_value = limit_value


class Stalled(Transient): ...


class EmptyAnswer(Transient): ...


class NotNow(ReviewError):
    """`until` is when it may work again, None when nobody knows."""

    def __init__(self, message: str, *, until: datetime | None = None) -> None:
        super().__init__(message)
        self.until = until


class QuotaUsedUp(NotNow): ...


class NoBalance(NotNow): ...


class BudgetReached(NotNow): ...


class Refused(ReviewError): ...


class NotAuthorised(Refused): ...


class UnknownModel(Refused): ...


class WrongEndpoint(Refused): ...


class ClientNotAllowed(Refused): ...


class NotFound(Refused): ...


class Unprocessable(Refused): ...


class RequestTooLong(ReviewError):
    """`limit_tokens` and `requested_tokens` (input + cap) as the server told them, None where it did not."""

    def __init__(self, message: str, *, limit_tokens: int | None = None, requested_tokens: int | None = None) -> None:
        super().__init__(message)
        self.limit_tokens = limit_tokens
        self.requested_tokens = requested_tokens


class AnswerCutOff(ReviewError):
    """`text` is what had arrived; complete findings in it are worth saving. `usage` is paid all the same."""

    def __init__(self, message: str, *, text: str = "", usage: Usage | None = None) -> None:
        super().__init__(message)
        self.text = text
        self.usage = usage


class ContentFiltered(ReviewError): ...


class ParameterRefused(ReviewError):
    """`parameter` is the request member that the 400 named."""

    def __init__(self, message: str, *, parameter: str) -> None:
        super().__init__(message)
        self.parameter = parameter


class OutcomeUnknown(ReviewError): ...


class WrittenByNewer(ReviewError): ...


class Superseded(ReviewError):
    """`by` is the newer head's SHA."""

    def __init__(self, message: str, *, by: str) -> None:
        super().__init__(message)
        self.by = by


class LeaseLost(ReviewError): ...
