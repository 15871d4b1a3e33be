"""Answers as models send them: every complete item saved, none invented, nothing raised, in linear time."""

from __future__ import annotations

import json
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.answers import read_findings, read_summary, read_verdicts
from worker.core.finding import CATEGORIES, Claim, Severity

ITEM = {
    "file": "F1",
    "line": 12,
    "end_line": 14,
    "quote": 'x = f"{a}" if b else {}',
    "severity": "high",
    "category": "bug",
    "title": "It fails",
    "body": 'With `{` in it: ] and "quotes".',
}
WHOLE = json.dumps({"findings": [ITEM]})
CLAIM = Claim("F1", 12, 14, 'x = f"{a}" if b else {}', Severity.HIGH, "bug", "It fails", ITEM["body"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        json.dumps({"findings": [ITEM]}, indent=2),
        f"```json\n{WHOLE}\n```",
        f"```\n{WHOLE}",
        f"Here is what I found, {{as asked}}:\n\n{WHOLE}\n\nAnything else?",
        f'The "format is odd: {WHOLE}',
        f'<think>maybe {{"findings":[{{"title":"draft","file":"F9"}}]}}</think>\n{WHOLE}',
        f"some thoughts {{a}}</think>{WHOLE}",
        f"{WHOLE}\n{WHOLE}",
        f'{{"findings": []}}\n{WHOLE}',
        json.dumps({"thoughts": "none", "Findings": [ITEM]}),
        json.dumps([ITEM]),
        json.dumps(ITEM),
        WHOLE.replace("}]}", "},]}"),
        WHOLE.replace("}]}", ',"confidence":NaN}]}'),
        WHOLE.replace("}]}", "}, null, 7]}"),
        WHOLE.replace("It fails", "It\u0000 fails"),
        WHOLE.replace("12", '"12"').replace("14", '"L14"'),
        WHOLE.replace("12", '"12-14"').replace('"end_line": 14, ', ""),
        WHOLE.replace("12", "[12, 14]").replace('"end_line": 14, ', ""),
        WHOLE.replace("12", "12.0"),
        WHOLE.replace('"high"', '" HIGH"').replace('"bug"', '"Bug"'),
        WHOLE.replace('"F1"', "1"),
        WHOLE[:-2] + ', {"file": "F2", "title": "cut he',
        WHOLE[:-1],
    ],
)
def test_one_complete_finding_is_read_as_it_was_meant(text: str) -> None:
    read = read_findings(text)
    assert read.claims == (CLAIM,)
    assert read.is_whole


def test_an_empty_list_is_a_whole_answer() -> None:
    read = read_findings('```json\n{"findings": []}\n```')
    assert (read.claims, read.problems, read.is_whole, read.is_cut) == ((), (), True, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I found nothing.",
        '{"findings"',
        '{"findings": [',
        '{"findings": [{"file": "F1", "title": "cut',
        "{}",
        "[]",
        "null",
        '<think>{"findings": []}',
        '{"findings": null}',
        '{"comments": []}',
        '{"a":' * 100_000,
    ],
)
def test_what_holds_no_answer_says_so(text: str) -> None:
    read = read_findings(text)
    assert read.claims == ()
    assert not read.is_whole
    assert read.problems


@pytest.mark.parametrize("form", ['{{"findings": [{}, {}, {}]}}', "[{}, {}, {}]", "Look:\n{}\n{}\n{}"])
@pytest.mark.parametrize("length", [99_000, 150_000, 700_000])
def test_an_item_of_any_length_is_read_where_it_is_json(form: str, length: int) -> None:
    """Several of them too: what is read in vain alone is charged."""
    long = json.dumps(ITEM | {"title": "Long", "line": 99, "end_line": None, "body": 'a "b" { ' * (length // 10)})
    last = json.dumps(ITEM | {"title": "Last", "line": 100, "end_line": None})
    read = read_findings(form.format(long, long.replace("99", "98"), last))
    assert [(claim.line, claim.title) for claim in read.claims] == [(99, "Long"), (98, "Long"), (100, "Last")]
    assert (read.problems, read.is_whole, read.is_cut) == ((), True, False)


def test_a_long_item_that_is_cut_or_nested_too_deep_is_told() -> None:
    long = json.dumps(ITEM | {"body": "b" * 150_000})
    read = read_findings(f'{{"findings": [{json.dumps(ITEM)}, {long[:-9]}')
    assert (read.claims, read.is_cut) == ((CLAIM,), True)
    deep = long[:-1] + ', "more": ' + "[" * 70 + "]" * 70 + "}"
    read = read_findings(f'{{"findings": [{deep}, {json.dumps(ITEM)}]}}')
    assert read.claims == (CLAIM,)
    assert read.problems == ("an item that is nested too deep was left out",)


def test_a_cut_list_says_that_it_is_cut() -> None:
    read = read_findings(WHOLE[:-2] + ', {"file": "F2", "title": "cut he')
    assert read.is_cut
    assert read.problems


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"severity": "blocker"}, ("severity", Severity.CRITICAL)),
        ({"severity": "Major"}, ("severity", Severity.HIGH)),
        ({"severity": "warning"}, ("severity", Severity.MEDIUM)),
        ({"severity": "catastrophic!!"}, ("severity", Severity.LOW)),
        ({"severity": None}, ("severity", Severity.LOW)),
        ({"category": "style"}, ("category", "other")),
        ({"category": "Data Loss"}, ("category", "data-loss")),
        ({"category": "resource_leak"}, ("category", "resource-leak")),
        ({"line": 0}, ("line", None)),
        ({"line": -3}, ("line", None)),
        ({"line": True}, ("line", None)),
        ({"line": 10**40}, ("line", None)),
        ({"line": 10**9, "end_line": None}, ("line", 10**9)),
        ({"line": "see above"}, ("line", None)),
        ({"line": 12.5}, ("line", None)),
        ({"end_line": 3}, ("end_line", None)),
        ({"title": ""}, ("title", 'With `{` in it: ] and "quotes".')),
        ({"title": "two\nlines"}, ("title", "two lines")),
        ({"quote": None}, ("quote", "")),
        ({"quote": ["a", "b"]}, ("quote", "a\nb")),
        ({"quote": "\tkept "}, ("quote", "\tkept ")),
        ({"body": "a\ud800b\x07"}, ("body", "a\ufffdb")),
        ({"body": "\ud83d\ude00"}, ("body", "\U0001f600")),
        ({"confidence": "0.5"}, ("confidence", 0.5)),
        ({"confidence": 80}, ("confidence", None)),
        ({"suggestion": "  "}, ("suggestion", None)),
        ({"suggestion": "  x = 1"}, ("suggestion", "  x = 1")),
    ],
)
def test_types_are_corrected_where_that_is_safe(changes: dict[str, object], expected: tuple[str, object]) -> None:
    [claim] = read_findings(json.dumps({"findings": [ITEM | changes]})).claims
    assert getattr(claim, expected[0]) == expected[1]


def test_an_item_without_words_is_no_finding() -> None:
    read = read_findings(json.dumps({"findings": [{"file": "F1", "line": 3}, ITEM, "text", {"body": []}]}))
    assert read.claims == (CLAIM,)
    assert any("neither" in problem for problem in read.problems)


def test_quotes_that_nobody_escaped_lose_no_item() -> None:
    text = (
        '{"findings": [{"file": "F1", "line": 3, "quote": "print("a")", "severity": "low", "title": "one"},'
        ' {"file": "F2", "line": 4, "quote": "x = "", "severity": "high", "title": "two"},'
        ' {"file": "F3", "line": 5, "quote": "{", "severity": "high", "title": "three"}]}'
    )
    claims = read_findings(text).claims
    assert [(claim.file, claim.line, claim.quote, claim.title) for claim in claims] == [
        ("F1", 3, 'print("a")', "one"),
        ("F2", 4, 'x = "', "two"),
        ("F3", 5, "{", "three"),
    ]


@given(st.text())
def test_any_text_is_read_without_an_exception(text: str) -> None:
    for answer in (text, '{"findings": [' + text, '{"findings": [{"title": ' + text):
        read_findings(answer)
        read_verdicts(answer)
        assert read_summary(answer).is_whole == bool(read_summary(answer).summary)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.sampled_from([*ITEM, "confidence", "suggestion"]), json_values)))
def test_any_types_become_claims_of_the_right_types(items: list[dict[str, object]]) -> None:
    for claim in read_findings(json.dumps({"findings": items})).claims:
        assert claim.title
        assert claim.line is None or 1 <= claim.line < 2**31
        assert claim.end_line is None or (claim.line is not None and claim.end_line >= claim.line)
        assert claim.category in CATEGORIES
        assert claim.confidence is None or 0 <= claim.confidence <= 1
        assert "\0" not in claim.title + claim.body + claim.quote + claim.file
        (claim.title + claim.body + claim.quote + claim.file).encode()


code = st.text(st.sampled_from('{}[]",:\\\n ab`<>/'), max_size=30)


@given(st.lists(st.tuples(code, code), max_size=6), st.data())
def test_complete_findings_of_a_cut_answer_are_all_saved_and_none_is_invented(
    texts: list[tuple[str, str]], data: st.DataObject
) -> None:
    items = [
        ITEM | {"line": at + 1, "end_line": None, "quote": quote, "body": body}
        for at, (quote, body) in enumerate(texts)
    ]
    whole = json.dumps({"findings": items})
    cut = data.draw(st.integers(0, len(whole)))
    ends = [len(json.dumps({"findings": items[: count + 1]})) - 2 for count in range(len(items))]
    complete = sum(end <= cut for end in ends)
    assert [claim.line for claim in read_findings(whole[:cut]).claims] == list(range(1, complete + 1))


def test_of_damaged_answers_nearly_every_finding_is_saved() -> None:
    dice = random.Random(7)
    expected = saved = invented = 0
    for _ in range(400):
        lines = dice.sample(range(1, 900), dice.randint(1, 6))
        text = json.dumps(
            {"findings": [ITEM | {"line": line, "end_line": line} for line in lines]}, indent=dice.choice([None, 1])
        )
        match dice.randrange(6):
            case 0:
                text = f'Let me see {{...}} "\n```json\n{text}\n```\nDone {{}}'
            case 1:
                text = f'<think>{{"findings": [{{"file": "F1", "line": 999, "title": "no"}}]}}</think>{text}'
            case 2:
                text = text.replace("It fails", 'It "really" fails')
            case 3:
                text = text.replace("}]", "},\n]")
            case 4:
                text = text + "\n" + text
            case _:
                text = text.replace('"It fails"', '"It\nfails"')
        found = [claim.line for claim in read_findings(text).claims]
        expected += len(lines)
        saved += len(set(found) & set(lines))
        invented += len(set(found) - set(lines)) + len(found) - len(set(found))
    assert saved / expected >= 0.99
    assert invented == 0


@pytest.mark.parametrize(
    "text",
    [
        "{" * 2_000_000,
        '{"' * 1_000_000,
        '\\"' * 1_000_000,
        '{"findings":[' * 150_000,
        '{"findings":[' + "[" * 2_000_000,
        '{"findings":[' + '{"a":' * 400_000,
        '{"findings":[' + '{"title":{"},{"title":{"' * 80_000,
        '{"findings":[' + '{"title":"a"b","line":3},' * 40_000,
        '{"findings":[' + json.dumps(ITEM) + "," + '"\\' * 1_000_000,
        "the same words again and again " * 65_000,
        '{"findings":[' + (json.dumps(ITEM) + ",") * 10_000,
        '"summary": "' * 160_000,
        '{"title": ' * 200_000 + "[",
        '{"title": "a", "body": [' + "{}," * 60_000,
    ],
    ids=range(14),
)
def test_two_megabytes_of_anything_are_read_in_seconds(text: str) -> None:
    started = time.process_time()
    read_findings(text)
    assert time.process_time() - started < 8


def test_verdicts_are_read() -> None:
    text = json.dumps(
        {
            "verdicts": [
                {"candidate": "C1", "verdict": "Confirmed", "evidence": "line 3"},
                {"candidate": 2, "verdict": "refuted"},
                {"candidate": "C3", "verdict": "probably"},
                {"candidate": "C4", "verdict": "confirmed"},
                {"candidate": "C4", "verdict": "refuted"},
                {"verdict": "confirmed"},
            ]
        }
    )
    read = read_verdicts(f"Sure:\n```json\n{text}\n```")
    assert [(verdict.candidate, verdict.verdict) for verdict in read.verdicts] == [
        ("C1", "confirmed"),
        ("C2", "refuted"),
        ("C3", "unclear"),
        ("C4", "unclear"),
    ]
    assert read.verdicts[0].evidence == "line 3"
    assert read.is_whole
    assert len(read.problems) == 2


def test_a_missing_list_of_verdicts_is_not_an_empty_one() -> None:
    assert not read_verdicts("All are fine.").is_whole
    assert read_verdicts('{"verdicts": []}').is_whole


@pytest.mark.parametrize(
    "text",
    [
        '{"summary": "It \\"works\\"."}',
        '```json\n{"summary": "It \\"works\\"."}\n```',
        'It "works".',
        '{"summary": "It \\"works\\".',
    ],
)
def test_a_summary_is_read(text: str) -> None:
    assert read_summary(text).summary == 'It "works".'


@pytest.mark.parametrize("text", ["", "{}", '{"summary": ""}', '{"findings": []}', "<think>hm"])
def test_no_summary_says_so(text: str) -> None:
    read = read_summary(text)
    assert (read.summary, read.is_whole) == ("", False)
    assert read.problems
