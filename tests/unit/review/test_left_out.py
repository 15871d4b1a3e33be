"""A change that rules leave out wholly ends as a review that says so, and nobody is paid for it."""

from __future__ import annotations

from tests.fakes.model import FakeModel
from tests.unit.review.test_examine import ONE_FILE, added_file, examine
from worker.core.comments import Voice, summary_text

VENDORED = b"".join(added_file(f"vendor/lib/m{number}.go", ["x", "y"]) for number in range(300))


def test_what_rules_leave_out_wholly_is_no_request_and_the_review_names_it() -> None:
    model = FakeModel()
    report = examine(VENDORED, model, describes=True, verifies=True)
    assert model.asked == []
    assert report.usage.requests == 0
    assert (report.ledger.changed_lines, report.ledger.reviewed_lines) == (600, 0)
    assert not report.is_complete
    text = summary_text(report, Voice())
    assert text.startswith("### Nothing was reviewed: rules leave all of it out\n")
    assert "0 of 600 changed lines reviewed; not reviewed: vendor/lib/m0.go (vendored file, 2);" in text
    assert "96 files more: vendored file (192)" in text


def test_what_rules_leave_out_beside_source_costs_no_request_of_its_own() -> None:
    model = FakeModel()
    report = examine(ONE_FILE + VENDORED, model)
    assert report.usage.requests == 1
    assert (report.ledger.changed_lines, report.ledger.reviewed_lines) == (603, 3)
    assert "3 of 603 changed lines reviewed" in summary_text(report, Voice())
