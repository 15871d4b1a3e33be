"""GET /: one page, made on the server, that shows whether reviews happen. No script, no outside source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from worker.core import page as frame
from worker.core.job import Job, State
from worker.ingress.vitals import Vitals
from worker.storage.throttle import Standing as ModelStanding

REFRESH_S = 15
_COLOURS = {
    State.QUEUED: "",
    State.RUNNING: "busy",
    State.REVIEWED: "busy",
    State.PUBLISHING: "busy",
    State.DONE: "good",
    State.DEFERRED: "wait",
    State.FAILED: "bad",
}
_STYLE = """
.counts { display: grid; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); gap: .6rem;
  padding: 0; margin: 0; list-style: none; }
.counts li { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .5rem .7rem;
  font-size: .93rem; }
.counts b { display: block; font-size: 1.6rem; line-height: 1.2; } .none b { color: var(--soft); font-weight: 400; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: .7rem;
  margin-top: 2.2rem; }
.cards .card { margin: 0; } .cards h2 { margin: 0 0 .5rem; }
dl { display: grid; grid-template-columns: 1fr auto; gap: .15rem 1rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; text-align: right; white-space: nowrap; }
dd small { display: block; color: var(--soft); }
.alarm { color: var(--bad); font-weight: 600; border-left: .25rem solid; } .card.alarm { margin: 1.2rem 0 0; }
.provider { margin: 0; } .provider span { margin-right: 1.2rem; display: inline-block; } .login { margin: 1.4rem 0 0; }
td:first-child, td code, .when { white-space: nowrap; } td.change, td.why { min-width: 15rem; overflow-wrap: anywhere; }
@media (max-width: 44rem) {
  thead { display: none; } tr { display: block; border-top: 1px solid var(--line); padding: .6rem .9rem; }
  tr:first-child { border-top: 0; } td { display: block; border: 0; padding: 0; } td.why:empty { display: none; }
  td.change, td.why { min-width: 0; }
  td[data-name]::before { content: attr(data-name) " "; color: var(--soft); }
}
"""

HEADERS = {
    "content-security-policy": f"{frame.policy(_STYLE)}; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """How the work stands. `paused` is the reason in words, empty when the fleet works.

    `left` jobs wait for a worker of a newer version of the program.
    """

    counts: Mapping[State, int]
    newest: Sequence[Job] = ()
    paused: str = ""
    left: int = 0
    vitals: Vitals | None = None


def page(
    standing: Standing | None, *, provider: Mapping[str, str], is_known_reader: bool, now: datetime, version: str
) -> str:
    """The page's HTML; `standing` is None when the store is away.

    Who has no token sees counts alone: names, reasons, limits and money may be private.
    """
    parts = [f'<h1>kimi-review</h1><p class="soft">{escape(version)} · as of {now:%Y-%m-%d %H:%M:%S} UTC</p>']
    if is_known_reader:
        facts = "".join(f"<span>{escape(key)} <code>{escape(value)}</code></span>" for key, value in provider.items())
        parts.append(f'<p class="provider">{facts}</p>')
    if standing is None:
        parts.append(_alarm("The job store cannot be reached. Deliveries are answered with 503 meanwhile."))
    else:
        parts += _alarms(standing, now, is_known_reader=is_known_reader)
        parts.append(_counts(standing.counts))
        if standing.vitals is not None:
            parts.append(_cards(standing.vitals, is_known_reader=is_known_reader))
        if is_known_reader:
            parts.append(_table(standing.newest, now))
    if not is_known_reader:
        parts.append(
            '<p class="soft login">Repositories, reasons, limits and spending need a login:'
            ' <a href="/?details">show them</a>, any name, <code>API_TOKEN</code> as the password.</p>'
        )
    return frame.document("kimi-review", "".join(parts), style=_STYLE, refresh_s=REFRESH_S)


def _alarm(html: str) -> str:
    return f'<p class="card alarm">{html}</p>'


def _alarms(standing: Standing, now: datetime, *, is_known_reader: bool) -> Iterable[str]:
    if standing.paused:
        yield _alarm(f"Paused: {escape(standing.paused)}" if is_known_reader else "Paused.")
    if standing.left:
        who = "1 job waits" if standing.left == 1 else f"{standing.left:,} jobs wait"
        yield _alarm(f"{who} for a worker of a newer version of this program: upgrade the workers.")
    if standing.vitals is not None and is_known_reader:
        model = standing.vitals.model
        if model.quota_used_up_until is not None:
            yield _alarm(f"The provider's quota is used up until {_clock(model.quota_used_up_until)}.")
        elif model.paused_until is not None:
            wait_s = max(0, round((model.paused_until - now).total_seconds()))
            yield _alarm(f"The provider asked for a pause: requests go on in {wait_s} s.")


def _counts(counts: Mapping[State, int]) -> str:
    rows = "".join(
        f'<li class="{_COLOURS.get(state, "") if counts.get(state) else "none"}">'
        f"<b>{counts.get(state, 0):,}</b>{state.value}</li>"
        for state in State
    )
    return f'<h2>Jobs by state</h2><ul class="counts">{rows}</ul>'


def _cards(vitals: Vitals, *, is_known_reader: bool) -> str:
    cards = [_card("Queue", _queue(vitals))]
    cards.append(_card("Requests to the model", _model(vitals.model, is_known_reader=is_known_reader)))
    if is_known_reader and vitals.fallback is not None:
        cards.append(_card("Requests to the second provider", _model(vitals.fallback, is_known_reader=True)))
    if is_known_reader:
        cards.append(_card(f"Spending in {vitals.month}", _spending(vitals)))
    return f'<div class="cards">{"".join(cards)}</div>'


def _queue(vitals: Vitals) -> Iterable[tuple[str, str]]:
    for priority, length in vitals.waiting.items():
        waited_s = max((s for (_, of), s in vitals.longest_waits_s.items() if of is priority), default=0.0)
        yield priority.value, f"{length:,}" + (f"\nlongest wait {_span(int(waited_s))}" if waited_s >= 1 else "")


def _card(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """`rows` are texts: a name and a value, whose further lines are written small."""
    shown = "".join(f"<dt>{escape(name)}</dt><dd>{_value(value)}</dd>" for name, value in rows)
    return f'<section class="card"><h2>{escape(title)}</h2><dl>{shown}</dl></section>'


def _value(text: str) -> str:
    first, _, rest = text.partition("\n")
    return escape(first) + (f"<small>{escape(rest)}</small>" if rest else "")


def _model(model: ModelStanding, *, is_known_reader: bool) -> Iterable[tuple[str, str]]:
    known = {limit.kind: limit for limit in model.limits}
    if not is_known_reader:
        yield "under way", f"{model.in_use:,}"
        yield "waiting", f"{model.waiting:,}"
        return
    source = "found by trying" if model.is_adapting else known["concurrency"].source
    yield "under way", f"{model.in_use:,} of {model.concurrency:,}\n{source}"
    yield "waiting", f"{model.waiting:,}"
    for kind, name, used in (
        ("rpm", "requests a minute", model.minute_requests),
        ("tpm", "tokens a minute", model.minute_tokens),
        ("tpd", "tokens a day", model.day_tokens),
    ):
        limit = next((limit for limit in model.limits if limit.kind == kind), None)
        yield name, f"{used:,}" if limit is None else f"{used:,} of {limit.value:,}\n{limit.source}"


def _spending(vitals: Vitals) -> Iterable[tuple[str, str]]:
    spent = vitals.spent
    budget = "" if vitals.month_budget_usd is None else f" of ${vitals.month_budget_usd:,.2f}"
    yield "spent", f"${spent.usd:,.2f}{budget}"
    if spent.reserved_usd:
        yield "reserved", f"${spent.reserved_usd:,.2f}"
    yield "requests", f"{spent.requests:,}" + (f", {spent.lost_requests:,} lost" if spent.lost_requests else "")
    yield "input tokens", f"{spent.input_tokens:,}"
    yield "of them cached", f"{spent.cached_tokens:,}"
    yield "output tokens", f"{spent.output_tokens:,}"
    if spent.unpriced_requests:
        yield "without a known price", f"{spent.unpriced_requests:,} requests"


def _table(jobs: Sequence[Job], now: datetime) -> str:
    if not jobs:
        return (
            '<h2>Latest</h2><p class="card soft">No job yet. Point a webhook at <code>/webhooks/github</code>,'
            " or review one change with <code>kimi-review review URL</code>.</p>"
        )
    rows = "".join(_row(job, now) for job in jobs)
    names = "".join(f'<th scope="col">{name}</th>' for name in ("State", "Change", "Why", "Attempt", "Updated", "Job"))
    return (
        '<h2 id="latest">Latest</h2><div class="scroll" role="region" aria-labelledby="latest" tabindex="0">'
        f"<table><thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(job: Job, now: datetime) -> str:
    cells = [
        f'<td class="{_COLOURS.get(job.state, "soft")}">{job.state.value}</td>',
        f'<td class="change">{escape(str(job.ref))}<br><code class="soft">{escape(job.head[:12])}</code></td>',
        f'<td class="why">{escape(job.reason)}</td>',
        f'<td data-name="attempt">{job.attempt}</td>',
        f'<td class="when">{_ago(now, job.updated_at)}</td>',
        f"<td><code>{escape(job.id)}</code></td>",
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _ago(now: datetime, at: float) -> str:
    return f"{_span(max(0, int((now - datetime.fromtimestamp(at, UTC)).total_seconds())))} ago"


def _span(seconds: int) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
