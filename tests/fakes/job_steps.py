"""The steps in which stories about job records are told, to the fake and to Redis alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from worker.core.change import ChangeRef
from worker.core.job import Claim, NotClaimed, State
from worker.ports import Jobs

REF = ChangeRef("github", "octo/cat", 7)
A, B, C = ("a" * 40, "b" * 40, "c" * 40)
REVIEW = (State.QUEUED, State.RUNNING)
PUBLISH = (State.REVIEWED, State.PUBLISHING)

Story = Callable[[Callable[[Jobs], Awaitable[None]]], None]
"""Takes what is to happen to a store of job records, and lets it happen."""


async def claimed(jobs: Jobs, job_id: str, states: tuple[State, ...] = REVIEW, worker: str = "w1") -> Claim:
    claim = await jobs.claim(job_id, worker=worker, states=states)
    assert isinstance(claim, Claim), claim
    return claim


async def refused(jobs: Jobs, job_id: str, states: tuple[State, ...] = REVIEW) -> str:
    answer = await jobs.claim(job_id, worker="w2", states=states)
    assert isinstance(answer, NotClaimed), answer
    return answer.reason


async def state_of(jobs: Jobs, job_id: str) -> State:
    job = await jobs.get(job_id)
    assert job is not None
    return job.state


async def after(seconds: float, act: Callable[[], Awaitable[Claim]]) -> Claim:
    await asyncio.sleep(seconds)
    return await act()


async def lease_ends() -> None:
    await asyncio.sleep(0.2)
