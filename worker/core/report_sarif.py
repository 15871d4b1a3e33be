"""A report as SARIF 2.1.0, for code scanning, editors and dashboards.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/sarif-v2.1.0-errata01-os-complete.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from worker import __version__
from worker.core.finding import Anchor, Finding, Severity
from worker.core.fingerprint import told_apart
from worker.core.ledger import NotReviewed
from worker.core.markdown import visible
from worker.core.report import Report

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
FINGERPRINT = "kimiReview/v1"
"""Ours, so that a result is known again although its line moved."""
NOT_REVIEWED = "not-reviewed"
NOTE = "note"

_LEVELS = {Severity.CRITICAL: "error", Severity.HIGH: "error", Severity.MEDIUM: "warning", Severity.LOW: "note"}
_ROOT = "%SRCROOT%"


def report_sarif(report: Report) -> dict[str, Any]:
    """`review --format sarif`. An execution is successful only when every changed line was reviewed.

    What the model wrote is shown as it is: hand in a report that was `masked`.
    """
    found = (*report.findings, *report.unanchored)
    rules = sorted({finding.category for finding in found})
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "kimi-review",
                        "semanticVersion": __version__,
                        "rules": [_rule(category) for category in rules],
                        "notifications": [
                            _descriptor(NOT_REVIEWED, "Changed lines that no answer of the model covers."),
                            _descriptor(NOTE, "What the reader of the review must know."),
                        ],
                    }
                },
                "automationDetails": {"id": "kimi-review/"},
                "columnKind": "unicodeCodePoints",
                "originalUriBaseIds": {_ROOT: {"description": {"text": "The root of the repository."}}},
                "invocations": [
                    {
                        "executionSuccessful": report.is_complete,
                        "toolExecutionNotifications": [
                            *(_left_out(row) for row in report.ledger.not_reviewed),
                            *(_note(text) for text in _notes(report)),
                        ],
                    }
                ],
                "results": _results(found, rules),
                "properties": _properties(report),
            }
        ],
    }


def _results(found: Sequence[Finding], rules: list[str]) -> list[dict[str, Any]]:
    names = told_apart(finding.fingerprint for finding in found)
    return [_result(finding, rules, name) for finding, name in zip(found, names, strict=True)]


def _result(finding: Finding, rules: list[str], fingerprint: str) -> dict[str, Any]:
    anchor = finding.anchor
    result: dict[str, Any] = {
        "ruleId": finding.category,
        "ruleIndex": rules.index(finding.category),
        "kind": "fail",
        "level": _LEVELS[finding.severity],
        "message": {"text": _message(finding)},
        "partialFingerprints": {FINGERPRINT: fingerprint},
        "properties": {"severity": finding.severity.value, "side": anchor.side if anchor else None},
    }
    if finding.confidence is not None:
        result["rank"] = round(100 * min(1.0, max(0.0, finding.confidence)), 1)
    if path := anchor.path if anchor else finding.path:
        result["locations"] = [{"physicalLocation": _place(path, anchor)}]
    if finding.suggestion is not None and anchor is not None and anchor.side == "RIGHT":
        result["fixes"] = [_fix(anchor, visible(finding.suggestion))]
    return result


def _message(finding: Finding) -> str:
    text = f"{finding.title}\n\n{finding.body}" if finding.body else finding.title
    if finding.anchor is not None and finding.anchor.side == "LEFT":
        text += f"\n\nThis is about line {finding.anchor.line} as it was before the change removed it."
    return visible(text) or finding.category


def _place(path: str, anchor: Anchor | None) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": _artifact(path)}
    # A removed line is in no file that a viewer of the head could open.
    if anchor is not None and anchor.side == "RIGHT":
        place["region"] = {"startLine": anchor.start_line, "endLine": anchor.line}
    return place


def _fix(anchor: Anchor, text: str) -> dict[str, Any]:
    # Without columns a region ends before the last line's end, so that line break stays.
    replacement = {
        "deletedRegion": {"startLine": anchor.start_line, "endLine": anchor.line},
        "insertedContent": {"text": text.removesuffix("\n")},
    }
    return {
        "description": {"text": "The lines as the model would write them; check before you apply it."},
        "artifactChanges": [{"artifactLocation": _artifact(anchor.path), "replacements": [replacement]}],
    }


def _artifact(path: str) -> dict[str, str]:
    # Bytes that are no UTF-8 came as surrogate escapes; in a URI every byte has a spelling.
    return {"uri": quote(path.encode("utf-8", "surrogateescape"), safe="/"), "uriBaseId": _ROOT}


def _left_out(row: NotReviewed) -> dict[str, Any]:
    return {
        "descriptor": {"id": NOT_REVIEWED},
        "level": "note" if row.is_by_rule else "warning",
        "message": {"text": f"{row.lines:,} changed lines not reviewed: {visible(row.reason)}"},
        "locations": [{"physicalLocation": {"artifactLocation": _artifact(row.path)}}],
    }


def _note(text: str) -> dict[str, Any]:
    return {"descriptor": {"id": NOTE}, "level": "note", "message": {"text": visible(text)}}


def _notes(report: Report) -> list[str]:
    standin = ["A stand-in with a few fixed checks wrote this; no model took part."] if report.is_standin else []
    return [*standin, *report.notes]


def _rule(category: str) -> dict[str, Any]:
    return {
        "id": category,
        "name": category.title().replace("-", ""),
        "shortDescription": {"text": f"The model claims a fault: {category.replace('-', ' ')}."},
    }


def _descriptor(name: str, text: str) -> dict[str, Any]:
    return {"id": name, "shortDescription": {"text": text}}


def _properties(report: Report) -> dict[str, Any]:
    return {
        "change": visible(report.change),
        "head": report.head,
        "base": report.base,
        "model": visible(report.model),
        "changedLines": report.ledger.changed_lines,
        "reviewedLines": report.ledger.reviewed_lines,
        "inputTokens": report.usage.input_tokens,
        "outputTokens": report.usage.output_tokens,
        "costUsd": report.usage.cost_usd,
    }
