"""Asks a provider everything that can be wrong with it before a review does: a row each, with its cure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from worker.core.errors import AnswerCutOff, ConfigurationError, ReviewError, Transient, UnknownModel
from worker.core.exchange import Answer, Kind, Prompt
from worker.core.limits import TIERS
from worker.core.model_info import ModelInfo, WindowNote, budget_for
from worker.core.retry import GiveUp
from worker.core.usage import Usage
from worker.ports import Clock, Cost, Flow, Slot, Throttle
from worker.providers.account import QuotaWindow, balance, models_offered, offers, quota_windows
from worker.providers.catalogue import corrected, describe, known_models, lookup
from worker.providers.connect import connect
from worker.providers.endpoint import Endpoint
from worker.providers.http import safe_words
from worker.providers.remote import Deadlines, Wishes
from worker.providers.table import PROVIDERS
from worker.providers.windows import WindowWishes, informed

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
PATIENCE_S = 150.0
"""An operator waits no longer for the account's turn and the answer together."""


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One line of `kimi-review check`. `cure` says what to change; empty when `ok`."""

    name: str
    ok: bool
    detail: str
    cure: str = ""


@dataclass(frozen=True, slots=True)
class AccountNow:
    """What the installation has learned of the account, for the rows that show it."""

    limits: Sequence[str] = ()
    """Each in words: "RPM 3 (told by a refusal)"."""
    window: WindowNote = field(default_factory=WindowNote)
    quota_used_up_until: datetime | None = None
    """While the fleet waits by the provider's word, one request finds out whether that still holds."""
    lift: Callable[[datetime], Awaitable[str]] | None = None
    """Ends that wait when the request was answered, and says so in words."""


async def check_provider(
    endpoint: Endpoint,
    *,
    clock: Clock,
    throttle: Throttle | None = None,
    wishes: Wishes | None = None,
    window: WindowWishes | None = None,
    account: AccountNow | None = None,
) -> list[CheckRow]:
    """`/models`, balance or quota, limits, window, and one tiny real completion. Never raises `ReviewError`.

    Without a `throttle` the completion is sent as it is, once.
    """
    rows: list[CheckRow] = []
    offered: dict[str, dict[str, object]] = {}
    account = account or AccountNow()
    window = window or WindowWishes()
    try:
        offered = await offers(endpoint, now=clock.now())
    except ReviewError as error:
        rows.append(failed("address and key", error))
        # Who does not answer here does not answer there, and an operator waits.
        asks_on = not isinstance(error, Transient)
    else:
        asks_on = True
        provider = endpoint.provider
        number = "1 model" if len(offered) == 1 else f"{len(offered)} models"
        known = f"{endpoint.who}, plan {provider.plan}, {number} on offer"
        rows.append(CheckRow("address and key", True, known))
    rows += await _money(endpoint, clock) if asks_on else []
    rows.append(_limits(endpoint, account))
    if account.quota_used_up_until is not None:
        throttle = None
    note = replace(account.window, row=offered.get(endpoint.model, account.window.row))
    info = informed(lookup(endpoint.model), note, window)
    completion = await _completion(endpoint, info, clock, throttle or _Unthrottled(), wishes)
    if completion.ok and account.lift is not None and account.quota_used_up_until is not None:
        lifted = await account.lift(account.quota_used_up_until)
        completion = replace(completion, detail=f"{completion.detail}; {lifted}")
    rows.append(_model(endpoint, list(offered), answered=completion.ok))
    rows.append(_window(info, corrected(lookup(endpoint.model), note.row or {}), window))
    rows.append(completion)
    return rows


def _window(used: ModelInfo, told: ModelInfo, wishes: WindowWishes) -> CheckRow:
    """What reviews are planned with, and who says otherwise."""
    others = [
        f"{one.window_source} says {one.window_tokens:,}"
        for one in (told, lookup(used.name))
        if one.window_source != used.window_source and one.window_tokens != used.window_tokens
    ]
    try:
        share = budget_for(used, output_tokens=wishes.output_tokens).output_tokens
    except ConfigurationError as error:
        return CheckRow("window", False, f"{used.window_tokens:,} tokens", error.problems[0])
    differing = f" ({', '.join(others)})" if others else ""
    return CheckRow(
        "window",
        True,
        f"{used.window_tokens:,} tokens by {used.window_source}{differing}, {share:,} of them for the answer",
    )


async def choose_model(endpoint: Endpoint, *, clock: Clock) -> str:
    """What `auto` means for this key. Raises `UnknownModel` when nothing on offer is known, and `models_offered`'s."""
    offered = await models_offered(endpoint, now=clock.now())
    best = best_offered(endpoint, offered)
    if best is None:
        raise UnknownModel(
            f"{endpoint.who}: offers no model that is known here; set {endpoint.names.model} to one of:"
            f" {listed(offered)}"
        )
    return best


def best_offered(endpoint: Endpoint, offered: Sequence[str]) -> str | None:
    """The best that is on offer of the vendor's own models; the catalogue names the best last."""
    prefixes = endpoint.provider.model_prefixes or ("",)
    own = [name for name in known_models() if name in offered and name.startswith(prefixes)]
    return own[-1] if own else None


def listed(models: Sequence[str]) -> str:
    """A stranger's list for a message of ours."""
    return safe_words(", ".join(sorted(models)[:20])) or "nothing"


def failed(name: str, error: ReviewError) -> CheckRow:
    """Our messages end in what to change, after the last semicolon."""
    detail, _, cure = str(error).rpartition("; ")
    return CheckRow(name, False, detail or cure, cure if detail else "")


async def _money(endpoint: Endpoint, clock: Clock) -> list[CheckRow]:
    """Balance, or the plan's windows. A compatible server of one's own need not have either."""
    is_required = endpoint.provider in PROVIDERS
    rows: list[CheckRow] = []
    try:
        left = await balance(endpoint, now=clock.now())
    except ReviewError as error:
        rows += [failed("balance", error)] if is_required else []
    else:
        if left is not None:
            cure = "" if left > 0 else "top the account up; requests are refused until then"
            rows.append(CheckRow("balance", left > 0, f"{left:.2f} left", cure))
    try:
        rows.extend(_quota(window) for window in await quota_windows(endpoint, now=clock.now()))
    except ReviewError as error:
        rows += [failed("quota", error)] if is_required else []
    return rows


def _quota(window: QuotaWindow) -> CheckRow:
    is_open = window.limit is None or window.used is None or window.used < window.limit
    turns = f", turns {window.resets_at:%Y-%m-%d %H:%M} UTC" if window.resets_at else ""
    used = "?" if window.used is None else f"{window.used:g}"
    of = "?" if window.limit is None else f"{window.limit:g}"
    cure = "" if is_open else "reviews wait until it turns; a second provider in FALLBACK_… would take over"
    return CheckRow(f"quota, {window.name}", is_open, f"{used} of {of} used{turns}", cure)


def _limits(endpoint: Endpoint, account: AccountNow) -> CheckRow:
    """Never wrong, but worth knowing: what the throttle goes by."""
    provider = endpoint.provider
    plan = [f"concurrency {provider.plan_concurrency}"] if provider.plan_concurrency else []
    detail = ", ".join(account.limits or plan) or "not set, learned from what the server says"
    if provider.name == "moonshot":
        tiers = "; ".join(
            f"{tier.name}: {tier.limits.concurrency} at once, {tier.limits.rpm} RPM, {tier.limits.tpm} TPM"
            for tier in TIERS
        )
        detail += f" (the vendor's table: {tiers})"
    if (until := account.quota_used_up_until) is not None:
        detail += f"; the fleet sends nothing until {until:%Y-%m-%d %H:%M} UTC: the quota was used up"
    return CheckRow("limits", True, detail)


def _model(endpoint: Endpoint, offered: Sequence[str], *, answered: bool) -> CheckRow:
    note = describe(endpoint.model).note
    known = f" ({note})" if note else ""
    if answered or endpoint.model in offered:
        return CheckRow("model", True, f"{endpoint.model}{known}")
    if not offered:
        return CheckRow("model", False, f"{endpoint.model}: cannot be looked up", "repair the rows above first")
    advice = f"set {endpoint.names.model} to {best_offered(endpoint, offered) or 'one of these'}"
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
        async with asyncio.timeout(PATIENCE_S):
            answer = await model.complete(TINY, flow=Flow(change="check", repository="check", job="check"))
    except TimeoutError:
        # The request's own deadlines are shorter: it stood in line.
        return CheckRow("completion", True, f"not tried: others used the whole account for {PATIENCE_S:g} s")
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
