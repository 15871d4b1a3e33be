"""A report as a JSON value, in the shape that scripts rely on."""

from __future__ import annotations

from typing import Any

from worker.core.diff.paths import in_utf8
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
        "notes": [in_utf8(note) for note in report.notes],
        "is_standin": report.is_standin,
        "complete": report.is_complete,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    anchor = finding.anchor
    return {
        "path": in_utf8(anchor.path if anchor else finding.path),
        "side": anchor.side if anchor else None,
        "start_line": anchor.start_line if anchor else None,
        "line": anchor.line if anchor else None,
        "severity": finding.severity.value,
        "category": finding.category,
        "title": in_utf8(finding.title),
        "body": in_utf8(finding.body),
        "suggestion": in_utf8(finding.suggestion) if finding.suggestion is not None else None,
        "confidence": finding.confidence,
        "fingerprint": finding.fingerprint,
    }


def _ledger(ledger: Ledger) -> dict[str, Any]:
    return {
        "changed_lines": ledger.changed_lines,
        "not_reviewed": [
            {"path": in_utf8(row.path), "reason": row.reason, "lines": row.lines} for row in ledger.not_reviewed
        ],
    }
