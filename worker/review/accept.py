"""Accept what a webhook call or a caller asks for: decide, store, wake somebody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import structlog

from worker.core.delivery import Delivery, Ignored, Policy, refusal
from worker.core.errors import ReviewError
from worker.core.job import Accepted, Intent, Priority, State
from worker.ports import Jobs, Wake

log = structlog.get_logger()

NOTE_TIMEOUT_S = 0.5


async def accept_delivery(
    delivery: Delivery, *, policy: Policy, jobs: Jobs, wake: Wake, settings_hash: str = "", settle_s: float = 0.0
) -> Accepted | Ignored:
    """Make a job of `delivery`, or say why not. Raises `Transient` when the store is away: nothing was written then."""
    if (ignored := refusal(delivery, policy)) is not None:
        log.info("delivery.ignored", reason=ignored.reason, change=str(delivery.ref), kind=delivery.event)
        await _note(jobs.note_ignored(delivery.ref, ignored.reason), change=str(delivery.ref))
        return ignored
    intent = Intent(
        ref=delivery.ref,
        head=delivery.head,
        priority=Priority.INTERACTIVE,
        delivery=delivery.id,
        settings_hash=settings_hash,
        settle_s=settle_s,
    )
    accepted = await accept(intent, jobs=jobs, wake=wake)
    if delivery.has_new_base and not accepted.is_new and accepted.state is not State.QUEUED:
        again = f"kimi-review review {delivery.ref.repository}#{delivery.ref.number}"
        detail = f"a head is reviewed once, so this one is not reviewed again against its new base; to do so: {again}"
        await _note(jobs.decided(accepted.job, "base.changed", detail), change=str(delivery.ref))
    return accepted


async def _note(noting: Awaitable[None], *, change: str) -> None:
    """For `kimi-review why`. The answer to the forge is the same whether it succeeds."""
    try:
        async with asyncio.timeout(NOTE_TIMEOUT_S):
            await noting
    except (ReviewError, TimeoutError) as error:
        log.warning("delivery.not_noted", change=change, error=str(error))


async def accept(intent: Intent, *, jobs: Jobs, wake: Wake) -> Accepted:
    """Store the job, then wake a worker for it; upkeep does so for one that waits for a newer head first.

    Raises `Transient` when the store is away.
    """
    accepted = await jobs.accept(intent)
    log.info(
        "job.accepted" if accepted.is_new else "job.known",
        job=accepted.job,
        change=str(intent.ref),
        head=intent.head[:12],
        state=accepted.state,
    )
    if accepted.is_new and intent.settle_s <= 0:
        try:
            await wake.review(accepted.job, accepted.priority)
        except ReviewError as error:
            # The job is stored and its wake-up is due: upkeep sends it. To answer an error now would be untrue.
            log.warning("wake.failed", job=accepted.job, error=str(error))
    return accepted
