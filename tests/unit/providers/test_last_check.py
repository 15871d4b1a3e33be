"""The last check: a request that nobody may send any more does not leave, whatever was waited for before it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from tests.fakes.admission import OpenThrottle
from tests.fakes.clock import FakeClock
from tests.fakes.jobs import FakeJobs
from tests.fakes.kimi import KEY, Fault, KimiServer, overloaded
from worker.core.change import ChangeRef
from worker.core.errors import LeaseLost
from worker.core.exchange import Kind, Prompt
from worker.core.job import Claim, Intent, State
from worker.ports import Flow, Model
from worker.providers.catalogue import lookup
from worker.providers.connect import connect
from worker.providers.endpoint import Endpoint
from worker.review.lease import Lease

FLOW = Flow(change="github:a/b#1", repository="a/b")
SCHEMA = {"type": "object", "properties": {"findings": {"type": "array", "items": {"type": "string"}}}}
PROMPT = Prompt(
    Kind.FINDINGS, "Find faults.", "kind: findings\nF1 a.py\n1|+|x\n", SCHEMA, 200, 4_000, cache_key="job-1"
)
LEASE_S = 20.0


@dataclass
class StillClock(FakeClock):
    """One whose every sleep lasts `stands_s` longer: the process was stopped in it, and no heartbeat ran."""

    stands_s: float = 0.0
    heartbeat: list[Lease] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        for lease in self.heartbeat:
            await lease.renew()
        self.advance(self.stands_s)


async def leased(clock: FakeClock) -> Lease:
    jobs = FakeJobs(lease_s=LEASE_S, now=clock.monotonic)
    accepted = await jobs.accept(Intent(ChangeRef("github", "a/b", 1), "a" * 40))
    asked_at = clock.monotonic()
    claim = await jobs.claim(accepted.job, worker="w", states=[State.QUEUED])
    assert isinstance(claim, Claim)
    return Lease(claim, jobs, clock, asked_at=asked_at)


def model(kimi: KimiServer, throttle: OpenThrottle, clock: FakeClock) -> Model:
    endpoint = Endpoint(kimi.base_url, KEY, "kimi-k2.6")
    return connect(endpoint, info=lookup("kimi-k2.6"), throttle=throttle, clock=clock)


@pytest.mark.parametrize(("stands_s", "requests"), [(0.0, 2), (LEASE_S - 1, 2), (LEASE_S, 1), (300.0, 1)])
def test_no_attempt_leaves_after_a_wait_in_which_the_lease_ran_out(stands_s: float, requests: int) -> None:
    async def scenario() -> None:
        clock = StillClock(stands_s=stands_s)
        lease = await leased(clock)
        clock.heartbeat.append(lease)
        asking = model(kimi, throttle, clock).complete(PROMPT, flow=FLOW, last_check=lease.check_clock)
        if requests == 2:
            assert (await asking).text
        else:
            with pytest.raises(LeaseLost, match="last renewed"):
                await asking

    throttle = OpenThrottle()
    with KimiServer() as kimi:
        kimi.script(Fault(429, overloaded()))
        asyncio.run(scenario())
        assert len(kimi.requests) == requests
    assert throttle.running == 0
    assert len(throttle.costs) == 2


def test_the_check_comes_after_the_throttle_has_let_the_request_in() -> None:
    throttle, clock, order = OpenThrottle(), FakeClock(), list[int]()
    with KimiServer() as kimi:
        asking = model(kimi, throttle, clock).complete(
            PROMPT, flow=FLOW, last_check=lambda: order.append(throttle.running)
        )
        asyncio.run(asyncio.wait_for(asking, 10))
    assert order == [1]


def test_a_lease_counts_from_before_the_store_was_asked() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        lease = await leased(clock)
        renew = lease._jobs.renew

        async def slowly(claim: Claim) -> None:
            await renew(claim)
            clock.advance(LEASE_S)

        clock.advance(LEASE_S - 1)
        lease.check_clock()
        lease._jobs.renew = slowly  # type: ignore[method-assign]
        await lease.renew()
        with pytest.raises(LeaseLost, match="20 s ago"):
            lease.check_clock()

    asyncio.run(scenario())
