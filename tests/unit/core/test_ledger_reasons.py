"""What a rule leaves out is told apart from what failed, in the ledger and in the words of a review."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.core.test_report_sarif import REPORT
from worker.core.comments import Voice, summary_text
from worker.core.ledger import RULE_REASONS, Ledger, NotReviewed
from worker.core.planning.rules import RULES
from worker.core.report_html import report_html

LOCK = NotReviewed("package-lock.json", "lock file", 56)
FAILED = NotReviewed("src/a.py", "the model did not answer", 4)


def said(*rows: NotReviewed) -> str:
    left_out = sum(row.lines for row in rows)
    return summary_text(replace(REPORT, ledger=Ledger(1204 + left_out, 1204, rows)), Voice())


def test_the_reasons_of_the_rules_are_exactly_those_that_count_as_a_rule() -> None:
    given = {word for rule in RULES for word in rule.__code__.co_consts if isinstance(word, str)}
    assert given >= RULE_REASONS
    assert all(RULE_REASONS.intersection(rule.__code__.co_consts) for rule in RULES)


def test_files_that_a_rule_leaves_out_are_named_and_alarm_nobody() -> None:
    text = said(LOCK)
    assert "1,204 of 1,260 changed lines reviewed; not reviewed: package-lock.json (lock file, 56)" in text
    assert "could not be reviewed" not in text


def test_what_failed_stands_in_the_headline_and_needs_a_person() -> None:
    for text in (said(FAILED), said(LOCK, FAILED)):
        assert "; 4 changed lines could not be reviewed" in text.split("\n")[0]
        assert "Have a person read what could not be reviewed." in text


@pytest.mark.parametrize(("changed", "reviewed", "rows"), [(10, 9, ()), (10, 10, (LOCK,)), (55, -1, (LOCK,))])
def test_a_ledger_that_does_not_add_up_cannot_be_made(
    changed: int, reviewed: int, rows: tuple[NotReviewed, ...]
) -> None:
    with pytest.raises(ValueError, match="does not add up"):
        Ledger(changed, reviewed, rows)


def test_a_file_whose_lines_nobody_counted_is_never_called_reviewed() -> None:
    unread = NotReviewed("huge.csv", "larger than 10,000,000 bytes, not fetched", 0)
    assert not Ledger(0, 0, (unread,)).is_complete
    assert Ledger(0, 0, (NotReviewed("logo.png", "binary file", 0),)).is_complete
    assert said(unread).split("\n")[0].endswith("; 1 whole file could not be reviewed")
    alone = summary_text(replace(REPORT, findings=(), unanchored=(), ledger=Ledger(0, 0, (unread,))), Voice())
    assert alone.startswith("### Nothing was reviewed")
    assert "huge.csv" in alone
    assert "Nothing to review" not in report_html(
        replace(REPORT, findings=(), unanchored=(), ledger=Ledger(0, 0, (unread,)))
    )
