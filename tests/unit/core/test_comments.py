"""What is said on the change: short, and never more than is true."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.core.test_markdown import ALLOWED, HOSTILE, tokens
from worker.core.change import ChangeRef
from worker.core.comments import (
    Comment,
    Marking,
    Voice,
    comments,
    ledger_text,
    note_text,
    select,
    summary_text,
    with_misplaced,
)
from worker.core.finding import Anchor, Finding, Severity
from worker.core.ledger import Ledger, NotReviewed
from worker.core.marker import Mark, is_ours, key_from, read, write
from worker.core.report import Report
from worker.core.usage import Usage

LOCK = NotReviewed("package-lock.json", "lock file", 56)


def finding(
    number: int, severity: Severity = Severity.HIGH, *, path: str = "a.py", side: str = "RIGHT", anchored: bool = True
) -> Finding:
    return Finding(
        path=path,
        anchor=Anchor(path, side, number, number) if anchored else None,  # type: ignore[arg-type]
        severity=severity,
        category="correctness",
        title=f"Finding {number}",
        body="Why it is wrong.",
        quote="x = 1",
        fingerprint=f"fp{number}",
    )


def report(*findings: Finding, ledger: Ledger | None = None, **more: object) -> Report:
    given = {
        "change": "github:acme/shop#7",
        "head": "a" * 40,
        "base": "b" * 40,
        "model": "kimi-k2.6",
        "findings": tuple(f for f in findings if f.anchor is not None),
        "unanchored": tuple(f for f in findings if f.anchor is None),
        "ledger": ledger or Ledger(1260, 1260),
        **more,
    }
    return Report(**given)  # type: ignore[arg-type]


def headline(said: Report) -> str:
    return summary_text(said, Voice()).split("\n")[0]


# ---------------------------------------------------------------------------------------- verdict


def test_a_complete_review_without_findings_says_so() -> None:
    assert headline(report()) == "### No findings; every changed line was reviewed"


UNANSWERED = NotReviewed("a.py", "the model did not answer", 1)


@pytest.mark.parametrize(
    ("ledger", "said"),
    [
        (Ledger(1260, 1204, (LOCK,)), "No findings in what was reviewed; 56 changed lines left out by rule"),
        (Ledger(56, 0, (LOCK,)), "Nothing was reviewed: rules leave all of it out"),
        (Ledger(1, 0, (UNANSWERED,)), "Nothing was reviewed"),
        (Ledger(2, 1, (UNANSWERED,)), "No findings in what was reviewed; 1 changed line could not be reviewed"),
        (Ledger(58, 1, (LOCK, UNANSWERED)), "No findings in what was reviewed; 1 changed line could not be reviewed"),
    ],
)
def test_an_incomplete_review_without_findings_never_looks_clean(ledger: Ledger, said: str) -> None:
    assert headline(report(ledger=ledger)) == f"### {said}"


def test_severities_are_counted_where_the_headline_has_not_said_it() -> None:
    assert "🟠" not in summary_text(report(finding(1)), Voice())
    assert "\n🟠 1 high · 🔵 1 low\n" in summary_text(report(finding(1), finding(2, Severity.LOW)), Voice())


def test_what_is_cut_from_a_long_list_is_not_said_to_be_harmless() -> None:
    said = summary_text(report(*(finding(n, anchored=False) for n in range(1, 61))), Voice())
    assert said.count("**Finding ") == 50
    assert "- 10 findings more, none of them worse" in said
    just = summary_text(report(*(finding(n, anchored=False) for n in range(1, 51))), Voice())
    assert just.count("**Finding ") == 50
    assert "none of them worse" not in just


def test_a_finding_about_no_file_shows_no_place() -> None:
    said = summary_text(report(finding(1, path="", anchored=False)), Voice())
    assert "- 🟠 **Finding 1** Why it is wrong." in said


def test_a_note_shows_a_change_as_code() -> None:
    assert "declines a review of `acme/shop#7` with 422" in note_text(
        "GitHub declines a review of acme/shop#7 with 422."
    )


def test_nothing_to_review_is_said_plainly() -> None:
    assert headline(report(ledger=Ledger(0, 0))) == "### Nothing to review: no changed lines"


def test_the_headline_names_the_worst() -> None:
    assert headline(report(finding(1, Severity.LOW))) == "### 1 finding, low"
    assert (
        headline(report(finding(1, Severity.LOW), finding(2, Severity.CRITICAL)))
        == "### 2 findings, the worst critical"
    )


def test_findings_below_the_shown_severity_are_counted_and_not_hidden() -> None:
    said = summary_text(report(finding(1, Severity.LOW)), Voice(min_severity=Severity.HIGH))
    assert said.startswith("### 1 finding")
    assert "1 finding below severity high not shown (`REVIEW_MIN_SEVERITY`)." in said
    assert comments(report(finding(1, Severity.LOW)), Voice(min_severity=Severity.HIGH)) == ()


def test_where_nothing_is_severe_enough_to_show_no_worst_is_named() -> None:
    said = report(finding(1, Severity.LOW), finding(2, Severity.LOW))
    voice = Voice(min_severity=Severity.HIGH)
    assert summary_text(said, voice).startswith("### 2 findings\n")
    assert "2 findings below severity high not shown" in summary_text(said, voice)
    assert summary_text(report(finding(1, Severity.LOW)), voice).startswith("### 1 finding\n")


def test_findings_about_a_change_without_lines_are_not_called_nothing() -> None:
    assert headline(report(finding(1, anchored=False), ledger=Ledger(0, 0))) == "### 1 finding, high"


def test_a_standin_says_that_it_is_no_model() -> None:
    assert "No model took part" in summary_text(report(is_standin=True), Voice())
    assert "No model took part" not in summary_text(report(), Voice())


def test_the_reader_is_told_what_to_do_next() -> None:
    check, read = "Check each finding before you act on it", "Have a person read what could not be reviewed."
    clean = summary_text(report(), Voice())
    assert check not in clean
    assert read not in clean
    assert check in summary_text(report(finding(1)), Voice())
    assert read in summary_text(report(ledger=Ledger(2, 1, (UNANSWERED,))), Voice())


def test_where_no_request_was_made_no_cost_is_shown() -> None:
    assert summary_text(report(), Voice()).endswith("<sub>`kimi-k2.6` · aaaaaaaaaaaa</sub>")
    assert summary_text(report(model=""), Voice()).endswith("<sub>aaaaaaaaaaaa</sub>")


def test_notes_and_costs_are_shown() -> None:
    usage = Usage(requests=3, input_tokens=12345, output_tokens=678, cost_usd=0.0123)
    said = summary_text(report(usage=usage, notes=("The budget of $2 was reached.",)), Voice())
    assert "> The budget of \\$2 was reached." in said
    assert "`kimi-k2.6` · aaaaaaaaaaaa · 3 requests · 12,345 input and 678 output tokens · $0.0123" in said


def test_an_estimate_is_called_one() -> None:
    assert "about 10 input" in summary_text(report(usage=Usage(1, 10, 0, 5, is_estimated=True)), Voice())


# ----------------------------------------------------------------------------------------- ledger


def test_the_ledger_is_one_line() -> None:
    assert (
        ledger_text(Ledger(1260, 1204, (LOCK,)))
        == "1,204 of 1,260 changed lines reviewed; not reviewed: package-lock.json (lock file, 56)"
    )
    assert ledger_text(Ledger(12, 12)) == "12 of 12 changed lines reviewed."


def test_a_file_without_lines_is_named_unless_its_lines_were() -> None:
    binary = NotReviewed("logo.png", "binary file", 0)
    again = NotReviewed("package-lock.json", "budget", 0)
    assert ledger_text(Ledger(56, 0, (again, LOCK, binary))) == (
        "0 of 56 changed lines reviewed; not reviewed: package-lock.json (lock file, 56); logo.png (binary file, 0)"
    )


def test_a_long_ledger_is_folded_and_whole() -> None:
    rows = tuple(NotReviewed(f"gen/{n}.ts", "generated file", n) for n in range(1, 51))
    said = ledger_text(Ledger(sum(row.lines for row in rows), 0, rows))
    line, _, folded = said.partition("\n\n")
    assert line.endswith("gen/47.ts (generated file, 47); and 46 files more (1,081)")
    assert folded.startswith("<details><summary>")
    assert folded.endswith("</details>")
    assert all(f"gen/{row.lines}.ts (generated file, {row.lines})" in said for row in rows)


def test_a_ledger_of_ten_thousand_files_stays_small_and_adds_up() -> None:
    rows = tuple(NotReviewed(f"gen/{n}.ts", "generated file", 1) for n in range(10_000))
    said = ledger_text(Ledger(10_000, 0, rows))
    assert len(said) < 20_000
    assert "9,796 files more: generated file (9,796)" in said


def test_a_path_cannot_write_into_the_summary() -> None:
    row = NotReviewed("</details><img src=x>\n# Approved @team", "![x](http://evil)", 1)
    kinds = {token.type for token in tokens(ledger_text(Ledger(1, 0, (row,))))}
    assert kinds <= {"inline", "text", "paragraph_open", "paragraph_close"}


# --------------------------------------------------------------------------------------- comments


def test_at_most_so_many_comments_and_so_many_in_one_file() -> None:
    said = report(*(finding(n, path=f"{n // 5}.py") for n in range(30)))
    chosen = select(said, Voice())
    assert len(chosen.inline) == 10
    assert all(sum(f.path == path for f in chosen.inline) <= 3 for path in {f.path for f in chosen.inline})
    assert len(chosen.listed) == 20
    assert summary_text(said, Voice()).count("\n- ") == 20


@given(st.lists(st.tuples(st.sampled_from(Severity), st.integers(0, 3), st.booleans()), max_size=40))
def test_every_finding_is_in_exactly_one_place(drawn: list[tuple[Severity, int, bool]]) -> None:
    found = [
        finding(n, severity, path=f"{file}.py", anchored=a) for n, (severity, file, a) in enumerate(drawn, start=1)
    ]
    found.sort(key=lambda f: f.severity.rank)
    chosen = select(report(*found), Voice(min_severity=Severity.MEDIUM), raised={"fp3"})
    assert len(chosen.shown) + chosen.below == len(found)
    assert len({id(f) for f in chosen.shown}) == len(chosen.shown)
    assert len(chosen.inline) <= 10


def test_the_same_finding_twice_in_a_file_has_two_names() -> None:
    twice = [replace(finding(n), fingerprint="same") for n in (1, 2)]
    assert [comment.fingerprint for comment in comments(report(*twice), Voice())] == ["same", "same.2"]


def test_a_path_that_is_not_utf_8_goes_to_the_summary() -> None:
    said = report(finding(1, path="caf\udce9.py"))
    assert comments(said, Voice()) == ()
    assert "`caf\N{REPLACEMENT CHARACTER}.py:1` **Finding 1**" in summary_text(said, Voice())
    summary_text(said, Voice()).encode("utf-8")


def test_a_comment_shows_severity_title_and_body() -> None:
    (comment,) = comments(report(finding(3)), Voice())
    assert comment.body == "🟠 **High: Finding 3**\n\nWhy it is wrong."
    assert (comment.path, comment.side, comment.start_line, comment.line) == ("a.py", "RIGHT", 3, 3)


def test_a_suggestion_stands_on_the_new_side_only() -> None:
    right = replace(finding(1), suggestion="x = 2\n")
    left = replace(finding(2, side="LEFT"), suggestion="x = 2\n")
    first, second = comments(report(right, left), Voice())
    assert first.body.endswith("```suggestion\nx = 2\n```")
    assert "suggestion" not in second.body


def test_what_was_raised_before_is_named_and_not_posted_again() -> None:
    said = report(finding(1), finding(2))
    assert [comment.fingerprint for comment in comments(said, Voice(), raised={"fp1"})] == ["fp2"]
    text = summary_text(said, Voice(), raised={"fp1"})
    assert "**Raised on an earlier commit and still there**" in text
    assert "1 at its line, 1 below" in text
    more = summary_text(report(finding(1), finding(2), finding(3)), Voice(), raised={"fp1"})
    assert "2 at their lines, 1 below" in more
    assert "**More findings**" not in more
    # The comment that stands there explains it.
    assert "- 🟠 `a.py:1` **Finding 1**\n" in text


def test_what_was_raised_before_and_not_found_again_is_counted() -> None:
    said = summary_text(report(finding(1)), Voice(), raised={"fp1", "fp1.2", "fp8"})
    assert "\n\n1 finding raised on an earlier commit was not found again.\n" in said
    assert "2 findings raised on an earlier commit were not found again." in summary_text(
        report(), Voice(), raised={"fp8", "fp9"}
    )


def test_what_was_raised_before_is_not_called_gone_where_not_all_could_be_reviewed() -> None:
    cut = report(ledger=Ledger(2, 1, (UNANSWERED,)))
    assert "not found again" not in summary_text(cut, Voice(), raised={"fp8"})


# ------------------------------------------------------------------------------------ told in a summary


def noting(limit: int = 65_536) -> Marking:
    return Marking(lambda names, is_counted: f"<!-- {'#' if is_counted else ''}{','.join(names)} -->", limit)


def told_in(text: str) -> list[str]:
    return [name for mark in re.findall("<!-- ([^#]*) -->", text) for name in mark.split(",")]


def counted_in(text: str) -> list[str]:
    return [name for mark in re.findall("<!-- #(.*) -->", text) for name in mark.split(",")]


def test_what_a_summary_lists_is_noted_right_behind_it() -> None:
    said = report(finding(1), finding(2), finding(3, anchored=False), finding(4))
    text = summary_text(said, Voice(max_comments=1), raised={"fp4"}, marking=noting())
    listed, mark, rest = text.partition("\n\n<!-- fp2,fp3 -->\n\n")
    assert mark
    assert listed.splitlines()[-1] == "- 🟠 `a.py` **Finding 3** Why it is wrong."
    assert rest.startswith("**Raised on an earlier commit and still there**")
    assert listed + "\n\n" + rest == summary_text(said, Voice(max_comments=1), raised={"fp4"})


def test_nothing_listed_leaves_no_mark() -> None:
    assert told_in(summary_text(report(finding(1)), Voice(), marking=noting())) == []


def test_what_is_only_counted_is_noted_as_that_as_far_as_there_is_room() -> None:
    said = report(*(finding(n, anchored=False) for n in range(1, 61)))
    text = summary_text(said, Voice(), marking=noting())
    assert told_in(text) == [f"fp{n}" for n in range(1, 51)]
    assert counted_in(text) == [f"fp{n}" for n in range(51, 61)]
    less = summary_text(said, Voice(), marking=noting(len(text) - 1))
    assert (told_in(less), counted_in(less)) == (told_in(text), counted_in(text)[:-1])


def test_what_was_only_counted_before_is_told_by_the_summary_and_takes_no_place_at_a_line() -> None:
    said = report(finding(1), finding(2), finding(3))
    given = {"raised": {"fp1"}, "counted_before": {"fp2"}}
    assert [comment.fingerprint for comment in comments(said, Voice(), **given)] == ["fp3"]
    text = summary_text(said, Voice(), **given, marking=noting())
    assert "**More findings**\n\n- 🟠 `a.py:2` **Finding 2** Why it is wrong.\n\n<!-- fp2 -->" in text


@pytest.mark.parametrize("room", range(-3, 40))
def test_marks_give_way_last_ranked_first_and_no_text_gives_way_to_them(room: int) -> None:
    said = report(finding(1, Severity.LOW, anchored=False), finding(2, anchored=False), finding(3, anchored=False))
    plain = summary_text(said, Voice())
    text = summary_text(said, Voice(), marking=noting(len(plain) + room))
    assert re.sub("<!-- .* -->\n\n", "", text) == plain
    assert len(text) <= len(plain) + max(room, 0)
    assert told_in(text) == ["fp2", "fp3", "fp1"][: max(0, (room - 10) // 4)]


def test_what_was_told_in_a_summary_gets_no_comment_later_and_stands_behind_what_is_worse() -> None:
    said = report(finding(1, Severity.LOW), finding(2, Severity.CRITICAL, anchored=False), finding(3))
    chosen = select(said, Voice(), raised={"fp1", "fp2"})
    assert [f.fingerprint for f in chosen.inline] == ["fp3"]
    assert [f.fingerprint for f in chosen.raised_before] == ["fp2", "fp1"]


# -------------------------------------------------------------------------------------- misplaced

KEY = key_from("a false secret of the tests")
REF = ChangeRef("github", "acme/shop", 7)
LIMIT = 65_536


def marked(text: str, fingerprint: str) -> str:
    return write(Mark("01f", "a" * 64, fingerprint), key=KEY, ref=REF, repository_id="42") + f"\n{text}"


def misplaced(lengths: list[int]) -> list[Comment]:
    """Comments of so many lines of text; the first line is the title."""
    return [
        Comment("a.py", "RIGHT", 7, 7, marked(f"Title {n}.\n\n" + "A line of text.\n" * length, f"fp{n}"), f"fp{n}")
        for n, length in enumerate(lengths)
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 600), min_size=1, max_size=25), st.integers(0, 5_000))
def test_misplaced_comments_keep_every_mark_and_title_however_long_they_are(lengths: list[int], lines: int) -> None:
    summary = marked("### Verdict\n\n" + "A line of the summary.\n" * lines, "summary")
    text = with_misplaced(summary, misplaced(lengths), forge="GitHub", limit=LIMIT, ending="Cut.")
    assert len(text) <= LIMIT
    names = {mark.fingerprint for mark in read(text, key=KEY, ref=REF)}
    assert names == {"summary", *(f"fp{n}" for n in range(len(lengths)))}
    assert "### Verdict" in text
    assert all(f"\nTitle {n}.\n" in text for n in range(len(lengths)))
    whole = len(summary) + sum(lengths) * 16 + len(lengths) * 500 + 200 < LIMIT
    assert not (whole and "Cut." in text)


def test_a_short_misplaced_comment_is_not_cut_for_the_long_ones() -> None:
    comments = misplaced([30, *[500] * 24])
    text = with_misplaced(marked("Summary", "summary"), comments, forge="GitHub", limit=LIMIT, ending="Cut.")
    short, *long = text.split("`a.py:7`")[1:]
    assert short.count("A line of text.") == 30
    assert "\nSummary\n" in text
    assert all(part.rstrip().endswith("Cut.") for part in long)
    assert len(text) > LIMIT - 25 * 200


def test_a_secret_is_masked_everywhere() -> None:
    voice = Voice(mask=lambda text: text.replace("hunter2", "***"))
    bad = replace(finding(1), title="hunter2", body="hunter2 `hunter2`", suggestion="hunter2")
    said = report(
        bad,
        replace(bad, anchor=None, path="hunter2"),
        notes=("hunter2",),
        ledger=Ledger(1, 0, (NotReviewed("hunter2", "hunter2", 1),)),
    )
    assert "hunter2" not in summary_text(said, voice) + comments(said, voice)[0].body
    assert "hunter2" not in note_text("hunter2", mask=voice.mask)


OURS = {
    *ALLOWED,
    *("heading_open", "heading_close", "blockquote_open", "blockquote_close"),
}
OUR_HTML = re.compile(r"</?sub>|<details><summary>All that was not reviewed</summary>\n?|</details>\n?")


@settings(max_examples=150, deadline=None)
@given(HOSTILE, HOSTILE, HOSTILE, st.booleans())
def test_a_model_that_obeys_the_attacker_gains_nothing_in_what_we_post(
    title: str, body: str, path: str, anchored: bool
) -> None:
    evil = replace(finding(1, anchored=anchored), title=title, body=body, suggestion=body, path=path or "a.py")
    evil = replace(evil, anchor=Anchor(path or "a.py", "RIGHT", 1, 1) if anchored else None)
    rows = tuple(NotReviewed(path, title, 1) for _ in range(6))
    said = report(evil, ledger=Ledger(7, 1, rows), notes=(body,), model=title or "kimi-k2.6")
    posted = [summary_text(said, Voice()), note_text(body), *(c.body for c in comments(said, Voice()))]
    for text in posted:
        for token in tokens(text):
            if token.type in ("html_inline", "html_block"):
                assert OUR_HTML.fullmatch(token.content), token.content
            else:
                assert token.type in OURS
            if token.type == "fence" and token.info == "suggestion":
                assert anchored
        assert not is_ours(text)
        assert "\x1b" not in text
        assert "\u202e" not in text
