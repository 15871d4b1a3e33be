"""Accepting and reconciling: what should have a job has one, and nothing has two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.forge import MARKER_KEY, MemoryForge
from tests.fakes.jobs import FakeJobs
from worker.cli.job_text import CURES
from worker.core.change import Change, ChangeRef
from worker.core.delivery import Delivery, Ignored, Policy, allows
from worker.core.errors import BadInput, RateLimited, Unreachable, WrongEndpoint
from worker.core.job import Accepted, Claim, Priority, State
from worker.core.marker import MORE, SUMMARY, Mark, write
from worker.review import reconcile as reconciling
from worker.review.accept import accept_delivery
from worker.review.reconcile import Reconciled, Reconciler

REF = ChangeRef("github", "acme/shop", 7)
DELIVERY = Delivery(id="d1", event="pull_request.opened", ref=REF, head="a" * 40)
CHANGE = Change(ref=REF, head="a" * 40, base="b" * 40)


@dataclass
class Bell:
    """A wake-up that is written down; `broken` when the broker is away."""

    woken: list[str] = field(default_factory=list)
    broken: bool = False

    async def review(self, job_id: str, priority: Priority) -> None:
        if self.broken:
            raise Unreachable("the broker is away")
        self.woken.append(job_id)

    async def publish(self, job_id: str, priority: Priority) -> None:
        self.woken.append(job_id)

    async def waiting(self, priority: Priority) -> int:
        return len(self.woken)


def accepted(delivery: Delivery, policy: Policy, jobs: FakeJobs, wake: Bell) -> Accepted | Ignored:
    return asyncio.run(accept_delivery(delivery, policy=policy, jobs=jobs, wake=wake))


def test_a_delivery_becomes_one_job_and_one_wake_up() -> None:
    jobs, wake = FakeJobs(), Bell()
    first = accepted(DELIVERY, Policy(), jobs, wake)
    again = accepted(replace(DELIVERY, id="d2"), Policy(), jobs, wake)
    assert isinstance(first, Accepted)
    assert isinstance(again, Accepted)
    assert (first.is_new, again.is_new, again.job) == (True, False, first.job)
    assert wake.woken == [first.job]


def test_a_head_that_was_reviewed_against_another_base_gets_no_second_review_and_why_says_so() -> None:
    async def story() -> list[tuple[str, str]]:
        jobs, wake = FakeJobs(), Bell()
        moved = replace(DELIVERY, id="", has_new_base=True)
        for state in (None, State.DONE):
            made = await accept_delivery(moved, policy=Policy(), jobs=jobs, wake=wake)
            assert isinstance(made, Accepted)
            if state is not None:
                claim = await jobs.claim(made.job, worker="w", states=[State.QUEUED])
                assert isinstance(claim, Claim)
                await jobs.advance(claim, state, reason="posted")
        again = await accept_delivery(moved, policy=Policy(), jobs=jobs, wake=wake)
        assert again == Accepted(made.job, State.DONE, is_new=False)
        return [(one.event, one.detail) for one in await jobs.decisions(made.job)]

    told = asyncio.run(story())
    assert [event for event, _ in told] == ["job.queued", "job.running", "job.done", "base.changed"]
    assert "kimi-review review acme/shop#7" in told[-1][1]


def test_why_says_nothing_of_the_base_where_it_is_the_same_or_the_job_is_new_or_has_not_begun() -> None:
    async def story() -> list[str]:
        jobs, wake = FakeJobs(), Bell()
        moved = replace(DELIVERY, id="", has_new_base=True)
        made = await accept_delivery(moved, policy=Policy(), jobs=jobs, wake=wake)
        assert isinstance(made, Accepted)
        await accept_delivery(moved, policy=Policy(), jobs=jobs, wake=wake)
        claim = await jobs.claim(made.job, worker="w", states=[State.QUEUED])
        assert isinstance(claim, Claim)
        await jobs.advance(claim, State.DONE, reason="posted")
        await accept_delivery(replace(DELIVERY, id=""), policy=Policy(), jobs=jobs, wake=wake)
        return [one.event for one in await jobs.decisions(made.job)]

    assert asyncio.run(story()) == ["job.queued", "job.running", "job.done"]


def test_a_wake_up_that_fails_loses_no_job() -> None:
    jobs = FakeJobs()
    said = accepted(DELIVERY, Policy(), jobs, Bell(broken=True))
    assert isinstance(said, Accepted)
    assert asyncio.run(jobs.get(said.job)) is not None


@pytest.mark.parametrize(
    ("delivery", "policy", "reason"),
    [
        (DELIVERY, Policy(repositories=("acme/other", "x/*")), "repository not allowed"),
        (replace(DELIVERY, is_draft=True), Policy(), "draft"),
        (replace(DELIVERY, is_bot=True), Policy(), "author is a bot"),
        (replace(DELIVERY, is_fork=True), Policy(forks=False), "change from a fork"),
    ],
)
def test_a_delivery_that_is_not_wanted_becomes_no_job(delivery: Delivery, policy: Policy, reason: str) -> None:
    jobs, wake = FakeJobs(), Bell()
    assert accepted(delivery, policy, jobs, wake) == Ignored(reason)
    assert asyncio.run(jobs.list()) == []
    assert wake.woken == []
    assert [one.detail for one in asyncio.run(jobs.ignored(delivery.ref))] == [reason]
    assert reason in CURES


class Forgetful(FakeJobs):
    async def note_ignored(self, ref: ChangeRef, reason: str) -> None:
        raise Unreachable("the store is away")


def test_a_delivery_that_is_not_wanted_is_answered_although_the_store_is_away() -> None:
    assert accepted(replace(DELIVERY, is_draft=True), Policy(), Forgetful(), Bell()) == Ignored("draft")


def test_a_policy_may_want_drafts_and_forks_too() -> None:
    everything = replace(DELIVERY, is_draft=True, is_fork=True)
    policy = Policy(repositories=("ACME/*",), drafts=True, forks=True)
    assert isinstance(accepted(everything, policy, FakeJobs(), Bell()), Accepted)


def test_a_repository_is_allowed_by_a_glob_in_any_case_and_without_globs_always() -> None:
    assert allows("acme/shop", ())
    assert allows("Acme/Shop", ("acme/*",))
    assert allows("group/sub/shop", ("group/*",))
    assert not allows("acme/shop", ("acme/sho",))
    assert not allows("evil/acme/shop", ("acme/*",))


# ------------------------------------------------------------------------------------- reconcile


@dataclass
class World:
    forge: MemoryForge = field(default_factory=MemoryForge)
    jobs: FakeJobs = field(default_factory=FakeJobs)
    wake: Bell = field(default_factory=Bell)
    clock: FakeClock = field(default_factory=FakeClock)

    def reconciler(self, policy: Policy | None = None) -> Reconciler:
        return Reconciler(jobs=self.jobs, wake=self.wake, clock=self.clock, policy=policy or Policy())


def reconcile(reconciler: Reconciler, forge: MemoryForge, repositories: tuple[str, ...] = ("acme/shop",)) -> Reconciled:
    return asyncio.run(reconciler.reconcile(forge, repositories))


def test_an_open_change_without_a_job_gets_one_once() -> None:
    world = World()
    world.forge.open(CHANGE)
    reconciler = world.reconciler()
    assert reconcile(reconciler, world.forge) == Reconciled(open=1, accepted=1)
    assert reconcile(reconciler, world.forge) == Reconciled(open=1, accepted=0)
    assert len(world.wake.woken) == 1


def test_a_change_whose_review_is_there_gets_none_though_the_store_was_emptied() -> None:
    world = World()
    world.forge.open(CHANGE)
    mark = write(Mark("gone", CHANGE.head, SUMMARY), key=MARKER_KEY, ref=REF)
    asyncio.run(world.forge.post(CHANGE, summary=mark, comments=()))
    reconciler = world.reconciler()
    assert reconcile(reconciler, world.forge) == Reconciled(open=1, accepted=0)
    world.forge.reviews.clear()  # what was seen once is not asked for again
    assert reconcile(reconciler, world.forge) == Reconciled(open=1, accepted=0)
    assert world.clock.slept == [0.5]


def test_a_change_of_whose_review_only_the_first_part_is_there_gets_a_job() -> None:
    world = World()
    world.forge.open(CHANGE)
    marks = [write(Mark("gone", CHANGE.head, said), key=MARKER_KEY, ref=REF) for said in (SUMMARY, MORE)]
    asyncio.run(world.forge.post(CHANGE, summary="".join(marks), comments=()))
    assert reconcile(world.reconciler(), world.forge) == Reconciled(open=1, accepted=1)


@pytest.mark.parametrize(
    "change",
    [
        replace(CHANGE, state="closed"),
        replace(CHANGE, is_draft=True),
        replace(CHANGE, is_bot=True),
        replace(CHANGE, is_locked=True),
        replace(CHANGE, is_archived=True),
    ],
)
def test_a_change_that_no_delivery_would_start_is_left_alone(change: Change) -> None:
    world = World()
    world.forge.open(change)
    assert reconcile(world.reconciler(), world.forge).accepted == 0


def test_a_dead_letter_is_not_raised_again() -> None:
    world = World()
    world.forge.open(CHANGE)
    said = accepted(DELIVERY, Policy(), world.jobs, world.wake)
    assert isinstance(said, Accepted)

    async def fail() -> None:
        claim = await world.jobs.claim(said.job, worker="w", states=(State.QUEUED,))
        await world.jobs.release(claim, State.FAILED, reason="no")  # type: ignore[arg-type]

    asyncio.run(fail())
    assert reconcile(world.reconciler(), world.forge) == Reconciled(open=1, accepted=0)
    (job,) = asyncio.run(world.jobs.list())
    assert (job.state, job.reason) == (State.FAILED, "no")
    assert world.clock.slept == []  # nor is the forge asked about it in each round


def test_of_the_reviews_it_was_shown_it_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciling, "_REMEMBERED", 2)
    world = World()
    for number in (1, 2, 3):
        change = world.forge.open(replace(CHANGE, ref=ChangeRef("github", "acme/shop", number)))
        mark = write(Mark("gone", change.head, SUMMARY), key=MARKER_KEY, ref=change.ref)
        asyncio.run(world.forge.post(change, summary=mark, comments=()))
    reconciler = world.reconciler()
    assert reconcile(reconciler, world.forge) == Reconciled(open=3, accepted=0)
    assert len(world.clock.slept) == 3
    oldest = world.forge.changes.pop(ChangeRef("github", "acme/shop", 1))
    assert reconcile(reconciler, world.forge) == Reconciled(open=2, accepted=0)
    assert len(world.clock.slept) == 3
    world.forge.open(oldest)
    assert reconcile(reconciler, world.forge) == Reconciled(open=3, accepted=0)
    assert len(world.clock.slept) == 4


def test_a_limit_of_the_forge_ends_the_round() -> None:
    world = World()
    world.forge.open(CHANGE)

    async def limited(_: Change) -> object:
        raise RateLimited("slow down", retry_after_s=60)

    world.forge.posted = limited  # type: ignore[method-assign, assignment]
    with pytest.raises(RateLimited):
        reconcile(world.reconciler(), world.forge)
    assert asyncio.run(world.jobs.list()) == []


def test_repositories_that_nobody_named_are_found_and_chosen_by_the_policy() -> None:
    world = World()
    world.forge.open(CHANGE)
    world.forge.open(replace(CHANGE, ref=ChangeRef("github", "other/shop", 1)))
    assert reconcile(world.reconciler(), world.forge, ()) == Reconciled(open=2, accepted=2)
    chosen = World(forge=world.forge).reconciler(Policy(repositories=("other/*",)))
    assert reconcile(chosen, world.forge, ()) == Reconciled(open=1, accepted=1)


def test_a_repository_that_was_renamed_or_is_none_keeps_nobody_else_waiting() -> None:
    world = World()
    world.forge.open(CHANGE)
    listed = world.forge.open_changes

    def some_fail(repository: str) -> AsyncIterator[Change]:
        match repository:
            case "acme/renamed":
                raise WrongEndpoint("redirects elsewhere")
            case "acme":
                raise BadInput("is not the name of a repository")
        return listed(repository)

    world.forge.open_changes = some_fail  # type: ignore[method-assign]
    found = reconcile(world.reconciler(), world.forge, ("acme/renamed", "acme", "acme/shop"))
    assert found == Reconciled(open=1, accepted=1, unreadable=("acme/renamed", "acme"))


def test_a_push_back_to_a_superseded_head_is_found() -> None:
    world = World()
    world.forge.open(CHANGE)
    for head in (CHANGE.head, "c" * 40):
        accepted(replace(DELIVERY, id=head, head=head), Policy(), world.jobs, world.wake)
    reconcile(world.reconciler(), world.forge)
    newest = asyncio.run(world.jobs.find(REF))
    assert CHANGE.head in {job.head for job in newest if not job.state.is_final}
