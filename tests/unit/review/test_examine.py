"""Examining one snapshot: what is asked, what is kept, and what the ledger then says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest

from tests.fakes.model import FakeModel
from worker.core.change import Snapshot
from worker.core.comments import Voice, summary_text
from worker.core.diff.parse import parse_diff
from worker.core.errors import (
    AnswerCutOff,
    BudgetReached,
    ContentFiltered,
    EmptyAnswer,
    NotAuthorised,
    RequestTooLong,
    ReviewError,
    Superseded,
    Unreachable,
)
from worker.core.exchange import Kind, Prompt
from worker.core.model_info import Budget
from worker.core.planning.plan import Chunk
from worker.core.planning.planner import make_plan
from worker.core.planning.rendering import render
from worker.core.report import Report
from worker.core.usage import Usage
from worker.ports import Flow
from worker.providers.tokens import o200k_counter
from worker.review.analyse import Workshop, analyse
from worker.review.asking import Asking
from worker.review.examine import SECOND_LOOKS, Examiner
from worker.review.lease import Unlimited
from worker.review.planning import Planning, Subject
from worker.review.prompts import words
from worker.review.records import PLANNED

WIDE = Budget(window_tokens=262_144, output_tokens=65_536, token_factor=1.1, chunk_tokens=20_000)
SMALL_UNITS = replace(WIDE, chunk_tokens=1_000)
SUBJECT = Subject(name="local", flow=Flow(change="local", repository="local"), title="A change")


class Lessons:
    """What usage taught, in memory."""

    def __init__(self, factor: float | None = None) -> None:
        self.factor = factor
        self.heard: list[tuple[int, int]] = []

    async def get(self, model: str) -> float | None:
        return self.factor

    async def learned(self, model: str, *, planned_with: float, estimated: int, actual: int) -> None:
        self.heard.append((estimated, actual))


def added_file(path: str, rows: list[str]) -> bytes:
    body = "".join(f"+{row}\n" for row in rows)
    return (
        f"diff --git a/{path} b/{path}\nnew file mode 100644\nindex 0000000..1111111\n"
        f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1,{len(rows)} @@\n{body}"
    ).encode()


def large_change(files: int = 6, rows: int = 80) -> bytes:
    """Several files in several folders, each a good part of a small unit."""
    return b"".join(
        added_file(
            f"part{file}/module{file}.py", [f"value_{file}_{row} = compute({row}, {file})" for row in range(rows)]
        )
        for file in range(files)
    )


ONE_FILE = added_file("a.py", ["def f(x=[]):", "    return x", "y = f() == None"])


@dataclass
class Revoked(Unlimited):
    """Superseded after so many checks."""

    after: int

    async def check(self) -> None:
        self.after -= 1
        if self.after < 0:
            raise Superseded("moved on", by="f" * 40)


def examine(
    diff: bytes,
    model: FakeModel,
    *,
    budget: Budget = WIDE,
    saved: Mapping[str, bytes] | None = None,
    kept: dict[str, bytes] | None = None,
    names_failures: bool = True,
    verifies: bool = False,
    lessons: Lessons | None = None,
    stops_after: int | None = None,
    thinks_from_lines: int = 0,
    max_requests: int | None = None,
    describes: bool = False,
) -> Report:
    kept = {} if kept is None else kept

    async def save(name: str, value: bytes) -> None:
        kept[name] = value

    examiner = Examiner(
        model=model,
        planning=Planning(
            budget=budget,
            words=words(Kind.FINDINGS),
            count=o200k_counter(),
            thinks_from_lines=thinks_from_lines,
            max_requests=max_requests,
        ),
        lessons=lessons or Lessons(),
        verdict_words=words(Kind.VERDICTS) if verifies else None,
        summary_words=words(Kind.SUMMARY) if describes else None,
        at_once=1,
    )
    return asyncio.run(
        examiner.examine(
            SUBJECT,
            Snapshot(head="", base="", diff=diff),
            tree=None,
            saved=saved or {},
            save=save,
            permit=Revoked(stops_after) if stops_after is not None else Unlimited(),
            names_failures=names_failures,
        )
    )


def claim(file: str, line: int, quote: str, title: str = "Wrong") -> dict[str, object]:
    item = {"file": file, "line": line, "end_line": line, "quote": quote, "severity": "high", "category": "bug"}
    return {**item, "title": title, "body": "It fails."}


def finding(file: str, line: int, quote: str, title: str = "Wrong") -> str:
    return json.dumps({"findings": [claim(file, line, quote, title)]})


def test_findings_stand_at_the_lines_they_quote_and_the_ledger_is_complete() -> None:
    report = examine(ONE_FILE, FakeModel())
    assert [(each.anchor.line, each.severity) for each in report.findings if each.anchor] == [
        (1, "medium"),
        (3, "low"),
    ]
    assert report.ledger.reviewed_lines == report.ledger.changed_lines == 3
    assert report.is_complete
    assert report.usage.requests == 1


def test_nothing_to_review_asks_nobody_and_is_complete() -> None:
    model = FakeModel()
    report = examine(b"", model)
    assert report.is_complete
    assert model.asked == []


def test_a_claim_about_a_file_that_was_not_shown_is_told_without_a_line() -> None:
    report = examine(ONE_FILE, FakeModel(brain=lambda _: finding("F9", 1, "nothing like it")))
    assert report.findings == ()
    assert [each.path for each in report.unanchored] == ["F9"]


def test_an_answer_that_cannot_be_read_is_asked_for_once_more() -> None:
    model = FakeModel()
    model.script("I am sorry, there is nothing I can say.")
    report = examine(ONE_FILE, model)
    assert report.is_complete
    assert report.usage.requests == 2, "both answers were paid for"


def test_a_chunk_without_a_readable_answer_is_named_and_the_others_are_kept() -> None:
    model = FakeModel()
    model.script("no", "no")
    report = examine(large_change(), model, budget=SMALL_UNITS)
    assert not report.is_complete
    assert {row.reason for row in report.ledger.not_reviewed} == {"the model's answer could not be read"}
    assert 0 < report.ledger.reviewed_lines < report.ledger.changed_lines


def test_of_an_answer_cut_twice_the_complete_findings_are_told_but_the_lines_do_not_count() -> None:
    whole = finding("F1", 1, "def f(x=[]):")
    cut = whole[: whole.rindex("]")] + ', {"file": "F1", "li'
    report = examine(ONE_FILE, FakeModel(brain=lambda _: cut))
    assert len(report.findings) == 1
    assert report.ledger.reviewed_lines == 0


def test_a_cut_off_answer_is_asked_for_again_with_the_whole_share() -> None:
    model = FakeModel()
    model.script(AnswerCutOff("cut"))
    assert examine(ONE_FILE, model).is_complete
    first, second = (prompt for prompt, _ in model.asked)
    assert second.max_output_tokens == WIDE.output_tokens > first.max_output_tokens


def test_a_request_that_is_too_long_gives_way_to_smaller_ones_with_the_same_lines() -> None:
    model = FakeModel()
    model.script(RequestTooLong("too long"))
    report = examine(large_change(), model)
    assert report.is_complete
    assert report.usage.requests == 2
    assert [shown_rows(prompt) for prompt, _ in model.asked[1:]] != [[], []]
    assert sorted(row for prompt, _ in model.asked[1:] for row in shown_rows(prompt)) == sorted(
        shown_rows(model.asked[0][0])
    )


@pytest.mark.parametrize("window", [24_000, 12_000, 8_192])
def test_a_window_that_turns_out_to_be_smaller_is_kept_in_the_same_review(window: int) -> None:
    def brain(prompt: Prompt) -> str:
        if prompt.input_tokens + prompt.max_output_tokens > window:
            raise RequestTooLong("too long", limit_tokens=window)
        return '{"findings": []}'

    model = FakeModel(brain=brain)
    assert examine(large_change(), model).is_complete
    assert len(model.asked) < 24


def shown_rows(prompt: Prompt) -> list[str]:
    return [row for row in prompt.user.split("\n") if "|+|" in row]


def test_what_the_content_filter_declines_is_halved_down_to_the_file_that_it_minds() -> None:
    def brain(prompt: Prompt) -> str:
        if "value_3_0 " in prompt.user:
            raise ContentFiltered("declined")
        return '{"findings": []}'

    report = examine(large_change(), FakeModel(brain=brain))
    assert {row.path for row in report.ledger.not_reviewed} == {"part3/module3.py"}
    assert {row.reason for row in report.ledger.not_reviewed} == {"declined by the provider's content filter"}
    assert sum(row.lines for row in report.ledger.not_reviewed) < 10, "only the rows that cannot be divided further"


@pytest.mark.parametrize(
    ("refusal", "most_requests"),
    [(AnswerCutOff("cut off"), 12), (ContentFiltered("declined"), 16), (RequestTooLong("too long"), 24)],
)
def test_a_refusal_of_everything_is_not_chased_down_to_every_line(refusal: ReviewError, most_requests: int) -> None:
    def brain(_: Prompt) -> str:
        raise refusal

    model = FakeModel(brain=brain)
    report = examine(large_change(files=2, rows=200), model)
    assert len(model.asked) <= most_requests
    assert report.ledger.reviewed_lines == 0
    assert sum(row.lines for row in report.ledger.not_reviewed) == report.ledger.changed_lines == 400


def test_code_whose_answers_are_always_cut_off_is_left_out_and_its_neighbours_are_reviewed() -> None:
    def brain(prompt: Prompt) -> str:
        if "value_3_" in prompt.user:
            raise AnswerCutOff("cut off")
        return '{"findings": []}'

    report = examine(large_change(), FakeModel(brain=brain))
    assert {row.path for row in report.ledger.not_reviewed} == {"part3/module3.py"}


def test_a_model_out_of_reach_is_raised_while_attempts_are_left_and_named_at_the_last() -> None:
    for names_failures in (False, True):
        model = FakeModel()
        model.script(Unreachable("no answer"))
        if not names_failures:
            with pytest.raises(Unreachable):
                examine(large_change(), model, budget=SMALL_UNITS, names_failures=False)
            continue
        report = examine(large_change(), model, budget=SMALL_UNITS)
        assert {row.reason for row in report.ledger.not_reviewed} == {"the model did not answer"}


def test_nothing_answered_at_all_is_never_a_review() -> None:
    model = FakeModel()
    model.script(Unreachable("no answer"))
    with pytest.raises(Unreachable):
        examine(ONE_FILE, model)


def test_a_model_that_says_nothing_is_named_at_the_last_attempt_and_not_asked_for_an_hour() -> None:
    model = FakeModel()
    model.script(EmptyAnswer("answered without content"), EmptyAnswer("answered without content"))
    with pytest.raises(EmptyAnswer):
        examine(ONE_FILE, model, names_failures=False)
    report = examine(ONE_FILE, model)
    assert [(row.reason, row.lines) for row in report.ledger.not_reviewed] == [("the model did not answer", 3)]
    assert summary_text(report, Voice()).startswith("### Nothing was reviewed\n")


def test_a_refusal_of_the_key_ends_everything() -> None:
    model = FakeModel()
    model.script(NotAuthorised("the key is wrong"))
    with pytest.raises(NotAuthorised):
        examine(large_change(), model, budget=SMALL_UNITS)
    assert len(model.asked) == 1


def test_a_budget_that_is_reached_keeps_what_there_is_and_names_the_rest() -> None:
    model = FakeModel()
    model.script(finding("F1", 1, ""), BudgetReached("LLM_REVIEW_BUDGET_USD is reached"))
    report = examine(large_change(), model, budget=SMALL_UNITS, verifies=True)
    assert len(report.findings) == 1
    assert {row.reason for row in report.ledger.not_reviewed} == {"budget"}
    assert report.ledger.reviewed_lines > 0
    assert report.notes == ("LLM_REVIEW_BUDGET_USD is reached",)
    assert len(model.asked) == 2, "nothing is sent after the stop"


def test_a_second_attempt_buys_only_what_the_first_did_not_get() -> None:
    kept: dict[str, bytes] = {}
    first = FakeModel()
    first.script('{"findings": []}', '{"findings": []}', Unreachable("gone"))
    with pytest.raises(Superseded):
        examine(large_change(), first, budget=SMALL_UNITS, kept=kept, stops_after=3)
    second = FakeModel()
    report = examine(large_change(), second, budget=SMALL_UNITS, saved=kept, lessons=Lessons(1.5))
    whole = FakeModel()
    examine(large_change(), whole, budget=SMALL_UNITS)
    assert report.is_complete
    assert len(second.asked) == len(whole.asked) - 2
    assert report.usage.requests == len(whole.asked), "the bill of the review has both attempts"


def test_a_split_that_was_made_once_is_not_tried_whole_again() -> None:
    kept: dict[str, bytes] = {}
    first = FakeModel()
    first.script(RequestTooLong("too long"))
    examine(large_change(), first, kept=kept)
    second = FakeModel()
    assert examine(large_change(), second, saved=kept).is_complete
    assert second.asked == []


def test_a_restarted_job_keeps_the_window_it_was_planned_with_so_that_nothing_is_bought_twice() -> None:
    kept: dict[str, bytes] = {}
    narrow = replace(WIDE, window_tokens=12_000, output_tokens=2_400)
    examine(large_change(), FakeModel(), budget=narrow, kept=kept)
    again, without_window = FakeModel(), FakeModel()
    assert examine(large_change(), again, saved=kept).is_complete
    assert again.asked == []
    older = kept | {PLANNED: b'{"token_factor": 1.1}'}
    assert examine(large_change(), without_window, saved=older).is_complete
    assert without_window.asked != []


def test_usage_teaches_the_token_factor() -> None:
    lessons = Lessons()
    examine(ONE_FILE, FakeModel(), lessons=lessons)
    [(estimated, actual)] = lessons.heard
    assert 0 < estimated <= actual


def test_what_the_second_look_refutes_is_left_out_and_said() -> None:
    def brain(prompt: Prompt) -> str:
        if prompt.kind is Kind.VERDICTS:
            assert "C1 a.py:1" in prompt.user
            assert "|+|" not in prompt.user
            return '{"verdicts": [{"candidate": "C1", "verdict": "refuted", "evidence": "no"}]}'
        return finding("F1", 1, "def f(x=[]):")

    report = examine(ONE_FILE, FakeModel(brain=brain), verifies=True)
    assert report.findings == ()
    assert report.notes == ("1 finding was refuted by a second look and left out.",)
    assert report.usage.requests == 2


def test_of_a_flood_of_findings_the_worst_are_looked_at_again_and_the_others_are_kept_and_said() -> None:
    flood = [f"value_{row} = compute({row})" for row in range(SECOND_LOOKS + 30)]

    def brain(prompt: Prompt) -> str:
        if prompt.kind is Kind.VERDICTS:
            return '{"verdicts": [{"candidate": "C1", "verdict": "refuted", "evidence": "no"}]}'
        return json.dumps(
            {"findings": [claim("F1", line, text, title=f"Wrong{line}") for line, text in enumerate(flood, start=1)]}
        )

    model = FakeModel(brain=brain)
    report = examine(added_file("a.py", flood), model, verifies=True)
    asked = sum(prompt.kind is Kind.VERDICTS for prompt, _ in model.asked)
    assert asked == SECOND_LOOKS / 12
    assert len(report.findings) == SECOND_LOOKS + 30 - asked
    assert report.notes == (
        "The second look was at the worst 120 of 150 findings; the others stand as they were claimed.",
        "10 findings were refuted by a second look and left out.",
    )


def test_a_second_look_that_does_not_come_about_refutes_nothing() -> None:
    model = FakeModel()
    model.script(finding("F1", 1, "def f(x=[]):"), Unreachable("gone"))
    report = examine(ONE_FILE, model, verifies=True)
    assert len(report.findings) == 1
    assert "second look" in report.notes[0]


def test_two_claims_about_the_same_lines_are_told_once_and_the_worse_one_stays() -> None:
    low = finding("F1", 1, "def f(x=[]):", "Mutable default argument is shared").replace("high", "low")
    high = finding("F1", 1, "def f(x=[]):", "Mutable default argument shared")
    both = json.dumps({"findings": json.loads(low)["findings"] + json.loads(high)["findings"]})
    report = examine(ONE_FILE, FakeModel(brain=lambda _: both))
    assert [each.severity for each in report.findings] == ["high"]


def test_a_small_change_is_answered_without_thinking_where_the_operator_says_so() -> None:
    def prompts(thinks_from_lines: int) -> list[bool]:
        model = FakeModel()
        examine(ONE_FILE, model, thinks_from_lines=thinks_from_lines)
        return [prompt.without_thinking for prompt, _ in model.asked]

    assert prompts(0) == [False]
    assert prompts(3) == [False]
    assert prompts(4) == [True]


def test_a_secret_is_told_at_its_line_and_neither_model_nor_report_holds_its_value() -> None:
    secret = "ghp_" + "a1B2" * 9
    guess = finding("F1", 2, "TOKEN =", "A credential is hard-coded").replace('"bug"', '"security"')
    model = FakeModel(brain=lambda _: guess)
    report = examine(added_file("deploy.py", ["import os", f'TOKEN = "{secret}"']), model)
    [found] = [each for each in report.findings if each.category == "security" and each.title.startswith("Secret")]
    assert found.anchor is not None
    assert (found.anchor.path, found.anchor.line) == ("deploy.py", 2)
    assert secret not in repr(report)
    assert len(report.findings) == 1, "a guess of the model about the same line is not told beside it"
    assert all(secret not in prompt.user for prompt, _ in model.asked)


def test_a_review_that_may_take_few_requests_names_what_they_do_not_reach() -> None:
    model = FakeModel()
    report = examine(large_change(), model, budget=SMALL_UNITS, max_requests=2)
    assert len(model.asked) == 2
    assert {row.reason for row in report.ledger.not_reviewed} == {"budget"}
    assert not report.is_complete


QUIET = '{"findings": []}'
DESCRIBED = "What was not reviewed seems to contain: "


def kinds(model: FakeModel) -> list[Kind]:
    return [prompt.kind for prompt, _ in model.asked]


def test_what_the_budget_does_not_reach_is_described_by_one_request_over_its_map_alone() -> None:
    model = FakeModel()
    model.script(QUIET, QUIET, '{"summary": "Tables of computed values; part5 first."}')
    report = examine(large_change(), model, budget=SMALL_UNITS, max_requests=2, describes=True)
    assert kinds(model) == [Kind.FINDINGS, Kind.FINDINGS, Kind.SUMMARY]
    asked = model.asked[-1][0]
    assert asked.user.startswith("kind: summary\n")
    assert asked.input_tokens + asked.max_output_tokens < SMALL_UNITS.window_tokens
    left_out = {row.path for row in report.ledger.not_reviewed}
    assert left_out == {row.split()[1] for row in asked.user.split("\n") if row.startswith("* ")}
    assert "|+|" not in asked.user
    assert report.notes == (f"{DESCRIBED}Tables of computed values; part5 first.",)
    assert report.usage.requests == 3
    assert not report.is_complete


def test_a_description_is_bought_once() -> None:
    kept: dict[str, bytes] = {}
    first = examine(large_change(), FakeModel(), budget=SMALL_UNITS, max_requests=2, describes=True, kept=kept)
    again = FakeModel()
    second = examine(large_change(), again, budget=SMALL_UNITS, max_requests=2, describes=True, saved=kept)
    assert again.asked == []
    assert second == first
    assert second.notes[0].startswith(DESCRIBED)


def test_a_complete_review_is_described_by_nobody() -> None:
    model = FakeModel()
    report = examine(large_change(), model, budget=SMALL_UNITS, max_requests=50, describes=True)
    assert Kind.SUMMARY not in kinds(model)
    assert report.notes == ()
    assert report.is_complete


@pytest.mark.parametrize(
    "outcome",
    [
        Unreachable("away"),
        BudgetReached("LLM_REVIEW_BUDGET_USD is reached"),
        RequestTooLong("too long"),
        ContentFiltered("no"),
        NotAuthorised("no"),
        "{}",
        "",
    ],
    ids=repr,
)
def test_a_description_that_does_not_come_changes_nothing(outcome: ReviewError | str) -> None:
    model = FakeModel()
    model.script(QUIET, QUIET, outcome)
    report = examine(large_change(), model, budget=SMALL_UNITS, max_requests=2, describes=True)
    assert kinds(model)[2:] == [Kind.SUMMARY]
    assert report.notes == ()
    assert report.ledger.reviewed_lines > 0


def test_a_description_that_was_cut_off_is_paid_all_the_same() -> None:
    model = FakeModel()
    model.script(QUIET, QUIET, AnswerCutOff("long", usage=Usage(requests=1, input_tokens=7, output_tokens=4_096)))
    report = examine(large_change(), model, budget=SMALL_UNITS, max_requests=2, describes=True)
    assert report.usage.requests == 3
    assert report.usage.output_tokens > 4_096


def test_nothing_more_is_asked_once_our_own_stop_was_reached() -> None:
    model = FakeModel()
    model.script(QUIET, BudgetReached("LLM_REVIEW_BUDGET_USD is reached"))
    report = examine(large_change(), model, budget=SMALL_UNITS, max_requests=2, describes=True)
    assert kinds(model) == [Kind.FINDINGS, Kind.FINDINGS]
    assert report.notes == ("LLM_REVIEW_BUDGET_USD is reached",)


def test_a_hostile_description_stays_one_short_line_of_words() -> None:
    model = FakeModel()
    hostile = "fine\n\n# Approved\n\u202e<img src=x> @everyone [x](http://evil) " + "very " * 200
    model.script(QUIET, QUIET, json.dumps({"summary": hostile}))
    report = examine(large_change(), model, budget=SMALL_UNITS, max_requests=2, describes=True)
    [note] = report.notes
    assert "\n" not in note
    assert "\u202e" not in note
    assert len(note) < 400
    posted = summary_text(report, Voice())
    assert "<img" not in posted
    assert "@everyone" not in posted
    assert "[x](" not in posted
    assert "\n# Approved" not in posted


def test_a_superseded_review_is_not_described() -> None:
    with pytest.raises(Superseded):
        examine(large_change(), FakeModel(), budget=SMALL_UNITS, max_requests=2, describes=True, stops_after=2)


def test_a_change_that_marks_its_own_files_is_told_that_its_base_counts() -> None:
    said = examine(added_file("lib/.gitattributes", ["*.py linguist-generated"]) + ONE_FILE, FakeModel())
    assert any("follows its base branch" in note for note in said.notes)
    assert said.is_complete
    assert not examine(ONE_FILE, FakeModel()).notes


@pytest.mark.parametrize("at_once", [1, 2, 32])
def test_chunks_reach_the_model_in_their_order_however_long_the_evidence_of_one_takes(at_once: int) -> None:
    plan = make_plan(
        list(parse_diff(large_change())), words=words(Kind.FINDINGS), budget=SMALL_UNITS, count=o200k_counter()
    )
    waits_s = {chunk.id: 0.02 * (number % 3 == 0) for number, chunk in enumerate(plan.chunks)}

    async def rendered(chunk: Chunk) -> Prompt:
        await asyncio.sleep(waits_s[chunk.id])
        return render(plan, chunk, words=words(Kind.FINDINGS), cache_key="")

    async def quietly(*_: object) -> None:
        pass

    model = FakeModel(brain=lambda _: '{"findings": []}')
    model.script(ContentFiltered("declined"))
    workshop = Workshop(rendered, lambda _: (), lambda *_: (), lambda _: None, quietly)
    asking = Asking(model, SUBJECT.flow, {}, quietly, Unlimited())
    analysis = asyncio.run(analyse(plan.chunks, workshop=workshop, asking=asking, at_once=at_once))
    assert len(analysis.outcomes) == len(plan.chunks) > 5
    asked = [[line for line in prompt.user.split("\n") if line.startswith("F1 ")] for prompt, _ in model.asked]
    assert asked == [[f"F1 {chunk.files[0].path}"] for chunk in plan.chunks]
