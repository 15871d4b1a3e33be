"""The account's limits in Redis: one atomic admission for the whole fleet (`throttle_*.lua`).

A request stands in line, is admitted when every limit allows it, and holds a slot until it is done. All of it is
decided by scripts that run inside Redis by Redis' clock; this module sends requests in, waits to be told, and keeps
one lease per instance alive. `docs/adr/throttle.md` has the reasons.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args
from uuid import uuid4

from redis.asyncio import Redis

from worker.core.errors import (
    BudgetReached,
    LimitKind,
    Overloaded,
    QuotaUsedUp,
    RateLimited,
    RequestTooLong,
    ReviewError,
    Unreachable,
)
from worker.core.job import Priority
from worker.core.limits import FIRST_CONCURRENCY, LIMIT_KINDS, HardStops, Limits
from worker.core.usage import Usage
from worker.ending import end
from worker.ports import Cost, Flow, Slot
from worker.storage.connection import PREFIX
from worker.storage.faults import answering
from worker.storage.spending import MONEY_PREFIX, micro_usd

Verb = Literal["admit", "leave", "renew", "tick", "restamp", "refused", "lifted", "standing"]

LEASE_S = 15.0
"""A dead process' slots are back after this at the latest."""
BEATS_PER_LEASE = 5
"""A live one renews so often. The lease in Redis is one beat shorter, so that another's beat can find it ended."""
GUARD_S = 1.0
"""The longest way from admission here to arrival at the server that no window is hurt by; costs 1 s in 61."""
BATCH_SHARE = 10
"""While both classes wait, every tenth admission is batch's."""
REQUEST_WEIGHT_TOKENS = 10_000
"""What a request weighs in the fair queue besides its tokens: it holds a slot, however small it is."""
CALLS_AT_ONCE = 8
"""Scripts of one instance on their way to Redis, which runs one at a time anyway."""
RENEWED_WAITERS = 100
"""How many a heartbeat asks about, so that its cost does not grow with the line."""
DEAF_AFTER = 1
"""So many unread messages, and an instance gets no slot until it reads them: it is dead, or stands still."""
BURST_GAP_MS = 50
"""Under a limit per minute ten requests may go at once; more follow at this distance, or at four times the pace."""
QUOTA_PAUSE_S = 3600.0
"""Where the server does not say when its window turns: ask again after an hour."""
LONGEST_PAUSE_S = 600.0
"""Who is told to wait longer is no crowded server but a closed account: jobs are put off, and hold no worker."""

KEYS = (
    *("state", "slots", "waiters", "instances", "line", "changes", "repos:i", "repos:b", "tags", "seen"),
    *("minute", "minute:n", "day", "day:n"),
)
"""As `throttle_prelude.lua` numbers them."""


@dataclass(frozen=True, slots=True)
class Windows:
    """How the server counts. The defaults are the vendor's; a test may turn faster."""

    minute_s: float = 60.0
    day_s: float = 86_400.0
    guard_s: float = GUARD_S

    @property
    def bucket_ms(self) -> int:
        """A 300th of the window: 200 ms of a minute, 300 numbers to keep at most."""
        return max(1, math.ceil(self.minute_s * 1000 / 300))

    @property
    def day_bucket_ms(self) -> int:
        """A quarter of an hour of a day."""
        return max(1, math.ceil(self.day_s * 1000 / 96))


@dataclass(frozen=True, slots=True)
class KnownLimit:
    """One limit in force. `source` is "settings", the plan's name, or "told by a refusal"."""

    kind: LimitKind
    value: int
    source: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How the account stands now, over the whole fleet. Times are aware, None when there is no such pause."""

    limits: tuple[KnownLimit, ...]
    concurrency: int
    """The concurrency in force: known, or adapted to what the server bears."""
    in_use: int
    waiting: int
    minute_requests: int
    minute_tokens: int
    day_tokens: int
    is_adapting: bool
    """True where the concurrency is found by trying: it is not known, or overload has lowered it."""
    paused_until: datetime | None
    quota_used_up_until: datetime | None


@cache
def _source(verb: Verb) -> str:
    folder = files("worker.storage")
    return "\n".join((folder / f"throttle_{name}.lua").read_text("utf-8") for name in ("prelude", verb))


def _flow_hash(name: str) -> str:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _when(ms: float | None, *, now_ms: float) -> datetime | None:
    return None if ms is None or ms <= now_ms else datetime.fromtimestamp(ms / 1000, UTC)


class _RedisSlot:
    """A slot as its holder sees it: usage is kept here and told when the slot goes back, in one step."""

    def __init__(self) -> None:
        self.usage = Usage()

    async def settle(self, usage: Usage) -> None:
        self.usage += usage


@dataclass(slots=True)
class _Request:
    """A request of this instance while it waits or holds a slot."""

    id: str
    cost: Cost
    flow: Flow
    answer: asyncio.Future[Mapping[str, Any]] = field(repr=False)
    is_in_line: bool = False
    """Whether Redis has said that it waits."""

    def facts(self) -> dict[str, object]:
        return {
            "id": self.id,
            "input": self.cost.input_tokens,
            "tokens": self.cost.tokens,
            "usd": micro_usd(self.cost.worst_usd or 0.0),
            "job": self.flow.job,
            "repository": self.flow.repository,
        }


class RedisThrottle:
    """The `Throttle` of one event loop; any number of them, in any number of processes, share one account.

    `account` is `account_of(base_url, key)`. `redis` belongs to the same loop and is closed by its owner. Nothing runs
    in the background while no request waits or is under way; `aclose` ends what does.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        account: str,
        limits: Limits,
        stops: HardStops | None = None,
        lease_s: float = LEASE_S,
        windows: Windows | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        windows = windows or Windows()
        stops = stops or HardStops()
        self._redis = redis
        self._lease_s = lease_s
        self._guard_s = windows.guard_s
        self._monotonic = monotonic
        self._instance = uuid4().hex
        self._prefix = f"{PREFIX}:throttle:{account}:"
        self._keys = [self._prefix + name for name in KEYS]
        self._scripts = {verb: redis.register_script(_source(verb)) for verb in get_args(Verb)}
        settings: dict[str, object | None] = {kind: limits.value(kind) for kind in LIMIT_KINDS}
        settings |= {
            "sources": {kind: limits.source(kind) for kind in LIMIT_KINDS},
            "prefix": self._prefix,
            "money": MONEY_PREFIX,
            "first": FIRST_CONCURRENCY,
            "lease": round(lease_s * 1000 * (1 - 1 / BEATS_PER_LEASE)),
            "guard": round(windows.guard_s * 1000),
            "minute": round(windows.minute_s * 1000),
            "width": windows.bucket_ms,
            "day": round(windows.day_s * 1000),
            "day_width": windows.day_bucket_ms,
            "learned": 86_400_000,
            "forget": 600_000,
            "batch_share": BATCH_SHARE,
            "batch": 100,
            "deaf": DEAF_AFTER,
            "gap": BURST_GAP_MS,
            "request_weight": REQUEST_WEIGHT_TOKENS,
            "cool_max": 60_000,
            "month_stop": None if stops.month_usd is None else micro_usd(stops.month_usd),
            "review_stop": None if stops.review_usd is None else micro_usd(stops.review_usd),
            "month_kept": 400 * 86_400_000,
            "job_kept": 14 * 86_400_000,
        }
        # A client has 100 connections and a review may have hundreds of requests; more at once would gain nothing.
        self._calls = asyncio.Semaphore(CALLS_AT_ONCE)
        self._settings = {name: value for name, value in settings.items() if value is not None}
        self._waiting: dict[str, _Request] = {}
        self._held: dict[str, _Request] = {}
        self._owed: dict[str, dict[str, object]] = {}
        """Slots to give back that Redis has not heard of yet; the heartbeat tells it again."""
        self._tasks: list[asyncio.Task[None]] = []
        self._listening = asyncio.Event()
        self._beat_heard = asyncio.Event()
        """While a heartbeat says what is held nothing is given back, or it would bring back what is gone."""
        self._beat_heard.set()
        self._timer: asyncio.TimerHandle | None = None
        self._ticks: set[asyncio.Task[None]] = set()
        self._offset_ms = math.inf
        """Upper bound of Redis' clock minus ours, from the quickest call so far."""

    # ------------------------------------------------------------------------------------------------- the port

    def admit(self, cost: Cost, *, flow: Flow) -> AbstractAsyncContextManager[Slot]:
        return self._admit(cost, flow)

    @asynccontextmanager
    async def _admit(self, cost: Cost, flow: Flow) -> AsyncIterator[Slot]:
        request = _Request(
            id=f"{self._instance}{uuid4().hex[:12]}",
            cost=cost,
            flow=flow,
            answer=asyncio.get_running_loop().create_future(),
        )
        self._waiting[request.id] = request
        self._work()
        try:
            answer = await self._enter(request)
            if answer["kind"] != "admitted":
                raise _refusal(answer, cost)
            self._held[request.id] = self._waiting.pop(request.id)
            await self._keep_in_time(request.id, float(answer["at"]))
        except BaseException as failure:
            self._waiting.pop(request.id, None)
            self._held.pop(request.id, None)
            # While Redis is away the heartbeat tells it, so that the caller hears of the failure at once.
            await self._give_back(request.id, {"unsent": True}, at_once=not isinstance(failure, Unreachable))
            raise
        slot = _RedisSlot()
        try:
            yield slot
        finally:
            del self._held[request.id]
            await self._give_back(request.id, _billed(slot.usage))

    async def refused(self, error: Exception) -> None:
        """Raises `Unreachable` when the store is away."""
        told: dict[str, object] = {"instance": self._instance}
        if (closed_until_s := _closed_until(error)) is not None:
            told |= {"kind": "quota", "till": round(closed_until_s * 1000)}
        elif isinstance(error, RateLimited | Overloaded):
            told |= {
                "kind": "overloaded" if isinstance(error, Overloaded) else "rate",
                "floor": round(_floor_s(error) * 1000),
            }
            if error.retry_after_s is not None:
                told["retry"] = round(error.retry_after_s * 1000)
            if isinstance(error, RateLimited) and error.limit:
                told["limit"] = error.limit
                if error.limit_value:
                    told["value"] = error.limit_value
        else:
            return
        await self._call("refused", told)

    # ------------------------------------------------------------------------------------------------ the rest

    async def lift(self, until: datetime) -> None:
        """End the pause until `until`: a request past the throttle was answered. A later one, told since, stays.

        Raises `Unreachable`.
        """
        # A moment of Redis' went through a float of seconds on its way here.
        await self._call("lifted", {"till": math.ceil(until.timestamp() * 1000) + 1})

    @property
    def instance(self) -> str:
        """Names this throttle among those that share the account: `members:<instance>` holds what it waits for."""
        return self._instance

    async def standing(self) -> Standing:
        """Raises `Unreachable`."""
        reply = await self._call("standing", {"instance": self._instance})
        now_ms = reply["now"]
        limits = reply["limits"] or {}
        return Standing(
            limits=tuple(
                KnownLimit(kind, int(limits[kind]["value"]), str(limits[kind]["source"]))
                for kind in LIMIT_KINDS
                if kind in limits
            ),
            concurrency=int(reply["concurrency"]),
            in_use=int(reply["in_use"]),
            waiting=int(reply["waiting"]),
            minute_requests=int(reply["minute_requests"]),
            minute_tokens=int(reply["minute_tokens"]),
            day_tokens=int(reply["day_tokens"]),
            is_adapting="aimd" in reply or "concurrency" not in limits,
            paused_until=_when(reply.get("pause_until"), now_ms=now_ms),
            quota_used_up_until=_when(reply.get("quota_until"), now_ms=now_ms),
        )

    async def aclose(self) -> None:
        """End what runs in the background. Requests still under way lose their lease when it runs out."""
        await self._rest()

    # ------------------------------------------------------------------------------------------- inside a request

    async def _enter(self, request: _Request) -> Mapping[str, Any]:
        facts = request.facts() | {
            "instance": self._instance,
            "class": "b" if request.flow.priority is Priority.BATCH else "i",
            "repo": _flow_hash(request.flow.repository),
            "change": _flow_hash(f"{request.flow.repository}\n{request.flow.change}"),
        }
        reply = await self._call("admit", facts)
        if reply["kind"] != "waiting":
            return reply
        request.is_in_line = True
        self._listening.set()
        return await request.answer

    async def _keep_in_time(self, request_id: str, at_ms: float) -> None:
        """Count the request anew when more than half the guard has gone since Redis admitted it.

        Where Redis itself takes that long to answer, the way to the server has what is left of the guard.
        """
        for _ in range(3):
            if self._monotonic() * 1000 + self._offset_ms - at_ms <= self._guard_s * 500:
                return
            reply = await self._call("restamp", {"id": request_id, "instance": self._instance})
            if "at" not in reply:
                raise Unreachable("Redis lost the slot while this process stood still; the request is made again.")
            at_ms = reply["at"]

    async def _give_back(self, request_id: str, told: dict[str, object], *, at_once: bool = True) -> None:
        """Never fails: an answer that was paid for is not lost because its slot could not be told back."""
        self._owed[request_id] = told | {"id": request_id, "instance": self._instance}
        if at_once:
            await asyncio.shield(asyncio.ensure_future(self._pay_and_rest(request_id)))

    async def _pay_and_rest(self, request_id: str) -> None:
        await self._pay(request_id)
        if self._is_idle:
            await self._rest()

    @property
    def _is_idle(self) -> bool:
        return not (self._waiting or self._held or self._owed)

    async def _pay(self, request_id: str) -> None:
        """Tell Redis what is owed; when it is away, the heartbeat tells it."""
        if told := self._owed.get(request_id):
            with suppress(Unreachable):
                await self._beat_heard.wait()
                await self._call("leave", told)
                self._owed.pop(request_id, None)

    # ----------------------------------------------------------------------------------------------- background

    def _work(self) -> None:
        """Start the heartbeat and the listener, which run while a request waits or is under way."""
        if not self._tasks or any(task.done() for task in self._tasks):
            for task in self._tasks:
                task.cancel()
            self._tasks = [asyncio.create_task(self._beat()), asyncio.create_task(self._listen())]
            for task in self._tasks:
                task.add_done_callback(self._broke)

    def _broke(self, task: asyncio.Task[None]) -> None:
        # A fault of ours in the background must not leave the waiters waiting for ever: they raise it.
        if not task.cancelled() and (fault := task.exception()):
            for request_id in list(self._waiting):
                self._fail(request_id, fault)

    async def _rest(self) -> None:
        mine = asyncio.current_task()
        tasks = [task for task in (*self._tasks, *self._ticks) if task is not mine]
        self._tasks = []
        self._listening.clear()
        if self._timer:
            self._timer.cancel()
            self._timer = None
        await end(tasks, again_s=0.1)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / BEATS_PER_LEASE)
            for request_id in list(self._owed):
                await self._pay(request_id)
            if self._is_idle:
                await self._rest()
                return
            # The oldest do: whom Redis forgot it forgot with all the others.
            waiting = [request.id for request in self._waiting.values() if request.is_in_line][:RENEWED_WAITERS]
            held = [request.facts() for request in self._held.values()]
            self._beat_heard.clear()
            try:
                reply = await self._call("renew", {"instance": self._instance, "waiting": waiting, "held": held})
            except Unreachable:
                # The listener tells the waiters; who holds a slot goes on, and the next beat counts it again.
                continue
            finally:
                self._beat_heard.set()
            for request_id, at_ms in (reply["slots"] or {}).items():
                if request_id in self._waiting:
                    self._answer(request_id, {"kind": "admitted", "at": at_ms})
                elif request_id not in self._held and request_id not in self._owed:
                    # Its caller had left before Redis heard of it: a connection that stood still delivered it late.
                    await self._give_back(request_id, {"unsent": True}, at_once=False)
                    await self._pay(request_id)
            for request_id in reply["unknown"] or ():
                self._fail(request_id, Unreachable("Redis lost the line of waiting requests; stand in line again."))

    async def _listen(self) -> None:
        """Wait to be told, without asking again and again: Redis answers when there is something to say."""
        # Less than the client's own time-out for an answer, which redis-py 8 takes as 5 s when none was given.
        timeout_s = self._redis.connection_pool.connection_kwargs.get("socket_timeout", 5.0)
        block_s = 5.0 if timeout_s is None else max(0.1, min(5.0, timeout_s / 2))
        inbox = f"{self._prefix}inbox:{self._instance}"
        while True:
            await self._listening.wait()
            try:
                with answering():
                    found: Sequence[Any] | None = await self._redis.blmpop(
                        block_s, 1, inbox, direction="LEFT", count=100
                    )
            except Unreachable as away:
                for request_id in list(self._waiting):
                    self._fail(request_id, away)
                await asyncio.sleep(block_s)
                continue
            for text in found[1] if found else ():
                message = json.loads(text)
                if message["kind"] == "due":
                    self._tick_in(message["wait"] / 1000)
                else:
                    self._answer(message["id"], message)

    def _tick_in(self, wait_s: float) -> None:
        if self._timer:
            self._timer.cancel()
        # A millisecond more, so as not to come before the time: Redis rounds its own down.
        self._timer = asyncio.get_running_loop().call_later(wait_s + 0.001, self._start(self._tick))

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        def start() -> None:
            task = asyncio.ensure_future(work())
            self._ticks.add(task)
            task.add_done_callback(self._ticks.discard)

        return start

    async def _tick(self) -> None:
        # When Redis is away the waiters hear it from the listener, and any other heartbeat looks again.
        with suppress(Unreachable):
            await self._call("tick", {"instance": self._instance})

    def _answer(self, request_id: str, message: Mapping[str, Any]) -> None:
        request = self._waiting.get(request_id)
        if request and not request.answer.done():
            request.answer.set_result(message)

    def _fail(self, request_id: str, error: BaseException) -> None:
        request = self._waiting.get(request_id)
        if request and not request.answer.done():
            request.answer.set_exception(error)

    async def _call(self, verb: Verb, argument: Mapping[str, object]) -> dict[str, Any]:
        settings = self._settings | {"seed": random.getrandbits(31)}
        began = self._monotonic()
        with answering():
            async with self._calls:
                text = await self._scripts[verb](keys=self._keys, args=[json.dumps(settings), json.dumps(argument)])
        reply: dict[str, Any] = json.loads(text)
        self._offset_ms = min(self._offset_ms, float(reply["now"]) + 1 - began * 1000)
        return reply


def _billed(usage: Usage) -> dict[str, object]:
    """What `leave` is told of a slot's usage: nothing for a request that was turned away."""
    if not usage.requests:
        return {}
    counters = {
        "requests": usage.requests,
        "input": usage.input_tokens,
        "cached": usage.cached_tokens,
        "output": usage.output_tokens,
    }
    if usage.cost_usd is None:
        counters["unpriced"] = usage.requests
    billed: dict[str, object] = {
        "spent": micro_usd(usage.cost_usd or 0.0),
        "usage": {name: value for name, value in counters.items() if value},
    }
    if not usage.is_estimated and usage.requests == 1:
        billed["input"] = usage.input_tokens
    return billed


def _refusal(answer: Mapping[str, Any], cost: Cost) -> ReviewError:
    kind = answer["kind"]
    if kind in ("quota", "day"):
        until = datetime.fromtimestamp(float(answer["till"]) / 1000, UTC)
        what = (
            "The provider said that the account's quota or balance is"
            if kind == "quota"
            else f"The day's {answer['limit']} tokens are"
        )
        return QuotaUsedUp(f"{what} used up; requests go on at {until:%Y-%m-%d %H:%M} UTC.", until=until)
    if kind == "too_long":
        limit = int(answer["limit"])
        return RequestTooLong(
            f"A request of {cost.tokens} tokens can never pass the account's limit of {limit}; make chunks smaller.",
            limit_tokens=limit,
            requested_tokens=cost.tokens,
        )
    name = "LLM_MONTHLY_BUDGET_USD" if kind == "month" else "LLM_REVIEW_BUDGET_USD"
    next_month = _next_month(datetime.now(UTC)) if kind == "month" else None
    return BudgetReached(f"The budget of {name} is spent; raise it to go on.", until=next_month)


def _next_month(now: datetime) -> datetime:
    return datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)


def _closed_until(error: Exception) -> float | None:
    """Unix time before which nobody needs to ask again; None where the line may wait for it."""
    if isinstance(error, QuotaUsedUp):
        return error.until.timestamp() if error.until else time.time() + QUOTA_PAUSE_S
    asked_s = error.retry_after_s if isinstance(error, RateLimited | Overloaded) else None
    return None if asked_s is None or asked_s <= LONGEST_PAUSE_S else time.time() + asked_s


def _floor_s(error: RateLimited | Overloaded) -> float:
    """The least that helps: a Retry-After of 1 s is too short where three requests a minute are allowed."""
    if isinstance(error, RateLimited) and error.limit == "rpm":
        return 60.0 / error.limit_value if error.limit_value else 5.0
    if isinstance(error, RateLimited) and error.limit in ("tpm", "tpd"):
        return 5.0
    return 1.0
