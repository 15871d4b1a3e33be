"""One suite over the throttle in memory and the one in Redis: limits, order, refusals, money."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from tests.fakes.throttle import FakeThrottle
from worker.core.errors import BudgetReached, Overloaded, QuotaUsedUp, RateLimited, RequestTooLong
from worker.core.job import Priority
from worker.core.limits import HardStops, Limits
from worker.core.usage import Usage
from worker.ports import Cost, Flow, Throttle
from worker.storage.throttle import RedisThrottle, Windows

SMALL = Cost(800, 200)
FLOW = Flow("change", "repository", job="job")
MINUTE_S = 0.5
GUARD_S = 0.1


class Bench:
    """Makes throttles of one kind and runs a test's coroutine against one."""

    def __init__(self, kind: str, redis_url: str) -> None:
        self.kind, self.redis_url = kind, redis_url

    @asynccontextmanager
    async def open(self, limits: Limits, stops: HardStops) -> AsyncIterator[Throttle]:
        if self.kind == "memory":
            yield FakeThrottle(limits, stops, minute_s=MINUTE_S)
            return
        async with Redis.from_url(self.redis_url) as redis:
            windows = Windows(minute_s=MINUTE_S, guard_s=GUARD_S)
            throttle = RedisThrottle(redis, account="a", limits=limits, stops=stops, windows=windows)
            yield throttle
            await throttle.aclose()

    def run(
        self,
        test: Callable[[Throttle], Awaitable[None]],
        *,
        limits: Limits | None = None,
        stops: HardStops | None = None,
    ) -> None:
        async def main() -> None:
            async with self.open(limits or Limits(), stops or HardStops()) as throttle, asyncio.timeout(20):
                await test(throttle)

        asyncio.run(main())


@pytest.fixture(params=["memory", "redis"])
def bench(request: pytest.FixtureRequest, redis_url: str) -> Bench:
    return Bench(request.param, redis_url)


async def use(throttle: Throttle, seconds: float = 0.0, *, cost: Cost = SMALL, flow: Flow = FLOW) -> float:
    """Make one request; the answer is when it was admitted."""
    async with throttle.admit(cost, flow=flow):
        at = time.monotonic()
        await asyncio.sleep(seconds)
    return at


async def standing(throttle: Throttle, *, in_use: int, waiting: int) -> None:
    """Until so many requests are under way and so many stand in line."""
    while True:
        if isinstance(throttle, FakeThrottle):
            now = len(throttle.held), len(throttle.line)
        else:
            assert isinstance(throttle, RedisThrottle)
            told = await throttle.standing()
            now = told.in_use, told.waiting
        if now == (in_use, waiting):
            return
        await asyncio.sleep(0.01)


class Open:
    """Counts how many requests are open, and remembers the most."""

    def __init__(self) -> None:
        self.now = self.most = self.all = 0

    async def request(self, throttle: Throttle, seconds: float = 0.02, *, flow: Flow = FLOW) -> None:
        async with throttle.admit(SMALL, flow=flow):
            self.now += 1
            self.all += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(seconds)
            self.now -= 1


def most_within(moments: Sequence[float], window_s: float) -> int:
    return max(sum(1 for moment in moments if start <= moment < start + window_s) for start in moments)


def test_no_more_requests_are_open_than_the_limit_and_all_are_served(bench: Bench) -> None:
    async def test(throttle: Throttle) -> None:
        requests = Open()
        await asyncio.gather(*(requests.request(throttle) for _ in range(20)))
        assert (requests.most, requests.all) == (3, 20)

    bench.run(test, limits=Limits(concurrency=3))


def test_no_minute_has_more_requests_than_the_limit(bench: Bench) -> None:
    async def test(throttle: Throttle) -> None:
        began = time.monotonic()
        moments = await asyncio.gather(*(use(throttle) for _ in range(12)))
        assert most_within(moments, MINUTE_S) <= 5
        assert time.monotonic() - began < 3.5 * MINUTE_S

    bench.run(test, limits=Limits(concurrency=50, rpm=5))


def test_no_minute_has_more_tokens_than_the_limit(bench: Bench) -> None:
    async def test(throttle: Throttle) -> None:
        moments = await asyncio.gather(*(use(throttle) for _ in range(8)))
        assert most_within(moments, MINUTE_S) <= 3

    bench.run(test, limits=Limits(concurrency=50, tpm=3_999))


def test_a_request_larger_than_the_minute_is_refused_for_good(bench: Bench) -> None:
    async def test(throttle: Throttle) -> None:
        with pytest.raises(RequestTooLong) as refusal:
            await use(throttle)
        assert (refusal.value.limit_tokens, refusal.value.requested_tokens) == (999, 1_000)

    bench.run(test, limits=Limits(tpm=999))


def test_a_request_larger_than_the_day_is_refused_for_good_and_not_put_off_for_ever(bench: Bench) -> None:
    async def test(throttle: Throttle) -> None:
        with pytest.raises(RequestTooLong):
            await use(throttle, cost=Cost(1_000, 1))
        await use(throttle, cost=Cost(999, 1))

    bench.run(test, limits=Limits(tpd=1_000))


def test_the_days_tokens_once_gone_defer_with_the_time_of_their_return(bench: Bench) -> None:
    async def test(throttle: Throttle) -> None:
        await use(throttle)
        await use(throttle)
        with pytest.raises(QuotaUsedUp) as refusal:
            await use(throttle)
        assert refusal.value.until is not None
        assert timedelta(hours=23) < refusal.value.until - datetime.now(UTC) < timedelta(hours=25)

    bench.run(test, limits=Limits(tpd=2_500))


def test_a_used_up_quota_refuses_newcomers_and_those_in_line_at_once(bench: Bench) -> None:
    tomorrow = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=9)

    async def test(throttle: Throttle) -> None:
        async with throttle.admit(SMALL, flow=FLOW):
            waiting = asyncio.create_task(use(throttle))
            await standing(throttle, in_use=1, waiting=1)
            await throttle.refused(QuotaUsedUp("used up", until=tomorrow))
            for refused in (waiting, use(throttle)):
                with pytest.raises(QuotaUsedUp) as refusal:
                    await refused
                assert refusal.value.until == tomorrow

    bench.run(test, limits=Limits(concurrency=1))


def test_interactive_goes_before_batch_and_batch_still_gets_its_share(bench: Bench) -> None:
    async def test(throttle: Throttle) -> None:
        order: list[str] = []

        async def request(flow: Flow) -> None:
            async with throttle.admit(SMALL, flow=flow):
                order.append(flow.priority.value)

        async with throttle.admit(SMALL, flow=FLOW):
            batch = Flow("old", "archive", Priority.BATCH)
            tasks = [asyncio.create_task(request(batch)) for _ in range(5)]
            await standing(throttle, in_use=1, waiting=5)
            tasks += [asyncio.create_task(request(FLOW)) for _ in range(30)]
            await standing(throttle, in_use=1, waiting=35)
        await asyncio.gather(*tasks)
        assert order[0] == "interactive"
        assert 2 <= order[:30].count("batch") <= 4

    bench.run(test, limits=Limits(concurrency=1))


def test_a_small_change_does_not_wait_behind_the_units_of_a_giant(bench: Bench) -> None:
    async def test(throttle: Throttle) -> None:
        order: list[str] = []

        async def request(flow: Flow) -> None:
            async with throttle.admit(SMALL, flow=flow):
                order.append(flow.change)

        async with throttle.admit(SMALL, flow=FLOW):
            tasks = [asyncio.create_task(request(Flow("giant", "repository"))) for _ in range(40)]
            await standing(throttle, in_use=1, waiting=40)
            tasks += [asyncio.create_task(request(Flow("small", "repository"))) for _ in range(2)]
            await standing(throttle, in_use=1, waiting=42)
        await asyncio.gather(*tasks)
        assert "small" in order[:2]
        assert order[:5].count("small") == 2

    bench.run(test, limits=Limits(concurrency=1))


def test_a_limit_that_a_refusal_tells_is_kept_by_all_who_follow(bench: Bench) -> None:
    async def test(throttle: Throttle) -> None:
        await throttle.refused(RateLimited("max organization concurrency: 2", limit="concurrency", limit_value=2))
        requests = Open()
        await asyncio.gather(*(requests.request(throttle) for _ in range(8)))
        assert requests.most == 2

    bench.run(test, limits=Limits(concurrency=20))


def test_retry_after_pauses_everybody(bench: Bench) -> None:
    async def test(throttle: Throttle) -> None:
        began = time.monotonic()
        await throttle.refused(RateLimited("wait", limit="concurrency", limit_value=10, retry_after_s=1.3))
        assert await use(throttle) - began >= 1.3

    bench.run(test, limits=Limits(concurrency=10))


def test_overload_lowers_the_concurrency(bench: Bench) -> None:
    async def test(throttle: Throttle) -> None:
        await throttle.refused(Overloaded("engine overloaded"))
        requests = Open()
        await asyncio.gather(*(requests.request(throttle, 1.2) for _ in range(9)))
        assert 5 <= requests.most <= 8

    bench.run(test, limits=Limits(concurrency=10))


def test_overload_never_lowers_the_concurrency_below_one(bench: Bench) -> None:
    async def test(throttle: Throttle) -> None:
        await throttle.refused(Overloaded("engine overloaded"))
        requests = Open()
        await asyncio.gather(*(requests.request(throttle) for _ in range(2)))
        assert (requests.most, requests.all) == (1, 2)

    bench.run(test, limits=Limits(concurrency=1))


def test_a_review_stops_at_its_budget_and_passes_it_by_one_request_at_most(bench: Bench) -> None:
    async def test(throttle: Throttle) -> None:
        spent_cents = 0

        async def request() -> None:
            nonlocal spent_cents
            async with throttle.admit(Cost(800, 200, worst_usd=0.30), flow=FLOW) as slot:
                await asyncio.sleep(0.01)
                spent_cents += 10
                await slot.settle(Usage(requests=1, input_tokens=800, output_tokens=10, cost_usd=0.10))

        ends = await asyncio.gather(*(request() for _ in range(30)), return_exceptions=True)
        refusals = [end for end in ends if end is not None]
        assert refusals
        assert all(isinstance(refusal, BudgetReached) for refusal in refusals)
        # 1.00 is spent in steps of 0.10, although the worst case would have stopped it at the third.
        assert 100 <= spent_cents <= 100 + 30
        await use(throttle, flow=Flow("another", "repository", job="another"))

    bench.run(test, limits=Limits(concurrency=20), stops=HardStops(review_usd=1.0))


def test_the_months_budget_stops_every_review(bench: Bench) -> None:
    async def test(throttle: Throttle) -> None:
        async with throttle.admit(Cost(800, 200, worst_usd=2.0), flow=FLOW) as slot:
            await slot.settle(Usage(requests=1, input_tokens=800, output_tokens=10, cost_usd=1.0))
        with pytest.raises(BudgetReached):
            await use(throttle, flow=Flow("another", "other", job="another"))

    bench.run(test, stops=HardStops(month_usd=1.0))


def test_the_months_budget_is_passed_by_one_request_at_most(bench: Bench) -> None:
    async def test(throttle: Throttle) -> None:
        spent_cents = 0

        async def request(number: int) -> None:
            nonlocal spent_cents
            flow = Flow(f"change-{number}", "repository", job=f"job-{number}")
            async with throttle.admit(Cost(800, 200, worst_usd=0.30), flow=flow) as slot:
                await asyncio.sleep(0.01)
                spent_cents += 30
                await slot.settle(Usage(requests=1, input_tokens=800, output_tokens=10, cost_usd=0.30))

        ends = await asyncio.gather(*(request(number) for number in range(12)), return_exceptions=True)
        assert sum(isinstance(end, BudgetReached) for end in ends) == 12 - spent_cents // 30
        assert 100 <= spent_cents <= 100 + 30

    bench.run(test, limits=Limits(concurrency=20), stops=HardStops(month_usd=1.0))


def test_a_cancelled_waiter_leaves_the_line_and_a_cancelled_holder_gives_its_slot_back(bench: Bench) -> None:
    async def test(throttle: Throttle) -> None:
        holder = asyncio.create_task(use(throttle, 60))
        await standing(throttle, in_use=1, waiting=0)
        waiter = asyncio.create_task(use(throttle, 60))
        await standing(throttle, in_use=1, waiting=1)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        last = asyncio.create_task(use(throttle))
        await standing(throttle, in_use=1, waiting=1)
        assert not last.done()
        holder.cancel()
        await last

    bench.run(test, limits=Limits(concurrency=1))


def test_an_error_inside_gives_the_slot_back(bench: Bench) -> None:
    async def test(throttle: Throttle) -> None:
        with pytest.raises(ZeroDivisionError):
            async with throttle.admit(SMALL, flow=FLOW):
                raise ZeroDivisionError
        await use(throttle)

    bench.run(test, limits=Limits(concurrency=1))


def test_settling_corrects_the_input_and_does_not_refund_the_cap(bench: Bench) -> None:
    async def test(throttle: Throttle) -> None:
        # Counted as 900 + 100; in truth 400 + 100, of whose cap 1 token was used.
        async with throttle.admit(Cost(900, 100), flow=FLOW) as slot:
            await slot.settle(Usage(requests=1, input_tokens=400, output_tokens=1))
        began = time.monotonic()
        assert await use(throttle, cost=Cost(500, 0)) - began < MINUTE_S / 2
        assert await use(throttle, cost=Cost(1, 0)) - began > MINUTE_S / 2

    bench.run(test, limits=Limits(tpm=1_000))


def test_a_large_request_is_not_starved_by_small_ones(bench: Bench) -> None:
    async def test(throttle: Throttle) -> None:
        stop = asyncio.Event()

        async def small(number: int) -> None:
            while not stop.is_set():
                await use(throttle, cost=Cost(100, 0), flow=Flow(f"small-{number}", f"repository-{number}"))

        tasks = [asyncio.create_task(small(number)) for number in range(10)]
        await asyncio.sleep(0.2)
        began = time.monotonic()
        admitted = await use(throttle, cost=Cost(900, 0), flow=Flow("large", "large"))
        stop.set()
        await asyncio.gather(*tasks)
        assert admitted - began < 5 * MINUTE_S

    bench.run(test, limits=Limits(concurrency=50, tpm=1_000))
