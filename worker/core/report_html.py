"""A report as one page for a browser: it needs nothing from outside, and no text in it can act."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from worker.core import page
from worker.core.counting import counted
from worker.core.finding import Finding, Severity
from worker.core.ledger import Ledger
from worker.core.markdown import visible
from worker.core.report import Report
from worker.core.usage import Usage

_COLOURS = {Severity.CRITICAL: "bad", Severity.HIGH: "bad", Severity.MEDIUM: "wait", Severity.LOW: "busy"}
_STYLE = """
.counts { display: flex; flex-wrap: wrap; gap: .5rem 1.4rem; margin: 1rem 0 0; padding: 0; list-style: none; }
.counts b { font-size: 1.25rem; }
.bar { height: .5rem; border-radius: .25rem; background: var(--wait); overflow: hidden; display: block; width: 100%;
  margin: 0 0 1.2rem; }
.bar rect { fill: var(--good); }
.note { border-left: .25rem solid var(--wait); }
h3.file { font: 600 .95rem ui-monospace, monospace; overflow-wrap: anywhere; margin: 1.6rem 0 .5rem; }
.finding { border-left: .25rem solid currentColor; } .finding > * { color: var(--ink); }
.finding > .soft { color: var(--soft); } .finding > :last-child { margin-bottom: 0; }
.title { font-size: 1rem; margin: 0 0 .2rem; overflow-wrap: anywhere; } .finding p { overflow-wrap: anywhere; }
.place { font-size: .86rem; margin: 0 0 .5rem; } .place .bad, .place .wait, .place .busy { font-weight: 600; }
.text { white-space: pre-wrap; } code { background: var(--shade); border-radius: .25rem; padding: .1em .3em; }
pre { background: var(--shade); border-radius: .4rem; padding: .6rem .8rem; margin: .4rem 0; overflow-x: auto;
  white-space: pre; overflow-wrap: normal; }
.suggestion { border-left: .2rem solid var(--good); } .label { font-size: .86rem; margin: .6rem 0 0; }
td.path { font: .86em/1.6 ui-monospace, monospace; overflow-wrap: anywhere; min-width: 12rem; }
@media print { .card, .scroll { break-inside: avoid; } }
"""
_FENCED = re.compile(r"^ {0,3}(`{3,})[^`\n]*\n(.*?)(?:^ {0,3}\1`*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)|(?<!\*)\*\*(?=\S)([^*`\n]+)(?<=\S)\*\*(?!\*)")
_BREAK = re.compile(r"\n[ \t]*\n")


def report_html(report: Report) -> str:
    """`review --format html`. What the model wrote is shown as it is: hand in a report that was `masked`."""
    by_file: dict[str, list[Finding]] = {}
    for finding in report.findings:
        by_file.setdefault(finding.anchor.path if finding.anchor else finding.path, []).append(finding)
    parts = [_head(report), _counts((*report.findings, *report.unanchored)), _coverage(report.ledger)]
    parts += [f'<p class="card note">{_text(note)}</p>' for note in _notes(report)]
    if by_file or report.unanchored:
        parts.append("<h2>Findings</h2>")
    for path, findings in by_file.items():
        parts.append(f'<h3 class="file">{_text(path)}</h3>')
        parts += [_finding(finding, heading="h4") for finding in findings]
    if report.unanchored:
        parts.append("<h2>Without a line that could be proven</h2>")
        parts += [_finding(finding, heading="h3") for finding in report.unanchored]
    if not by_file and not report.unanchored and report.ledger.reviewed_lines:
        parts.append("<p>No findings in the lines that were reviewed.</p>")
    parts += [_left_out(report.ledger), _usage(report.usage, is_free=report.is_standin)]
    return page.document(f"Review of {visible(report.change)}", "".join(parts), style=_STYLE)


def _head(report: Report) -> str:
    facts = [f"by <b>{_text(report.model)}</b>"] if report.model else []
    facts += [
        f"{name} <code>{_text(sha[:12])}</code>" for name, sha in (("base", report.base), ("head", report.head)) if sha
    ]
    return f'<h1>Review of {_text(report.change)}</h1><p class="soft">{" · ".join(facts)}</p>'


def _notes(report: Report) -> list[str]:
    standin = ["No model took part: a stand-in with a few fixed checks wrote this."] if report.is_standin else []
    return [*standin, *report.notes]


def _counts(found: Iterable[Finding]) -> str:
    severities = [finding.severity for finding in found]
    if not severities:
        return ""
    rows = (
        f'<li class="{_COLOURS[severity]}"><b>{severities.count(severity)}</b> {severity.value}</li>'
        for severity in Severity
        if severity in severities
    )
    return f'<ul class="counts">{"".join(rows)}</ul>'


def _coverage(ledger: Ledger) -> str:
    said = f"{ledger.reviewed_lines:,} of {ledger.changed_lines:,} changed lines reviewed"
    if ledger.changed_lines == 0 and ledger.is_complete:
        return "<h2>Nothing to review</h2><p>The change has no changed lines.</p>"
    share = 100 * ledger.reviewed_lines / max(1, ledger.changed_lines)
    bar = (
        f'<svg class="bar" role="img" aria-label="{said}" preserveAspectRatio="none" viewBox="0 0 100 1">'
        f'<rect width="{share:.2f}" height="1"></rect></svg>'
    )
    state = "good" if ledger.is_complete else "wait"
    return f'<h2 class="{state}">{said}</h2>{bar}'


def _finding(finding: Finding, *, heading: str) -> str:
    colour = _COLOURS[finding.severity]
    where = ""
    if (anchor := finding.anchor) is not None:
        lines = f"{anchor.start_line}–{anchor.line}" if anchor.line != anchor.start_line else f"{anchor.line}"
        where = f" · {'removed ' if anchor.side == 'LEFT' else ''}line{'s' if '–' in lines else ''} {lines}"
    elif finding.path:
        where = f" · {_text(finding.path)}"
    parts = [
        f'<{heading} class="title">{_SPAN.sub(_span, _text(finding.title))}</{heading}>',
        f'<p class="place soft"><span class="{colour}">{finding.severity.value}</span>'
        f" · {_text(finding.category)}{where}</p>",
        _prose(finding.body),
    ]
    if finding.suggestion is not None:
        shown = _text(finding.suggestion)
        parts.append(f'<p class="label soft">Suggested</p><pre class="suggestion" tabindex="0">{shown}</pre>')
    return f'<article class="card finding {colour}">{"".join(parts)}</article>'


def _prose(text: str) -> str:
    """Paragraphs with bold, code spans and fenced code; every other mark is shown as it was written."""
    shown = visible(text)
    parts: list[str] = []
    end = 0
    for fence in _FENCED.finditer(shown):
        parts += _paragraphs(shown[end : fence.start()])
        parts.append(f'<pre tabindex="0">{escape(fence[2])}</pre>')
        end = fence.end()
    return "".join([*parts, *_paragraphs(shown[end:])])


def _paragraphs(text: str) -> list[str]:
    paragraphs = (paragraph.strip() for paragraph in _BREAK.split(text))
    return [f'<p class="text">{_SPAN.sub(_span, escape(paragraph))}</p>' for paragraph in paragraphs if paragraph]


def _span(found: re.Match[str]) -> str:
    return f"<code>{found[1]}</code>" if found[1] is not None else f"<b>{found[2]}</b>"


def _left_out(ledger: Ledger) -> str:
    if not ledger.not_reviewed:
        return ""
    rows = "".join(
        f'<tr><td class="path">{_text(row.path)}</td><td>{_text(row.reason)}</td>'
        f'<td class="number">{row.lines:,}</td></tr>'
        for row in sorted(ledger.not_reviewed, key=lambda row: (-row.lines, row.path))
    )
    return (
        '<h2 id="left-out">Not reviewed</h2><div class="scroll" role="region" aria-labelledby="left-out" tabindex="0">'
        '<table><thead><tr><th scope="col">File</th><th scope="col">Why</th><th scope="col" class="number">Changed'
        f" lines</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _usage(usage: Usage, *, is_free: bool) -> str:
    about = "about " if usage.is_estimated else ""
    parts = [
        counted(usage.requests, "request"),
        f"{about}{usage.input_tokens:,} input tokens ({usage.cached_tokens:,} cached)",
        f"{about}{usage.output_tokens:,} output tokens",
        *([f"{about}${usage.cost_usd:.4f}"] if usage.cost_usd is not None and not is_free else []),
    ]
    return f'<h2>Cost</h2><p class="soft">{" · ".join(parts)}</p>'


def _text(text: str) -> str:
    return escape(visible(text), quote=True)
