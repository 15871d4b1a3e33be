"""A model of the fleet over a real Redis: whatever happens in whichever order, the records agree and none is lost.

Two workers of two versions, the api, upkeep, a forge and an operator take their steps in any order; each may die after
any step, wake up with a lease that is another's, or be late. After each step all keys are held to one another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from worker.core.change import ChangeRef
from worker.core.errors import LeaseLost, Superseded
from worker.core.job import Claim, Intent, Job, NotClaimed, Priority, Stage, State
from worker.process import CLAIMABLE
from worker.storage.connection import PREFIX, connect
from worker.storage.jobs import RedisJobs

T = TypeVar("T")
CHANGES = tuple(ChangeRef("github", "octo/cat", number) for number in (1, 2))
HEADS = tuple(letter * 40 for letter in "abc")
WAYS_BACK = ("beyond us", "again", "later", "failed", "back", "fault")

changes, heads, choice = st.sampled_from(CHANGES), st.sampled_from(HEADS), st.integers(0, 9)


@dataclass
class Hand:
    """One worker: what it holds, and how far it is with it."""

    jobs: RedisJobs
    name: str
    claim: Claim | None = None
    done: int = 0
    seen: str = ""
    """The head that the forge named when it was asked; it may have moved on since."""
    ghosts: list[Claim] = field(default_factory=list)
    """Claims of its earlier lives, in which it may still write."""

    def let_go(self) -> None:
        if self.claim is not None:
            self.ghosts.append(self.claim)
        self.claim, self.done = None, 0


class Fleet(RuleBasedStateMachine):
    """`posted` is what a reader of the forge sees: one row for each review."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.client = connect(url)
        self.store = redis.Redis.from_url(url, decode_responses=True)
        self.store.flushall()
        self.hands = [
            Hand(RedisJobs(self.client, lease_s=600, program=program), f"w{number}")
            for number, program in enumerate(("0.1.0", "0.2.0"))
        ]
        self.api = self.hands[0].jobs
        self.forge: dict[ChangeRef, str] = {}
        self.told: dict[ChangeRef, str] = {}
        """The last head of each change that an api answered for with 2xx."""
        self.posted: list[tuple[ChangeRef, str]] = []
        self.sent: list[Intent] = []
        self.messages: list[tuple[str, Stage]] = []
        self.tokens: dict[str, int] = {}
        self.ended: dict[str, State] = {}

    def teardown(self) -> None:
        try:
            self.everything_ends()
        finally:
            self.run(self.client.aclose())
            self.runner.close()
            self.store.close()

    def run(self, step: Awaitable[T]) -> T:
        async def stepped() -> T:
            return await step

        return self.runner.run(stepped())

    # --------------------------------------------------------------------------------- api and forge

    def accept(self, intent: Intent) -> None:
        made = self.run(self.api.accept(intent))
        self.ended.pop(made.job, None)
        if self.forge.get(intent.ref) == intent.head or not intent.head:
            self.told[intent.ref] = self.forge[intent.ref]
        if made.is_new:
            self.messages.append((made.job, Stage.REVIEW))

    @rule(change=changes, head=heads, is_delivered=st.booleans(), priority=st.sampled_from(Priority))
    def push(self, change: ChangeRef, head: str, is_delivered: bool, priority: Priority) -> None:
        self.forge[change] = head
        if is_delivered:
            self.sent.append(Intent(change, head, delivery=f"d{len(self.sent)}", priority=priority))
            self.accept(self.sent[-1])

    @precondition(lambda self: self.sent)
    @rule(index=choice)
    def redeliver(self, index: int) -> None:
        self.accept(self.sent[index % len(self.sent)])

    @precondition(lambda self: self.forge)
    @rule(index=choice, force=st.booleans(), priority=st.sampled_from(Priority), names_head=st.booleans())
    def ask(self, index: int, force: bool, priority: Priority, names_head: bool) -> None:
        change = sorted(self.forge, key=str)[index % len(self.forge)]
        head = self.forge[change] if names_head else ""
        self.accept(Intent(change, head, priority=priority, force=force))

    # ---------------------------------------------------------------------------------------- upkeep

    @rule(is_lost=st.booleans())
    def upkeep(self, is_lost: bool) -> None:
        due = [*self.run(self.api.urgent(limit=9, again_s=60))]
        for priority in Priority:
            due += self.run(self.api.due(priority, limit=9, again_s=60))
        if not is_lost:
            self.messages += [(one.job, one.stage) for one in due]

    @precondition(lambda self: self.forge)
    @rule(index=choice)
    def time_passes(self, index: int) -> None:
        """For one job: its lease, its wait and the time until it is woken again are over."""
        if ids := self.ids():
            self.ripen(ids[index % len(ids)])

    def ripen(self, job: str) -> None:
        key = f"{PREFIX}:job:{job}"
        with self.store.pipeline() as pipe:
            if self.store.hexists(key, "lease_until"):
                pipe.hset(key, "lease_until", "1.000000")
            pipe.hset(key, "not_before", "0")
            for name in ("urgent", "notes", *(f"due:{priority}" for priority in Priority)):
                pipe.zadd(f"{PREFIX}:{name}", {job: 1}, xx=True)
            pipe.execute()

    # --------------------------------------------------------------------------------------- workers

    def busy(self) -> list[Hand]:
        return [hand for hand in self.hands if hand.claim is not None]

    def free(self) -> list[Hand]:
        return [hand for hand in self.hands if hand.claim is None]

    def one_of(self, some: Sequence[T], index: int) -> T:
        return some[index % len(some)]

    @precondition(lambda self: self.messages and self.free())
    @rule(hand=choice, index=choice, stays=st.booleans())
    def take(self, hand: int, index: int, stays: bool) -> None:
        """A message is taken, and with `stays` it comes again."""
        message = self.one_of(self.messages, index)
        self.claim(self.one_of(self.free(), hand), *message)
        if not stays:
            self.messages.remove(message)

    def claim(self, worker: Hand, job: str, stage: Stage) -> None:
        before = self.record(job)
        answer = self.run(worker.jobs.claim(job, worker=worker.name, states=CLAIMABLE[stage]))
        if isinstance(answer, NotClaimed):
            return
        assert not self.store.exists(f"{PREFIX}:paused")
        assert float(before.get("lease_until", 0)) < self.store.time()[0], "it was leased"
        assert self.is_newest(job)
        assert answer.token > self.tokens.get(job, 0)
        assert self.ended.get(job) is not State.DONE
        self.tokens[job] = answer.token
        worker.claim, worker.done = answer, 0

    @precondition(lambda self: self.busy())
    @rule(index=choice, steps=st.integers(1, 4))
    def work(self, index: int, steps: int) -> None:
        """Some steps further, as `conduct` and `publish` go."""
        worker = self.one_of(self.busy(), index)
        for _ in range(steps):
            self.step(worker)

    def step(self, worker: Hand) -> None:
        if (claim := worker.claim) is None:
            return
        publishes = claim.job.state is State.PUBLISHING
        try:
            if publishes:
                self.run(self.publish(worker, claim))
            else:
                self.run(self.review(worker, claim))
        except LeaseLost:
            assert self.record(claim.job.id).get("token") != str(claim.token) or "lease_until" not in self.record(
                claim.job.id
            )
            worker.let_go()
        except Superseded:
            self.settle(worker, lambda: worker.jobs.release(claim, State.SUPERSEDED, reason="moved on"))

    async def fresh(self, jobs: RedisJobs, claim: Claim, head: str) -> None:
        now = self.forge[claim.job.ref]
        if now != head:
            await jobs.accept(Intent(claim.job.ref, now))
            raise Superseded("moved on", by=now)

    async def checked(self, jobs: RedisJobs, claim: Claim) -> None:
        if await jobs.is_current(claim):
            assert self.is_newest(claim.job.id)
        else:
            raise LeaseLost if self.record(claim.job.id).get("token") != str(claim.token) else Superseded("", by="")

    async def review(self, worker: Hand, claim: Claim) -> None:
        jobs, job = worker.jobs, claim.job
        match worker.done:
            case 0:
                worker.seen = self.forge[job.ref]
            case 1 if job.head:
                await self.fresh(jobs, claim, job.head)
            case 1:
                await jobs.note_head(claim, worker.seen)
            case 2:
                await self.checked(jobs, claim)
                await jobs.save(claim, "unit:1", worker.name.encode())
            case 3:
                await jobs.save(claim, "report", self.record(job.id)["head"].encode())
            case _:
                await jobs.release(claim, State.REVIEWED, reason="stored")
                self.messages.append((job.id, Stage.PUBLISH))
                worker.let_go()
                return
        worker.done += 1

    async def publish(self, worker: Hand, claim: Claim) -> None:
        jobs, job = worker.jobs, claim.job
        head = (await jobs.load(job.id))["report"].decode()
        assert head == self.record(job.id)["head"]
        match worker.done:
            case 0:
                await self.fresh(jobs, claim, head)
            case 1:
                await jobs.renew(claim)
                await self.checked(jobs, claim)
                if (job.ref, head) not in self.posted:
                    self.posted.append((job.ref, head))
            case _:
                await jobs.advance(claim, State.DONE, reason="posted")
                worker.let_go()
                return
        worker.done += 1

    @precondition(lambda self: self.busy())
    @rule(index=choice)
    def die(self, index: int) -> None:
        """Or stand still: what it holds may be written to later."""
        self.one_of(self.busy(), index).let_go()

    @precondition(lambda self: self.busy())
    @rule(index=choice, how=st.sampled_from(WAYS_BACK))
    def give_back(self, index: int, how: str) -> None:
        worker = self.one_of(self.busy(), index)
        if (claim := worker.claim) is not None:
            self.settle(worker, lambda: settled(worker.jobs, claim, how))

    def settle(self, worker: Hand, write: Any) -> None:
        with suppress(LeaseLost):
            self.run(write())
        worker.let_go()

    @precondition(lambda self: any(hand.ghosts for hand in self.hands))
    @rule(index=choice, how=st.sampled_from(["renew", "save", "done", "head", *WAYS_BACK]))
    def write_late(self, index: int, how: str) -> None:
        """Whoever lost the job changes nothing; whoever has it all the same may write."""
        worker, claim = self.one_of([(hand, ghost) for hand in self.hands for ghost in hand.ghosts], index)
        before, saved = self.record(claim.job.id), self.saved(claim.job.id)
        holds = before.get("token") == str(claim.token) and "lease_until" in before
        if holds and how in ("done", "head"):
            # It has not earned that.
            return
        try:
            self.run(settled(worker.jobs, claim, how))
        except LeaseLost:
            assert not holds
        # Where the lease was given back already, the same write again is answered as it was.
        assert holds or (self.record(claim.job.id), self.saved(claim.job.id)) == (before, saved)

    # -------------------------------------------------------------------------------------- operator

    @precondition(lambda self: self.members("state:failed"))
    @rule(index=choice, drops=st.booleans())
    def dead_letter(self, index: int, drops: bool) -> None:
        if dead := self.run(self.api.list(states=[State.FAILED])):
            job = dead[index % len(dead)]
            self.ended.pop(job.id, None)
            if drops:
                self.run(self.api.drop(job.id))
                # Whoever dropped it does not want it.
                self.told.pop(job.ref, None)
            else:
                self.run(self.api.retry(job.id))

    @precondition(lambda self: self.messages and self.free())
    @rule(index=choice)
    def pause(self, index: int) -> None:
        """While the fleet is paused nobody takes up a job, and nobody is woken for one."""
        self.run(self.api.pause("by hand"))
        self.claim(self.free()[0], *self.one_of(self.messages, index))
        waiting = len(self.messages)
        self.upkeep(is_lost=False)
        assert len(self.messages) == waiting
        self.run(self.api.resume())

    # ------------------------------------------------------------------------------------ what holds

    def ids(self) -> list[str]:
        found = {one for state in State for one in self.store.zrange(f"{PREFIX}:state:{state}", 0, -1)}
        return sorted(found)

    def record(self, job: str) -> dict[str, str]:
        return dict(self.store.hgetall(f"{PREFIX}:job:{job}"))

    def saved(self, job: str) -> dict[str, str]:
        return dict(self.store.hgetall(f"{PREFIX}:job:{job}:saved"))

    def is_newest(self, job: str) -> bool:
        """Whether no head of its change was accepted after it."""
        record = self.record(job)
        change = f"{PREFIX}:change:github:{record['repository']}#{record['number']}"
        return int(record["generation"]) >= int(self.store.hget(change, "generation") or 0)

    def members(self, name: str) -> set[str]:
        return set(self.store.zrange(f"{PREFIX}:{name}", 0, -1))

    @invariant()
    def the_indexes_agree_with_the_records(self) -> None:
        records = {job: self.record(job) for job in self.ids()}
        is_open = {job: not State(record["state"]).is_final for job, record in records.items()}
        for state in State:
            assert self.members(f"state:{state}") == {job for job, row in records.items() if row["state"] == state}
        for priority in Priority:
            assert self.members(f"due:{priority}") == {
                job for job, row in records.items() if is_open[job] and row["priority"] == priority
            }
        assert self.members("urgent") == {
            job for job, row in records.items() if is_open[job] and ("lease_until" in row or row["stage"] == "publish")
        }
        assert self.members("left") == {job for job, row in records.items() if "left" in row}
        assert self.members("notes") <= {job for job, row in records.items() if row["state"] == "failed"}
        assert not [job for job, row in records.items() if not is_open[job] and "lease_until" in row]
        open_jobs = sum(is_open[job] and row["priority"] != "batch" for job, row in records.items())
        assert int(self.store.hget(f"{PREFIX}:open", "github:octo/cat") or 0) == open_jobs
        for job, row in records.items():
            assert int(row["deaths"]) <= 3
            assert int(row["attempt"]) >= 0
            at_work = "lease_until" in row
            assert at_work == (row["state"] in ("running", "publishing")), row
            assert self.store.ttl(f"{PREFIX}:job:{job}") == -1 if is_open[job] else True

    @invariant()
    def an_end_is_an_end(self) -> None:
        for job in self.ids():
            state = State(self.record(job)["state"])
            if job in self.ended and self.ended[job] is State.DONE:
                assert state is State.DONE
            if state.is_final:
                self.ended[job] = state

    @invariant()
    def one_claim_at_most_is_current_for_each_change(self) -> None:
        current = [
            claim.job
            for hand in self.hands
            for claim in (hand.claim, *hand.ghosts)
            if claim is not None and self.run(hand.jobs.is_current(claim))
        ]
        with_head = [job.ref for job in current if self.record(job.id)["head"]]
        assert len(with_head) == len(set(with_head))

    @invariant()
    def nothing_is_posted_twice(self) -> None:
        assert len(self.posted) == len(set(self.posted))

    def everything_ends(self) -> None:
        """Left to itself the fleet ends all that was stored, and each head that was answered for is reviewed."""
        for hand in self.hands:
            hand.let_go()
        worker = Hand(RedisJobs(self.client, lease_s=600, program="0.3.0"), "last")
        for _ in range(40):
            for dead in self.run(self.api.list(states=[State.FAILED])):
                self.run(self.api.retry(dead.id))
            for job in self.ids():
                self.ripen(job)
            self.messages = []
            self.upkeep(is_lost=False)
            if not self.messages:
                break
            for job, stage in self.messages:
                self.claim(worker, job, stage)
                while worker.claim is not None:
                    self.step(worker)
        open_jobs = [job for job in self.run(self.api.list()) if not job.state.is_final]
        assert not open_jobs
        self.the_indexes_agree_with_the_records()
        self.nothing_is_posted_twice()
        for change, head in self.told.items():
            if self.forge[change] == head:
                assert (change, head) in self.posted, [_line(job) for job in self.run(self.api.find(change))]


async def settled(jobs: RedisJobs, claim: Claim, how: str) -> None:
    """One of the ways in which `holding` gives a job back, or a write of who works on it."""
    match how:
        case "renew":
            await jobs.renew(claim)
        case "save":
            await jobs.save(claim, "unit:late", b"late")
        case "done":
            await jobs.advance(claim, State.DONE, reason="late")
        case "head":
            await jobs.note_head(claim, "f" * 40)
        case "again":
            await jobs.release(claim, claim.job.waiting_state, reason="the forge is away", wait_s=9)
        case "later":
            await jobs.release(claim, State.DEFERRED, reason="no balance", wait_s=9)
        case "failed":
            await jobs.release(claim, State.FAILED, reason="declined")
        case "back":
            await jobs.hand_back(claim, reason="its worker ended")
        case "fault":
            await jobs.died(claim, reason="KeyError")
        case _:
            await jobs.leave(claim, reason="cannot be read")


def _line(job: Job) -> Sequence[object]:
    return (job.id, job.head[:1], job.state.value, job.reason, job.generation)


def play(url: str, *, examples: int, steps: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: Fleet(url),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            suppress_health_check=list(HealthCheck),
            deadline=None,
            # To take steps away from a failure takes minutes; the steps that led to it are told all the same.
            phases=(Phase.explicit, Phase.generate),
        ),
    )


def test_in_whichever_order_things_happen_the_records_agree_and_every_review_is_done_once(redis_url: str) -> None:
    play(redis_url, examples=8, steps=40)


@pytest.mark.long
def test_the_same_in_many_more_orders(redis_url: str) -> None:
    play(redis_url, examples=400, steps=80)
