"""A report is written without secrets in whichever form, whatever the model was made to say."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.unit.core.test_report_sarif import FINDING, REPORT
from worker.core.redaction import Redactor
from worker.core.report import masked
from worker.core.report_html import report_html
from worker.core.report_json import report_json
from worker.core.report_sarif import report_sarif

SECRET = "whsec-false-0123456789-of-tests"


@pytest.mark.parametrize("spelt", [SECRET, "\u200b".join(SECRET), SECRET[7:]])
def test_a_secret_is_in_no_word_of_the_model(spelt: str) -> None:
    evil = replace(FINDING, title=spelt, body=f"Use\n{spelt}", suggestion=f"key = '{spelt}'")
    nowhere = replace(evil, anchor=None, path=spelt)
    said = masked(replace(REPORT, findings=(evil,), unanchored=(nowhere,), notes=(spelt,)), Redactor([SECRET]))
    written = json.dumps(report_json(said), ensure_ascii=False).replace("\u200b", "")
    assert SECRET[10:] not in written
    assert written.count("[redacted]") == 8
    for form in (report_html(said), json.dumps(report_sarif(said), ensure_ascii=False)):
        assert SECRET[10:] not in form.replace("\u200b", "")
        assert "[redacted]" in form


def test_what_holds_no_secret_stays_as_it_was() -> None:
    family = replace(FINDING, title="👩\u200d👩\u200d👧 and \x1b")
    said = replace(REPORT, findings=(family,))
    assert masked(said, Redactor([SECRET])) == said
    assert masked(said, None) is said
