"""Asks a provider everything that can be wrong with it before a review does: a row each, with its cure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from worker.core.errors import AnswerCutOff, ReviewError, UnknownModel
from worker.core.exchange import Answer, Kind, Prompt
from worker.core.limits import TIERS, Limits
from worker.core.model_info import ModelInfo
from worker.core.report import Usage
from worker.core.retry import GiveUp
from worker.ports import Clock, Cost, Flow, Slot, Throttle
from worker.providers.account import balance, models_offered, quota_windows
from worker.providers.catalogue import describe, known_models
from worker.providers.connect import connect
from worker.providers.endpoint import Endpoint
from worker.providers.http import safe_words
from worker.providers.remote import Deadlines, Wishes

TINY = Prompt(
    kind=Kind.SUMMARY,
    system="Answer with one JSON object and nothing around it.",
    user='kind: summary\nThis is a test of the connection. Answer {"summary": "ready"}.',
    schema={
        "type": "object",
        "properties": {"summary": {"type": "string"}},
        "required": ["summary"],
        "additionalProperties": False,
    },
    input_tokens=256,
    # Models that always think need some room before the first word of the answer.
    max_output_tokens=2_048,
    without_thinking=True,
)
DEADLINES = Deadlines(first_byte_s=60.0, idle_s=60.0, total_s=120.0)


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One line of `kimi-review check`. `cure` says what to change; empty when `ok`."""

    name: str
    ok: bool
    detail: str
    cure: str = ""


async def check_provider(
    endpoint: Endpoint,
    *,
    info: ModelInfo,
    clock: Clock,
    throttle: Throttle | None = None,
    wishes: Wishes | None = None,
    limits: Limits | None = None,
) -> list[CheckRow]:
    """`/models`, balance or quota, limits, and one tiny real completion. Never raises `ReviewError`.

    Without a `throttle` the completion is sent as it is, once.
    """
    rows: list[CheckRow] = []
    offered: list[str] = []
    try:
        offered = await models_offered(endpoint, now=clock.now())
    except ReviewError as error:
        rows.append(failed("address and key", error))
    else:
        provider = endpoint.provider
        known = f"{endpoint.who}, plan {provider.plan}, {len(offered)} models on offer"
        rows.append(CheckRow("address and key", True, known))
    rows += await _money(endpoint, clock)
    rows.append(_limits(endpoint, limits))
    completion = await _completion(endpoint, info, clock, throttle or _Unthrottled(), wishes)
    rows.append(_model(endpoint, offered, answered=completion.ok))
    rows.append(completion)
    return rows


async def choose_model(endpoint: Endpoint, *, clock: Clock) -> str:
    """What `auto` means for this key. Raises `UnknownModel` when nothing on offer is known, and `models_offered`'s."""
    offered = await models_offered(endpoint, now=clock.now())
    advice = f"set {endpoint.names.model} to {best_offered(endpoint, offered) or 'one of these'}"
    known = f" ({note})" if note else ""
    return CheckRow(
        "model",
        False,
        f"{endpoint.model} is not on offer for this key{known}",
        f"{advice}; on offer: {listed(offered)}",
    )


async def _completion(
    endpoint: Endpoint, info: ModelInfo, clock: Clock, throttle: Throttle, wishes: Wishes | None
) -> CheckRow:
    model = connect(
        endpoint,
        info=info,
        throttle=throttle,
        clock=clock,
        wishes=wishes,
        deadlines=DEADLINES,
        # An operator waits for this row: what is wrong now is told now.
        decide=lambda *_, **__: GiveUp("asked once"),
    )
    started_s = clock.monotonic()
    try:
        answer = await model.complete(TINY, flow=Flow(change="check", repository="check", job="check"))
    except AnswerCutOff:
        # It answers; that it thinks longer than a test allows is no fault.
        return CheckRow("completion", True, f"answered after {clock.monotonic() - started_s:.1f} s, thinking")
    except ReviewError as error:
        return failed("completion", error)
    return CheckRow("completion", True, _told(answer, clock.monotonic() - started_s))


def _told(answer: Answer, seconds: float) -> str:
    usage = answer.usage
    cost = "" if usage.cost_usd is None else f", ${usage.cost_usd:.6f}"
    notes = f"; {'; '.join(answer.notes)}" if answer.notes else ""
    return (
        f"{answer.model} answered in {seconds:.1f} s, {usage.input_tokens} + {usage.output_tokens} tokens{cost}{notes}"
    )


class _Unthrottled:
    """For one request before anything else runs."""

    @asynccontextmanager
    async def admit(self, cost: Cost, *, flow: Flow) -> AsyncIterator[Slot]:
        yield _Unsettled()

    async def refused(self, error: Exception) -> None:
        """There is no fleet to tell."""


class _Unsettled:
    async def settle(self, usage: Usage) -> None:
        """Nothing was reserved."""
