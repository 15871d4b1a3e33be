"""Checkpoints over versions: an older one's are read, a newer one's fields passed over, and the rest is beyond us."""

from __future__ import annotations

import json

import pytest

from worker import __version__
from worker.core.errors import WrittenByNewer
from worker.review.records import SavedAnswer, dump_posted, dump_report, load_posted, load_report

ANSWER = (
    b'{"text":"{}","model":"kimi-k2.6","usage":{"requests":1,"input_tokens":9,"cached_tokens":2,"output_tokens":3,'
    b'"cost_usd":0.5,"is_estimated":false},"notes":["n"],"was_split":false}'
)
REPORT = (
    b'{"change":"github:octo/cat#7","head":"a","base":"b","model":"kimi-k2.6","findings":[{"path":"a.py","anchor":'
    b'{"path":"a.py","side":"RIGHT","start_line":1,"line":2},"severity":"high","category":"bug","title":"t","body":"b",'
    b'"quote":"q","fingerprint":"f1","suggestion":null,"confidence":0.5}],"unanchored":[],"ledger":{"changed_lines":3,'
    b'"reviewed_lines":2,"not_reviewed":[{"path":"x\\udcff","reason":"lock file","lines":1}]},"usage":{"requests":1,'
    b'"input_tokens":9,"cached_tokens":2,"output_tokens":3,"cost_usd":null,"is_estimated":true},"notes":[],'
    b'"is_standin":false}'
)
"""As version 0.1.0 wrote them. They stay as they are, for as long as a job of that version may be taken over."""


def test_the_checkpoints_of_the_first_version_are_read() -> None:
    answer = SavedAnswer.load(ANSWER)
    assert (answer.text, answer.model, answer.usage.cost_usd, answer.notes) == ("{}", "kimi-k2.6", 0.5, ("n",))
    report = load_report(REPORT)
    assert [(finding.fingerprint, finding.severity.value) for finding in report.findings] == [("f1", "high")]
    assert report.ledger.not_reviewed[0].path == "x\udcff"
    assert load_posted(b'{"summary": true, "fingerprints": ["f1"]}') == (True, frozenset({"f1"}))


def test_fields_that_a_newer_version_added_are_passed_over() -> None:
    newer = json.loads(REPORT)
    newer["tone"] = "plain"
    newer["findings"][0]["seen"] = newer["ledger"]["by"] = {"model": "kimi-k9"}
    assert load_report(json.dumps(newer).encode()) == load_report(REPORT)
    assert SavedAnswer.load(json.dumps(json.loads(ANSWER) | {"effort": "high"}).encode()) == SavedAnswer.load(ANSWER)


def test_what_a_newer_version_noted_of_a_post_outlives_what_this_one_adds() -> None:
    newer = b'{"summary": true, "fingerprints": ["f1"], "by": {"version": "9"}}'
    held = json.loads(dump_posted(has_summary=True, fingerprints=["f2", "f1"], over=newer))
    assert held == {"summary": True, "fingerprints": ["f1", "f2"], "by": {"version": "9"}}
    assert load_posted(dump_posted(has_summary=True, fingerprints=[], over=None)) == (True, frozenset())


@pytest.mark.parametrize(
    "record",
    [
        b"\x02binary",
        b'{"next": 1}',
        b"[]",
        b'"text"',
        json.dumps(json.loads(REPORT) | {"findings": [{"severity": "blocker"}]}).encode(),
        json.dumps(json.loads(REPORT) | {"ledger": {"changed_lines": 2, "reviewed_lines": 1}}).encode(),
    ],
)
def test_what_cannot_be_read_says_which_version_could_not_and_what_to_do(record: bytes) -> None:
    with pytest.raises(WrittenByNewer, match=f"the report .* version {__version__}: .*upgrade the workers"):
        load_report(record)


@pytest.mark.parametrize("record", [b"\xff", b"[1]", b'{"text": 5}', b'{"usage": null}'])
def test_an_answer_that_cannot_be_read_is_beyond_us_and_no_empty_one(record: bytes) -> None:
    with pytest.raises(WrittenByNewer, match="an answer"):
        SavedAnswer.load(record)


@pytest.mark.parametrize("record", [b"[]", b'{"summary": true}', b'{"summary": true, "fingerprints": 5}'])
def test_a_note_of_posts_that_cannot_be_read_is_beyond_us_and_no_empty_one(record: bytes) -> None:
    with pytest.raises(WrittenByNewer, match="what was posted"):
        load_posted(record)


def test_a_report_survives_writing_and_reading() -> None:
    report = load_report(REPORT)
    assert load_report(dump_report(report)) == report
