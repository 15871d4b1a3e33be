"""GET /: one page, made on the server, that shows whether reviews happen. No script, no outside source."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from worker.core.job import Job, State

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --soft: #667085; --line: #e4e7ec; --page: #f7f8fa; --card: #fff;
  --good: #12805c; --busy: #2563c9; --wait: #a15c07; --bad: #c0362c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #98a2b3; --line: #2b3340; --page: #10141b;
  --card: #181e27; --good: #4cc38a; --busy: #7fb0ff; --wait: #e0a458; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2.2rem 0 .7rem; }
.soft { color: var(--soft); } code { font: .86em ui-monospace, monospace; }
.counts { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.5rem, 1fr)); gap: .7rem;
  padding: 0; margin: 0; list-style: none; }
.counts li, .facts, .scroll { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
.counts li { padding: .7rem .9rem; } .counts b { display: block; font-size: 1.6rem; line-height: 1.2; }
.facts { display: flex; flex-wrap: wrap; gap: .4rem 2rem; padding: .8rem 1rem; margin: 1.2rem 0 0; }
.scroll { overflow-x: auto; } table { width: 100%; border-collapse: collapse; font-size: .93rem; }
th, td { text-align: left; padding: .5rem .9rem; border-top: 1px solid var(--line); vertical-align: top; }
thead th { border-top: 0; color: var(--soft); font-weight: 500; } td:first-child { white-space: nowrap; }
.done { color: var(--good); } .failed { color: var(--bad); } .deferred { color: var(--wait); }
.running, .reviewed, .publishing { color: var(--busy); } .alarm { color: var(--bad); font-weight: 600; }
a { color: var(--busy); }
"""

_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """How the work stands. `paused` is the reason in words, empty when the fleet works."""

    counts: Mapping[State, int]
    newest: Sequence[Job] = ()
    paused: str = ""


def page(
    standing: Standing | None, *, provider: Mapping[str, str], is_known_reader: bool, now: datetime, version: str
) -> str:
    """The page's HTML; `standing` is None when the store is away.

    Who has no token sees counts alone: names of repositories and reasons may be private.
    """
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>kimi-review</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="refresh" content="15"><style>{_STYLE}</style></head><body><main>',
        f'<h1>kimi-review</h1><p class="soft">{escape(version)} · as of {now:%Y-%m-%d %H:%M:%S} UTC</p>',
    ]
    if standing is None:
        parts.append(
            '<p class="alarm">The job store cannot be reached. Deliveries are answered with 503 meanwhile.</p>'
        )
    else:
        if standing.paused:
            why = f": {escape(standing.paused)}" if is_known_reader else "."
            parts.append(f'<p class="alarm">Paused{why}</p>')
        parts.append(_counts(standing.counts))
    if is_known_reader:
        facts = "".join(f"<span>{escape(key)} <code>{escape(value)}</code></span>" for key, value in provider.items())
        parts.append(f'<div class="facts">{facts}</div>')
        if standing is not None:
            parts.append(_table(standing.newest, now))
    else:
        parts.append(
            '<p class="soft">Repositories and reasons need a login: <a href="/?details">show them</a>, any name,'
            " <code>API_TOKEN</code> as the password.</p>"
        )
    parts.append("</main></body></html>")
    return "".join(parts)


def _counts(counts: Mapping[State, int]) -> str:
    rows = "".join(f'<li><b class="{state.value}">{counts.get(state, 0)}</b>{state.value}</li>' for state in State)
    return f'<h2>Jobs by state</h2><ul class="counts">{rows}</ul>'


def _table(jobs: Sequence[Job], now: datetime) -> str:
    if not jobs:
        return '<p class="soft">No job yet. Point a webhook at <code>/webhooks/github</code>, or POST to /reviews.</p>'
    rows = "".join(_row(job, now) for job in jobs)
    return (
        '<h2>Latest</h2><div class="scroll"><table><thead><tr><th>State</th><th>Change</th><th>Why</th>'
        f"<th>Attempt</th><th>Updated</th><th>Job</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(job: Job, now: datetime) -> str:
    cells = [
        f'<td class="{job.state.value}">{job.state.value}</td>',
        f'<td>{escape(str(job.ref))}<br><code class="soft">{escape(job.head[:12])}</code></td>',
        f"<td>{escape(job.reason)}</td>",
        f"<td>{job.attempt}</td>",
        f"<td>{_ago(now, job.updated_at)}</td>",
        f"<td><code>{escape(job.id)}</code></td>",
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _ago(now: datetime, at: float) -> str:
    seconds = max(0, int((now - datetime.fromtimestamp(at, UTC)).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"
