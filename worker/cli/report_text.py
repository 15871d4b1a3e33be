"""A report and a plan for the terminal. Every text of a stranger is made visible first: nothing steers the screen."""

from __future__ import annotations

from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from worker.core.counting import counted
from worker.core.finding import Finding, Severity
from worker.core.ledger import Ledger
from worker.core.markdown import visible
from worker.core.planning.plan import Plan
from worker.core.report import Report
from worker.core.usage import Usage

_COLOURS = {Severity.CRITICAL: "bold red", Severity.HIGH: "red", Severity.MEDIUM: "yellow", Severity.LOW: "blue"}
_SHOWN_ROWS = 20
_SHOWN_CHUNKS = 40
_INDENT = 9
"""Under the severity's word and a space."""
_NARROWEST = 30
"""A terminal narrower than this gets lines that are longer than it."""


def open_console(*, file: TextIO | None = None, is_error: bool = False) -> Console:
    """A console that takes no markup, emoji code or link from text; a `file` is written 120 columns wide."""
    return Console(
        markup=False, emoji=False, highlight=False, stderr=is_error, file=file, width=120 if file is not None else None
    )


def show_report(report: Report, console: Console, *, seconds: float | None = None) -> None:
    """Findings, what was covered, what it cost."""
    heading = Text.assemble(("\nReview of ", "dim"), visible(report.change), ("  by ", "dim"), visible(report.model))
    console.print(heading)
    notes = [visible(note) for note in report.notes]
    if report.is_standin:
        notes.insert(0, "This is the stand-in, no model: a few fixed checks over added lines, to show how it works.")
    if notes:
        console.print(Panel(Text("\n".join(notes)), border_style="yellow", title="Please note", title_align="left"))
    if not report.findings and not report.unanchored:
        console.print(_nothing_found(report))
    for finding in report.findings:
        _show_finding(finding, console)
    if report.unanchored:
        console.print(Text("\nWithout a line that could be proven:", style="bold"))
        for finding in report.unanchored:
            _show_finding(finding, console)
    console.print()
    _show_ledger(report.ledger, console, verb="reviewed")
    parts = _usage(report.usage, seconds, is_free=report.is_standin)
    for line in _joined(parts, width=console.width):
        console.print(Text(line, style="dim"), soft_wrap=True)


def show_plan(plan: Plan, console: Console) -> None:
    """What would be sent, and what would not."""
    table = Table(box=SIMPLE_HEAD, header_style="dim", show_edge=False, pad_edge=False)
    for name, justify in (("Chunk", "left"), ("Input tokens", "right"), ("Lines", "right"), ("Files", "left")):
        table.add_column(name, justify="right" if justify == "right" else "left")
    for chunk in plan.chunks[:_SHOWN_CHUNKS]:
        names = [visible(file.path) for file in chunk.files]
        files = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        table.add_row(Text(chunk.id[:12]), f"{chunk.input_tokens:,}", f"{chunk.changed:,}", Text(files))
    console.print(table)
    if len(plan.chunks) > _SHOWN_CHUNKS:
        console.print(f"… and {len(plan.chunks) - _SHOWN_CHUNKS} more chunks; --format json lists them all.")
    total = sum(chunk.input_tokens for chunk in plan.chunks)
    console.print(f"\n{counted(len(plan.chunks), 'request')}, at most {total:,} input tokens in all.")
    console.print(f"Window {plan.window_tokens:,} tokens, of which {plan.output_tokens:,} are kept for the answer.")
    _show_ledger(plan.ledger, console, verb="would be reviewed")


def _nothing_found(report: Report) -> Text:
    if report.ledger.changed_lines == 0 and report.is_complete:
        return Text("\nNothing to review: the change has no changed lines.", style="bold")
    if report.ledger.reviewed_lines == 0:
        return Text("\nNothing was reviewed, so nothing was found.", style="bold yellow")
    return Text("\nNo findings in the lines that were reviewed.", style="bold green")


def _show_finding(finding: Finding, console: Console) -> None:
    anchor = finding.anchor
    place = visible(anchor.path if anchor else finding.path)
    if anchor is not None:
        place += f":{anchor.start_line}" + (f"-{anchor.line}" if anchor.line != anchor.start_line else "")
        place += " (removed)" if anchor.side == "LEFT" else ""
    console.print()
    console.print(
        Text.assemble(
            (f"{finding.severity.value.upper():<8} ", _COLOURS[finding.severity]),
            (visible(finding.title), "bold"),
        )
    )
    show_indented(Text.assemble((place, "cyan"), (f"  {visible(finding.category)}", "dim")), console, by=_INDENT)
    if finding.body:
        show_indented(Text(visible(finding.body)), console, by=_INDENT)
    if finding.suggestion:
        show_indented(Text("Suggested:", style="dim"), console, by=_INDENT)
        # Code is copied: it is never wrapped.
        for line in visible(finding.suggestion).rstrip("\n").split("\n"):
            console.print(Text(" " * _INDENT + line, style="green"), soft_wrap=True)


def _show_ledger(ledger: Ledger, console: Console, *, verb: str) -> None:
    style = "green" if ledger.is_complete else "yellow"
    console.print(
        Text(f"{ledger.reviewed_lines:,} of {counted(ledger.changed_lines, 'changed line')} {verb}.", style=style)
    )
    if not ledger.not_reviewed:
        return
    table = Table(box=SIMPLE_HEAD, header_style="dim", show_edge=False, pad_edge=False)
    console.print()
    table.add_column("Not reviewed")
    table.add_column("Lines", justify="right")
    table.add_column("Why")
    for row in ledger.not_reviewed[:_SHOWN_ROWS]:
        table.add_row(Text(visible(row.path)), f"{row.lines:,}", Text(visible(row.reason)))
    console.print(table)
    if len(ledger.not_reviewed) > _SHOWN_ROWS:
        console.print(f"… and {len(ledger.not_reviewed) - _SHOWN_ROWS} more; --format json lists them all.")


def _usage(usage: Usage, seconds: float | None, *, is_free: bool) -> list[str]:
    parts = [
        counted(usage.requests, "request"),
        f"{usage.input_tokens:,} input tokens" + (f" ({usage.cached_tokens:,} cached)" if usage.cached_tokens else ""),
        f"{usage.output_tokens:,} output tokens",
    ]
    if usage.cost_usd is not None and not is_free:
        parts.append(f"${usage.cost_usd:.4f}")
    if usage.is_estimated:
        parts.append("partly estimated")
    if seconds is not None:
        parts.append(f"{seconds:.1f} s")
    return parts


def show_indented(text: Text, console: Console, *, by: int) -> None:
    """`text` wrapped within the console's width, each line `by` spaces in, with no spaces at the end."""
    for line in text.wrap(console, max(_NARROWEST, console.width - by)):
        line.rstrip()
        console.print(Text(" " * by).append_text(line), soft_wrap=True)


def _joined(parts: list[str], *, width: int) -> list[str]:
    """`parts` with dots between them, broken between parts alone."""
    lines = [parts[0]]
    for part in parts[1:]:
        longer = f"{lines[-1]} · {part}"
        if len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines
