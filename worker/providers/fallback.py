"""A second provider that takes over where the first cannot answer: one hop, and the first is tried again by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import structlog

from worker.core.errors import (
    BudgetReached,
    ClientNotAllowed,
    LeaseLost,
    NoBalance,
    NotAuthorised,
    NotNow,
    QuotaUsedUp,
    ReviewError,
    Transient,
    UnknownModel,
    WrongEndpoint,
)
from worker.core.exchange import Answer, Prompt
from worker.ports import Clock, Flow, Model, unchecked

log = structlog.get_logger(__name__)

TAKES_OVER: tuple[type[ReviewError], ...] = (
    NoBalance,
    QuotaUsedUp,
    NotAuthorised,
    ClientNotAllowed,
    UnknownModel,
    WrongEndpoint,
    # Raised by a model only once its retries are spent: overloaded, rate limited, unreachable, silent.
    Transient,
)
"""Never `RequestTooLong`, `AnswerCutOff`, `ContentFiltered` or `Unprocessable`: they are about this very request,
and never `BudgetReached`: a stop of our own holds for both."""

State = Literal["closed", "open", "half-open"]


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long the first provider is left alone, in seconds; doubled at every failed probe up to the most."""

    first_s: float = 60.0
    most_s: float = 3600.0


class Breaker:
    """Closed: the first provider is asked. Open: it is not. Half-open: one request probes, the others go past it.

    Pure but for its lock, since reviews run in threads; time comes in as monotonic seconds.
    """

    def __init__(self, backoff: Backoff | None = None) -> None:
        self._backoff = backoff or Backoff()
        self._lock = threading.Lock()
        self._state: State = "closed"
        self._wait_s = self._backoff.first_s
        self._opens_at_s = 0.0

    @property
    def state(self) -> State:
        return self._state

    def admits(self, now_s: float) -> bool:
        """Whether this request may ask the first provider; one that may while it was open is the probe."""
        with self._lock:
            if self._state == "closed":
                return True
            if self._state == "open" and now_s >= self._opens_at_s:
                self._state = "half-open"
                return True
            return False

    def succeeded(self) -> bool:
        """The first provider answered; True when it had been left alone before."""
        with self._lock:
            was_away = self._state != "closed"
            self._state, self._wait_s = "closed", self._backoff.first_s
            return was_away

    def failed(self, now_s: float, *, at_least_s: float = 0.0) -> float:
        """Leave the first provider alone from now on; gives the seconds until the next probe."""
        with self._lock:
            if self._state == "half-open":
                self._wait_s = min(self._wait_s * 2, self._backoff.most_s)
            wait_s = max(self._wait_s, at_least_s)
            self._state, self._opens_at_s = "open", now_s + wait_s
            return wait_s

    def released(self, now_s: float) -> None:
        """A probe ended without telling anything about the provider: the next request probes."""
        with self._lock:
            if self._state == "half-open":
                self._state, self._opens_at_s = "open", now_s


class FallbackModel:
    """Implements `worker.ports.Model` over two others. Each answer names the one that gave it."""

    def __init__(self, primary: Model, second: Model, *, clock: Clock, breaker: Breaker | None = None) -> None:
        self._primary = primary
        self._second = second
        self._clock = clock
        self._breaker = breaker or Breaker()

    @property
    def name(self) -> str:
        return self._primary.name

    @property
    def is_standin(self) -> bool:
        return self._primary.is_standin or self._second.is_standin

    async def complete(self, prompt: Prompt, *, flow: Flow, last_check: Callable[[], None] = unchecked) -> Answer:
        """As `Model.complete`; when both fail, the second's error is raised from the first's.

        Of two that ask for hours the one that ends sooner decides when the job comes back.
        """
        if not self._breaker.admits(self._clock.monotonic()):
            why = f"{self._primary.name} is left alone for now"
            return await self._ask_second(prompt, flow, last_check, why=why)
        try:
            answer = await self._primary.complete(prompt, flow=flow, last_check=last_check)
        except TAKES_OVER as error:
            wait_s = self._breaker.failed(self._clock.monotonic(), at_least_s=self._closed_for_s(error))
            log.warning(
                "model.fallback_took_over",
                model=self._primary.name,
                fallback=self._second.name,
                wait_s=round(wait_s, 1),
                error_type=type(error).__name__,
                error=str(error),
            )
            why = f"{self._primary.name} failed: {type(error).__name__}"
            try:
                return await self._ask_second(prompt, flow, last_check, why=why)
            except ReviewError as second_error:
                raise sooner(error, second_error) from error
        except BaseException:
            # Another kind of error, or a cancelled review: nothing is known of the provider, the probe is free again.
            self._breaker.released(self._clock.monotonic())
            raise
        if self._breaker.succeeded():
            log.info("model.primary_came_back", model=self._primary.name)
        return answer

    async def _ask_second(self, prompt: Prompt, flow: Flow, last_check: Callable[[], None], *, why: str) -> Answer:
        answer = await self._second.complete(prompt, flow=flow, last_check=last_check)
        return replace(answer, notes=(*answer.notes, f"answered by the second provider ({why})"))

    def _closed_for_s(self, error: ReviewError) -> float:
        if isinstance(error, NotNow) and error.until is not None:
            return max(0.0, (error.until - self._clock.now()).total_seconds())
        return 0.0


def sooner(first: ReviewError, second: ReviewError) -> ReviewError:
    """Of two failures, the one after which the job should be tried again the earliest."""
    if isinstance(second, BudgetReached | LeaseLost):
        return second
    for error in (second, first):
        if isinstance(error, Transient):
            return error
    if isinstance(first, NotNow) and isinstance(second, NotNow):
        return min(first, second, key=_until)
    return first if isinstance(first, NotNow) else second


def _until(error: NotNow) -> datetime:
    """When nobody knows, later than every known moment."""
    return error.until or datetime.max.replace(tzinfo=UTC)
