"""A throttle in memory, for one event loop: the limits, classes, fairness and refusals of the one in Redis."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from worker.core.errors import BudgetReached, Overloaded, QuotaUsedUp, RateLimited, RequestTooLong
from worker.core.job import Priority
from worker.core.limits import FIRST_CONCURRENCY, HardStops, LimitKind, Limits
from worker.core.usage import Usage
from worker.ports import Cost, Flow, Slot


@dataclass
class _Counted:
    at: float
    tokens: int


@dataclass
class _Request:
    cost: Cost
    flow: Flow
    number: int
    turn: asyncio.Future[None]
    counted: _Counted | None = None
    usage: Usage | None = None

    async def settle(self, usage: Usage) -> None:
        self.usage = usage


@dataclass
class FakeThrottle:
    limits: Limits = field(default_factory=Limits)
    stops: HardStops = field(default_factory=HardStops)
    minute_s: float = 60.0

    def __post_init__(self) -> None:
        self.known: dict[LimitKind, int] = {
            kind: value
            for kind in ("concurrency", "rpm", "tpm", "tpd")
            if (value := self.limits.value(kind)) is not None
        }
        self.adapted: float | None = None if "concurrency" in self.known else float(FIRST_CONCURRENCY)
        self.lowered_at = float("-inf")
        self.paused_until = 0.0
        self.quota_until: datetime | None = None
        self.line: list[_Request] = []
        self.held: list[_Request] = []
        self.minute: deque[_Counted] = deque()
        self.day_tokens = 0
        self.month_usd = 0.0
        self.review_usd: dict[str, float] = defaultdict(float)
        self.served: dict[tuple[Priority, str], int] = defaultdict(int)
        self.streak = 0
        self.numbers = itertools.count()

    @property
    def concurrency(self) -> int:
        bounds = [bound for bound in (self.known.get("concurrency"), self.adapted) if bound is not None]
        return max(1, int(min(bounds)))

    def admit(self, cost: Cost, *, flow: Flow) -> AbstractAsyncContextManager[Slot]:
        return self._admit(cost, flow)

    @asynccontextmanager
    async def _admit(self, cost: Cost, flow: Flow) -> AsyncIterator[Slot]:
        request = _Request(cost, flow, next(self.numbers), asyncio.get_running_loop().create_future())
        behind = [self.served[waiting.flow.priority, waiting.flow.change] for waiting in self.line]
        mine = (flow.priority, flow.change)
        # Nobody who comes late is owed what the others had before.
        self.served[mine] = max(self.served[mine], min(behind, default=0))
        self.line.append(request)
        self._serve()
        try:
            await request.turn
            yield request
        finally:
            if request in self.line:
                self.line.remove(request)
            if request in self.held:
                self.held.remove(request)
                self._book(request)
            self._serve()

    async def refused(self, error: Exception) -> None:
        now = asyncio.get_running_loop().time()
        if isinstance(error, QuotaUsedUp):
            self.quota_until = error.until or datetime.now(UTC) + timedelta(hours=1)
        elif isinstance(error, RateLimited | Overloaded):
            told = isinstance(error, RateLimited) and error.limit is not None and error.limit_value is not None
            if isinstance(error, RateLimited) and error.limit and error.limit_value:
                self.known[error.limit] = min(error.limit_value, self.known.get(error.limit, error.limit_value))
            elif not told and now - self.lowered_at >= 1.0:
                self.lowered_at = now
                self.adapted = max(1.0, self.concurrency * 0.85)
            self.paused_until = max(self.paused_until, now + max(error.retry_after_s or 0.0, 1.0))
        self._serve()

    def _book(self, request: _Request) -> None:
        if request.usage is None or request.counted is None:
            return
        request.counted.tokens += request.usage.input_tokens - request.cost.input_tokens
        self.month_usd += request.usage.cost_usd or 0.0
        self.review_usd[request.flow.job] += request.usage.cost_usd or 0.0

    def _order(self, request: _Request) -> tuple[bool, int, int]:
        batch_turn = self.streak >= 9
        is_later = (request.flow.priority is Priority.BATCH) is not batch_turn
        return is_later, self.served[request.flow.priority, request.flow.change], request.number

    def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self.minute and self.minute[0].at + self.minute_s <= now:
            self.minute.popleft()
        for request in sorted(self.line, key=self._order):
            refusal = self._refusal(request)
            if refusal is not None:
                self.line.remove(request)
                request.turn.set_exception(refusal)
        for request in sorted(self.line, key=self._order):
            if not self._affords(request):
                continue
            wake_at = self._wake_at(request, now)
            if wake_at is not None:
                loop.call_at(wake_at, self._serve)
            if wake_at is not None or len(self.held) >= self.concurrency:
                return
            self._grant(request, now)
            # The order has changed with what was served.
            self._serve()
            return

    def _grant(self, request: _Request, now: float) -> None:
        batch_waits = any(waiting.flow.priority is Priority.BATCH for waiting in self.line)
        is_batch = request.flow.priority is Priority.BATCH
        self.streak = self.streak + 1 if batch_waits and not is_batch else 0
        self.line.remove(request)
        self.held.append(request)
        self.served[request.flow.priority, request.flow.change] += request.cost.tokens + 1
        request.counted = _Counted(now, request.cost.tokens)
        self.minute.append(request.counted)
        self.day_tokens += request.cost.tokens
        with suppress(asyncio.InvalidStateError):
            request.turn.set_result(None)

    def _refusal(self, request: _Request) -> Exception | None:
        now = datetime.now(UTC)
        tokens = request.cost.tokens
        if self.quota_until and self.quota_until > now:
            return QuotaUsedUp("the quota is used up", until=self.quota_until)
        for kind in ("tpm", "tpd"):
            if kind in self.known and tokens > self.known[kind]:
                return RequestTooLong("never fits", limit_tokens=self.known[kind], requested_tokens=tokens)
        if self.day_tokens + tokens > self.known.get("tpd", self.day_tokens + tokens):
            return QuotaUsedUp("the day's tokens are used up", until=now + timedelta(days=1))
        if self.stops.month_usd is not None and self.month_usd >= self.stops.month_usd:
            return BudgetReached("LLM_MONTHLY_BUDGET_USD")
        if self.stops.review_usd is not None and self.review_usd[request.flow.job] >= self.stops.review_usd:
            return BudgetReached("LLM_REVIEW_BUDGET_USD")
        return None

    def _affords(self, request: _Request) -> bool:
        """Whether what is spent and what requests under way may cost leave room below both stops."""
        ours = [held for held in self.held if held.flow.job == request.flow.job]
        for stop, spent, held in (
            (self.stops.month_usd, self.month_usd, self.held),
            (self.stops.review_usd, self.review_usd[request.flow.job], ours),
        ):
            if stop is not None and spent + sum(one.cost.worst_usd or 0.0 for one in held) >= stop:
                return False
        return True

    def _wake_at(self, request: _Request, now: float) -> float | None:
        """When time alone lets `request` go; None when time does not stand in the way."""
        if self.paused_until > now:
            return self.paused_until
        requests = len(self.minute) + 1 - self.known.get("rpm", len(self.minute) + 1)
        counted = sum(counted.tokens for counted in self.minute)
        tokens = counted + request.cost.tokens - self.known.get("tpm", counted + request.cost.tokens)
        leaving = iter(self.minute)
        at = None
        while requests > 0 or tokens > 0:
            oldest = next(leaving)
            requests, tokens, at = requests - 1, tokens - oldest.tokens, oldest.at + self.minute_s
        return at
