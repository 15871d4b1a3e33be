"""Which changes a batch takes, and where the figure comes from that it tells first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from tests.fakes.forge import MemoryForge
from tests.fakes.jobs import FakeJobs
from worker.core.change import Change, ChangeRef
from worker.core.errors import Unreachable
from worker.core.job import Intent, Priority, State
from worker.core.model_info import Prices
from worker.review.batch import NotRead, accept_all, choose, estimate, named, open_since, progress

PRICES = Prices(input=1.0, cached_input=0.1, output=4.0)
DAY = datetime(2026, 11, 1, tzinfo=UTC)


def ref(number: int) -> ChangeRef:
    return ChangeRef("github", "acme/shop", number)


def change(number: int, *, updated_at: datetime | None = None) -> Change:
    return Change(ref(number), head=f"{number:040x}", base="b" * 40, updated_at=updated_at)


async def each(*found: Change | NotRead) -> AsyncIterator[Change | NotRead]:
    for one in found:
        yield one


def test_changes_are_asked_for_once_in_order_and_the_unknown_are_told() -> None:
    forge = MemoryForge()
    for number in (1, 2):
        forge.open(change(number))

    async def story() -> list[ChangeRef]:
        return [found.ref async for found in named([ref(2), ref(9), ref(1), ref(2)], forge=lambda name: forge)]

    assert asyncio.run(story()) == [ref(2), ref(9), ref(1)]


def test_a_forge_that_is_away_ends_the_asking() -> None:
    class Away(MemoryForge):
        async def change(self, ref: ChangeRef) -> Change:
            raise Unreachable("GitHub does not answer.")

    async def story() -> list[object]:
        return [found async for found in named([ref(1)], forge=lambda name: Away())]

    with pytest.raises(Unreachable):
        asyncio.run(story())


def test_only_what_was_touched_since_then_is_taken_and_what_tells_no_time() -> None:
    forge = MemoryForge()
    forge.open(change(1, updated_at=datetime(2026, 10, 31, tzinfo=UTC)))
    forge.open(change(2, updated_at=DAY))
    forge.open(change(3))

    async def story() -> list[int]:
        return [found.ref.number async for found in open_since(forge, "acme/shop", DAY) if isinstance(found, Change)]

    assert asyncio.run(story()) == [2, 3]


def test_what_has_a_job_is_known_and_what_would_be_skipped_is_left_out() -> None:
    async def story() -> None:
        jobs = FakeJobs()
        await jobs.accept(Intent(ref(1), change(1).head))
        found = each(change(1), change(2), change(3), NotRead(ref(4), "gone"))
        chosen = await choose(found, jobs=jobs, skips=lambda one: "a draft" if one.ref == ref(3) else "")
        assert [one.ref for one in chosen.known] == [ref(1)]
        assert [one.ref for one in chosen.new] == [ref(2)]
        assert chosen.left_out == ((ref(3), "a draft"), (ref(4), "gone"))

    asyncio.run(story())


def test_a_batch_that_is_begun_again_adds_nothing_twice() -> None:
    async def story() -> None:
        jobs = FakeJobs()
        for _ in range(2):
            chosen = await choose(each(change(1), change(2)), jobs=jobs)
            async for _change, _accepted in accept_all(chosen, request=jobs.accept):
                pass
        found = await progress(jobs, limit=10)
        assert [job.priority for job in found.jobs] == [Priority.BATCH, Priority.BATCH]
        assert found.counts[State.QUEUED] == 2
        assert found.ended == 0

    asyncio.run(story())


def test_the_estimate_says_what_it_is_made_of() -> None:
    own = estimate([0.02, 0.04, 0.06], prices=PRICES)
    assert own.usd_each == pytest.approx(0.04)
    assert "last 3 reviews" in own.basis
    listed = estimate([0.5, 0.5], prices=PRICES)
    assert listed.usd_each == pytest.approx(0.035)
    assert "list prices" in listed.basis
    assert estimate([], prices=None).usd_each is None
