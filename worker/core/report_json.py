"""A report as a JSON value, in the shape that scripts rely on."""

from __future__ import annotations

from typing import Any

from worker.core.finding import Finding
from worker.core.ledger import Ledger
from worker.core.report import Report

VERSION = 1
"""Of the report's shape; members may be added under the same number."""


def report_json(report: Report) -> dict[str, Any]:
    """`review --format json`."""
    return {
        "version": VERSION,
        "change": report.change,
        "head": report.head,
        "base": report.base,
        "model": report.model,
        "findings": [_finding(finding) for finding in report.findings],
        "unanchored": [_finding(finding) for finding in report.unanchored],
        "ledger": {**_ledger(report.ledger), "reviewed_lines": report.ledger.reviewed_lines},
        "usage": {
            "requests": report.usage.requests,
            "input_tokens": report.usage.input_tokens,
            "cached_tokens": report.usage.cached_tokens,
            "output_tokens": report.usage.output_tokens,
            "cost_usd": report.usage.cost_usd,
            "is_estimated": report.usage.is_estimated,
        },
        "notes": [_text(note) for note in report.notes],
        "is_standin": report.is_standin,
        "complete": report.is_complete,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    anchor = finding.anchor
    return {
        "path": _text(anchor.path if anchor else finding.path),
        "side": anchor.side if anchor else None,
        "start_line": anchor.start_line if anchor else None,
        "line": anchor.line if anchor else None,
        "severity": finding.severity.value,
        "category": finding.category,
        "title": _text(finding.title),
        "body": _text(finding.body),
        "suggestion": _text(finding.suggestion) if finding.suggestion is not None else None,
        "confidence": finding.confidence,
        "fingerprint": finding.fingerprint,
    }


def _ledger(ledger: Ledger) -> dict[str, Any]:
    return {
        "changed_lines": ledger.changed_lines,
        "not_reviewed": [
            {"path": _text(row.path), "reason": row.reason, "lines": row.lines} for row in ledger.not_reviewed
        ],
    }


def _text(text: str) -> str:
    """Bytes that are no UTF-8 came as surrogate escapes, which no JSON reader takes; they are shown as `\\xff`."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
