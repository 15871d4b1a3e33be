"""What only the throttle in Redis has: leases, several instances, lost messages, a store that goes away, its keys."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from importlib.resources import files
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from worker.core.errors import BudgetReached, Overloaded, QuotaUsedUp, RateLimited, Unreachable
from worker.core.limits import HardStops, Limits, account_of
from worker.core.usage import Usage
from worker.ports import Cost, Flow
from worker.storage.connection import PREFIX
from worker.storage.spending import MONEY_PREFIX, Spending
from worker.storage.throttle import KEYS, RedisThrottle, Windows

SMALL = Cost(800, 200)
FLOW = Flow("change", "owner/name", job="job")
LEASE_S = 0.6

Test = Callable[[Redis], Awaitable[None]]


def run(redis_url: str, test: Test) -> None:
    async def main() -> None:
        async with asyncio.timeout(15), Redis.from_url(redis_url, decode_responses=True) as redis:
            await test(redis)

    asyncio.run(main())


def throttle(
    redis: Redis,
    limits: Limits,
    *,
    stops: HardStops | None = None,
    windows: Windows | None = None,
    lease_s: float = LEASE_S,
) -> RedisThrottle:
    return RedisThrottle(redis, account="account", limits=limits, stops=stops, lease_s=lease_s, windows=windows)


async def waiters(throttle: RedisThrottle, number: int) -> None:
    """Until so many stand in line."""
    while (await throttle.standing()).waiting < number:  # noqa: ASYNC110 — the line is in another process
        await asyncio.sleep(0.01)


async def use(throttle: RedisThrottle, *, flow: Flow = FLOW, cost: Cost = SMALL) -> float:
    async with throttle.admit(cost, flow=flow):
        return time.monotonic()


async def die(redis: Redis, throttle: RedisThrottle) -> None:
    """End what renews the lease, as kill -9 does; what it holds and waits for stays in Redis."""
    await throttle.aclose()


def test_the_slots_of_a_dead_process_are_back_when_its_lease_ends(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        dead, alive = throttle(redis, Limits(concurrency=1)), throttle(redis, Limits(concurrency=1))
        lost = dead.admit(SMALL, flow=FLOW)
        await lost.__aenter__()
        began = time.monotonic()
        await die(redis, dead)
        assert LEASE_S / 3 < await use(alive) - began < LEASE_S + 0.3

    run(redis_url, test)


def test_a_dead_waiter_at_the_head_of_the_line_holds_nobody_up(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        dead, alive = throttle(redis, Limits(concurrency=1)), throttle(redis, Limits(concurrency=1))
        async with alive.admit(SMALL, flow=FLOW):
            lost = asyncio.create_task(use(dead))
            await waiters(alive, 1)
            await die(redis, dead)
            next_one = asyncio.create_task(use(alive))
            await waiters(alive, 2)
        began = time.monotonic()
        assert await next_one - began < LEASE_S + 0.3
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)

    run(redis_url, test)


def test_the_line_of_a_dead_process_takes_no_slots_that_come_free(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        dead, alive = (throttle(redis, Limits(concurrency=8), lease_s=5.0) for _ in range(2))
        async with AsyncExitStack() as stack:
            for _ in range(8):
                await stack.enter_async_context(alive.admit(SMALL, flow=FLOW))
            lost = [asyncio.create_task(use(dead, flow=Flow("lost", "lost"))) for _ in range(20)]
            await waiters(dead, 20)
            await die(redis, dead)
            line = [asyncio.create_task(use(alive)) for _ in range(20)]
            await waiters(alive, 40)
        began = time.monotonic()
        await asyncio.gather(*line)
        assert time.monotonic() - began < 1.0
        for task in lost:
            task.cancel()
        await asyncio.gather(*lost, return_exceptions=True)

    run(redis_url, test)


def test_a_process_that_lives_keeps_its_slot_beyond_the_lease(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        holder, other = throttle(redis, Limits(concurrency=1)), throttle(redis, Limits(concurrency=1))
        async with holder.admit(SMALL, flow=FLOW):
            waiting = asyncio.create_task(use(other))
            await asyncio.sleep(2.5 * LEASE_S)
            assert not waiting.done()
        await waiting

    run(redis_url, test)


def test_an_admission_whose_message_was_lost_is_found_by_the_heartbeat(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        one, other = throttle(redis, Limits(concurrency=1)), throttle(redis, Limits(concurrency=1))
        async with one.admit(SMALL, flow=FLOW):
            waiting = asyncio.create_task(use(other))
            await waiters(one, 1)
            # Its listener stops hearing, as when the connection breaks between Redis' answer and its arrival.
            other._tasks[1].cancel()
            await asyncio.sleep(0)
        assert not waiting.done()
        await waiting

    run(redis_url, test)


def test_a_line_that_redis_forgot_fails_the_waiters_so_that_they_come_again(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        one = throttle(redis, Limits(concurrency=1))
        async with one.admit(SMALL, flow=FLOW):
            waiting = asyncio.create_task(use(one))
            await waiters(one, 1)
            await redis.flushall()
            with pytest.raises(Unreachable):
                await waiting

    run(redis_url, test)


def test_slots_that_redis_forgot_count_again_while_their_requests_run(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        one = throttle(redis, Limits(concurrency=1))
        async with one.admit(SMALL, flow=FLOW):
            await redis.flushall()
            await asyncio.sleep(LEASE_S)
            assert (await one.standing()).in_use == 1
        assert (await one.standing()).in_use == 0

    run(redis_url, test)


def test_a_request_that_goes_out_late_counts_from_when_it_goes_out(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        windows = Windows(minute_s=1.0, guard_s=0.2)
        late, prompt = (throttle(redis, Limits(rpm=1), windows=windows, lease_s=5.0) for _ in range(2))
        enter = late._enter

        async def then_stands_still(request: Any) -> Any:
            admitted = await enter(request)
            time.sleep(0.6)  # noqa: ASYNC251 — the fault itself: the whole process stands, the minute goes on
            return admitted

        late._enter = then_stands_still  # type: ignore[method-assign]
        first = await use(late)
        standing = await prompt.standing()
        assert (standing.minute_requests, standing.minute_tokens, standing.day_tokens) == (1, 1000, 1000)
        assert await use(prompt) - first >= 1.0

    run(redis_url, test)


def test_a_request_whose_slot_is_gone_when_it_would_go_out_is_made_again(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        late = throttle(redis, Limits(rpm=9), windows=Windows(minute_s=1.0, guard_s=0.2), lease_s=5.0)
        enter = late._enter

        async def then_forgotten(request: Any) -> Any:
            admitted = await enter(request)
            await redis.flushall()
            time.sleep(0.2)  # noqa: ASYNC251
            return admitted

        late._enter = then_forgotten  # type: ignore[method-assign]
        with pytest.raises(Unreachable, match="made again"):
            await use(late)

    run(redis_url, test)


def test_without_redis_nobody_is_admitted_and_says_so_soon() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        async with Redis(port=port, socket_connect_timeout=0.5, retry=Retry(NoBackoff(), 0)) as redis:
            with pytest.raises(Unreachable, match="Redis does not answer"):
                await use(throttle(redis, Limits()))

    asyncio.run(main())


def test_a_redis_that_is_silent_is_away_within_the_time_out() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            client = Redis(port=silent.getsockname()[1], socket_timeout=0.3, retry=Retry(NoBackoff(), 0))
            async with client as redis, asyncio.timeout(2):
                with pytest.raises(Unreachable):
                    await use(throttle(redis, Limits()))

    asyncio.run(main())


def test_all_instances_share_one_account_and_other_accounts_have_their_own(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        one, two = throttle(redis, Limits(concurrency=2)), throttle(redis, Limits(concurrency=2))
        other = RedisThrottle(redis, account="other", limits=Limits(concurrency=1), lease_s=LEASE_S)
        async with one.admit(SMALL, flow=FLOW), two.admit(SMALL, flow=FLOW):
            assert (await one.standing()).in_use == 2
            await use(other)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(use(one), 0.1)

    run(redis_url, test)


def test_what_a_refusal_told_is_readable_with_its_source(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        one = throttle(redis, Limits(concurrency=30, rpm=100, concurrency_source="Code Plan"))
        await one.refused(RateLimited("max RPM: 3", limit="rpm", limit_value=3))
        standing = await one.standing()
        assert {(limit.kind, limit.value, limit.source) for limit in standing.limits} == {
            ("concurrency", 30, "Code Plan"),
            ("rpm", 3, "told by a refusal"),
        }
        assert standing.paused_until is not None
        # Three a minute: one second, as Retry-After says, would be too short.
        assert standing.paused_until.timestamp() - time.time() > 15

    run(redis_url, test)


def test_many_refusals_at_once_count_as_one(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        one = throttle(redis, Limits(concurrency=20))
        for _ in range(20):
            await one.refused(Overloaded("overloaded"))
        standing = await one.standing()
        assert standing.concurrency == 17
        assert standing.paused_until is not None
        assert standing.paused_until.timestamp() - time.time() <= 1.0

    run(redis_url, test)


def test_the_cool_down_doubles_with_each_refusal_that_follows_a_pause(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        one = throttle(redis, Limits(concurrency=20))
        pauses = []
        for _ in range(2):
            await one.refused(Overloaded("overloaded"))
            paused_until = (await one.standing()).paused_until
            assert paused_until is not None
            pauses.append(paused_until.timestamp() - time.time())
            await asyncio.sleep(1.05)
        assert 0.8 < pauses[0] <= 1.0
        assert 1.8 < pauses[1] <= 2.0

    run(redis_url, test)


def test_a_request_that_was_turned_away_lets_nothing_grow_and_is_not_booked(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        one = throttle(redis, Limits())
        for _ in range(20):
            async with AsyncExitStack() as stack:
                for _ in range(8):
                    slot = await stack.enter_async_context(one.admit(Cost(800, 200, worst_usd=0.1), flow=FLOW))
                    await slot.settle(Usage())
        assert (await one.standing()).concurrency == 8
        month = await Spending(redis).spent()
        assert (month.usd, month.reserved_usd, month.requests) == (0.0, 0.0, 0)

    run(redis_url, test)


def test_an_unknown_concurrency_grows_by_one_for_each_limits_worth_of_answers(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        one = throttle(redis, Limits())
        assert (await one.standing()).concurrency == 8

        async def request() -> None:
            async with one.admit(SMALL, flow=FLOW) as slot:
                await asyncio.sleep(0.01)
                await slot.settle(Usage(requests=1, input_tokens=800, output_tokens=1))

        await asyncio.gather(*(request() for _ in range(60)))
        assert 10 <= (await one.standing()).concurrency <= 14

    run(redis_url, test)


def test_money_is_booked_per_month_repository_and_review(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        one = throttle(redis, Limits())
        async with one.admit(Cost(800, 200, worst_usd=0.5), flow=FLOW) as slot:
            assert (await Spending(redis).spent()).reserved_usd == 0.5
            await slot.settle(Usage(requests=1, input_tokens=700, cached_tokens=256, output_tokens=50, cost_usd=0.0125))
        async with one.admit(Cost(800, 200, worst_usd=0.5), flow=FLOW):
            pass
        month, review = await Spending(redis).spent(), await Spending(redis).spent(job="job")
        assert (month.usd, month.reserved_usd, month.requests) == (0.0125, 0.0, 1)
        assert (month.input_tokens, month.cached_tokens, month.output_tokens) == (700, 256, 50)
        assert month.repositories == {"owner/name": 0.0125}
        assert review.usd == 0.0125
        assert (await Spending(redis).spent(job="other")).requests == 0

    run(redis_url, test)


def test_what_a_dead_process_had_open_is_booked_at_its_worst(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        stops = HardStops(month_usd=0.5)
        dead, alive = throttle(redis, Limits(concurrency=1), stops=stops), throttle(redis, Limits(), stops=stops)
        lost = dead.admit(Cost(800, 200, worst_usd=0.5), flow=FLOW)
        await lost.__aenter__()
        await die(redis, dead)
        await asyncio.sleep(LEASE_S)
        with pytest.raises(BudgetReached, match="LLM_MONTHLY_BUDGET_USD"):
            await use(alive)
        month = await Spending(redis).spent()
        assert (month.usd, month.reserved_usd, month.lost_requests) == (0.5, 0.0, 1)

    run(redis_url, test)


def test_the_windows_of_minute_and_day_hold_the_true_input_and_the_whole_cap(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        account = throttle(redis, Limits(tpm=10_000, tpd=10_000))
        async with account.admit(Cost(900, 100), flow=FLOW) as slot:
            standing = await account.standing()
            assert (standing.minute_tokens, standing.day_tokens) == (1_000, 1_000)
            await slot.settle(Usage(requests=1, input_tokens=400, output_tokens=1))
        standing = await account.standing()
        assert (standing.minute_requests, standing.minute_tokens, standing.day_tokens) == (1, 500, 500)

    run(redis_url, test)


def test_leaving_twice_gives_one_slot_back(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        one = throttle(redis, Limits(concurrency=2))
        async with one.admit(SMALL, flow=FLOW):
            async with one.admit(SMALL, flow=FLOW):
                leaving = list(one._held)[-1]
            for _ in range(2):
                await one._call("leave", {"id": leaving, "instance": one.instance})
            assert (await one.standing()).in_use == 1

    run(redis_url, test)


def test_nothing_is_left_behind_but_counters_and_nothing_names_the_key(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        account = account_of("https://api.moonshot.ai/v1/", "sk-secret")
        assert account == account_of("https://API.moonshot.ai/v1", "sk-secret")
        assert account != account_of("https://api.moonshot.cn/v1", "sk-secret")
        one = RedisThrottle(redis, account=account, limits=Limits(concurrency=3), lease_s=LEASE_S)
        await asyncio.gather(*(use(one, flow=Flow(f"change-{n}", f"repository-{n}")) for n in range(50)))
        prefix = f"{PREFIX}:throttle:{account}:"
        keys = sorted(key.removeprefix(prefix) for key in await redis.keys("*"))
        months = [key for key in keys if key.startswith(f"{MONEY_PREFIX}month:")]
        assert set(keys) - set(months) <= {"state", "tags", "seen", "minute", "minute:n", "day", "day:n"}
        everything = json.dumps([await redis.hgetall(prefix + key) for key in ("state", "tags")])
        assert "sk-secret" not in everything + "".join(keys)

    run(redis_url, test)


def test_nothing_runs_in_the_background_while_nothing_waits(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        one = throttle(redis, Limits(concurrency=1))
        before = len(asyncio.all_tasks())
        await asyncio.gather(*(use(one) for _ in range(5)))
        assert len(asyncio.all_tasks()) == before

    run(redis_url, test)


def test_a_quota_that_names_no_end_is_asked_for_again_within_the_hour(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        one = throttle(redis, Limits())
        await one.refused(QuotaUsedUp("used up"))
        until = (await one.standing()).quota_used_up_until
        assert until is not None
        assert 3500 < until.timestamp() - time.time() <= 3600

    run(redis_url, test)


def test_slots_that_redis_forgot_count_again_though_another_request_came_first(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        one = throttle(redis, Limits(concurrency=2))
        async with one.admit(SMALL, flow=FLOW):
            await redis.flushall()
            async with one.admit(SMALL, flow=FLOW):
                await asyncio.sleep(LEASE_S)
                assert (await one.standing()).in_use == 2
        assert (await one.standing()).in_use == 0

    run(redis_url, test)


def test_a_heartbeat_on_its_way_brings_no_slot_back_that_is_given_back_meanwhile(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        one = throttle(redis, Limits(concurrency=2))
        script, arrived = one._scripts["renew"], asyncio.Event()

        async def late(**arguments: list[str]) -> object:
            arrived.set()
            await asyncio.sleep(0.1)
            return await script(**arguments)

        one._scripts["renew"] = late
        async with one.admit(SMALL, flow=FLOW):
            async with one.admit(SMALL, flow=FLOW):
                await arrived.wait()
            await asyncio.sleep(0.1)
            assert (await one.standing()).in_use == 1

    run(redis_url, test)


def test_a_slot_that_was_given_to_a_caller_who_had_left_is_given_back(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        one = throttle(redis, Limits(concurrency=2))
        async with one.admit(SMALL, flow=FLOW) as slot:
            assert slot
            [held] = one._held.values()
            # What a connection delivers late, when its caller has gone away and said so: `admit` after `leave`.
            facts = held.facts() | {"id": f"{one.instance}late", "instance": one.instance}
            await one._call("admit", facts | {"class": "i", "repo": "0" * 16, "change": "0" * 16})
            assert (await one.standing()).in_use == 2
            await asyncio.sleep(LEASE_S)
            assert (await one.standing()).in_use == 1

    run(redis_url, test)


def test_what_waits_for_its_reviews_money_hears_of_requests_to_the_other_provider(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        stops = HardStops(review_usd=1.0)
        first, second = (
            RedisThrottle(redis, account=account, limits=Limits(), stops=stops, lease_s=LEASE_S)
            for account in ("first", "second")
        )
        dear = Cost(800, 200, worst_usd=1.0)
        async with first.admit(dear, flow=FLOW) as slot:
            waiting = asyncio.create_task(use(second, cost=dear))
            await waiters(second, 1)
            await asyncio.sleep(LEASE_S)
            assert not waiting.done()
            await slot.settle(Usage(requests=1, cost_usd=0.01))
        await asyncio.wait_for(waiting, LEASE_S)

    run(redis_url, test)


def test_a_fault_in_the_background_is_raised_by_those_who_wait_and_by_nobody_after_them(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        one = throttle(redis, Limits(concurrency=1), lease_s=10.0)
        async with one.admit(SMALL, flow=FLOW):
            waiting = asyncio.create_task(use(one))
            await waiters(one, 1)
            await redis.rpush(f"{PREFIX}:throttle:account:inbox:{one.instance}", "no JSON")
            with pytest.raises(ValueError, match="Expecting value"):
                await waiting
            after = asyncio.create_task(use(one))
            await waiters(one, 1)
        await asyncio.wait_for(after, 1.0)

    run(redis_url, test)


@pytest.mark.parametrize("error", [RateLimited("429", retry_after_s=7200.0), Overloaded("503", retry_after_s=7200.0)])
def test_who_is_told_to_wait_for_hours_puts_the_jobs_off(redis_url: str, error: RateLimited | Overloaded) -> None:
    async def test(redis: Redis) -> None:
        one = throttle(redis, Limits())
        await one.refused(error)
        with pytest.raises(QuotaUsedUp) as put_off:
            await use(one)
        assert put_off.value.until is not None
        assert 7190 < put_off.value.until.timestamp() - time.time() <= 7200

    run(redis_url, test)


def test_a_clock_that_was_set_back_holds_nobody_up(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        one = throttle(redis, Limits(rpm=600))
        await use(one)
        ahead_ms = (time.time() + 600) * 1000
        await redis.hset(f"{PREFIX}:throttle:account:state", "pace", f"{ahead_ms:.0f}")
        await asyncio.wait_for(use(one), 1.0)

    run(redis_url, test)


def test_an_admission_costs_redis_less_than_a_millisecond_with_two_thousand_in_line(redis_url: str) -> None:
    async def test(redis: Redis) -> None:
        one = throttle(redis, Limits(concurrency=1))
        async with one.admit(SMALL, flow=FLOW):
            line = [
                asyncio.create_task(use(one, flow=Flow(f"change-{n}", f"repository-{n % 50}"))) for n in range(2000)
            ]
            await waiters(one, 2000)
            await redis.config_resetstat()
            late = [asyncio.create_task(use(one)) for _ in range(50)]
            await waiters(one, 2050)
            calls = (await redis.info("commandstats"))["cmdstat_evalsha"]
            for task in [*line, *late]:
                task.cancel()
            await asyncio.gather(*line, *late, return_exceptions=True)
        assert calls["usec_per_call"] < 1000

    run(redis_url, test)


def test_the_scripts_number_the_keys_as_this_module_hands_them_over() -> None:
    text = (files("worker.storage") / "throttle_prelude.lua").read_text("utf-8")
    listed = re.findall(r"^-- +\d+ ([a-z:]+) +(?:HASH|LIST|ZSET) ", text, flags=re.MULTILINE)
    assert listed == list(KEYS)
