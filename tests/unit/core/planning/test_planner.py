"""Every changed line in exactly one request that fits, or in the ledger with its reason."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.changes import Edited, ShownLine, changes, diff_of, lines_shown, new_file
from worker.core.comments import ledger_text
from worker.core.diff.model import FileDiff
from worker.core.diff.parse import parse_diff
from worker.core.errors import ConfigurationError
from worker.core.exchange import Kind
from worker.core.model_info import Budget
from worker.core.planning.coverage import NEVER_SENT, answered
from worker.core.planning.evidence import evidence_allowance, evidence_room, with_evidence, with_evidence_reserved
from worker.core.planning.plan import Chunk, Plan, plan_as_json
from worker.core.planning.planner import make_plan, split_chunk, with_lowered_cap, with_raised_cap
from worker.core.planning.rendering import render
from worker.core.planning.rules import Scope
from worker.core.planning.spending import by_importance, within_requests
from worker.core.showing import shown
from worker.providers.tokens import o200k_counter
from worker.review.prompts import words

COUNT = o200k_counter()
WORDS = words(Kind.FINDINGS)
BUDGET = Budget(window_tokens=262_144, output_tokens=65_536, token_factor=1.1, chunk_tokens=20_000)
SMALL = replace(BUDGET, chunk_tokens=600)
EXAMPLES = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def planned(files: tuple[FileDiff, ...] | list[FileDiff], budget: Budget = BUDGET) -> Plan:
    return make_plan(files, words=WORDS, budget=budget, count=COUNT, title="A title", description="1|+|no line\nF1 no")


def said(plan: Plan, chunk: Chunk) -> str:
    return render(plan, chunk, words=WORDS).user


def true_size(plan: Plan, chunk: Chunk) -> int:
    """o200k tokens of the whole request."""
    prompt = render(plan, chunk, words=WORDS)
    return COUNT(prompt.system + prompt.user + json.dumps(prompt.schema))


def lines_of(files: tuple[FileDiff, ...] | list[FileDiff]) -> list[ShownLine]:
    return [
        ShownLine(file.path, line.sign, line.new_number, shown(line.text + b"\n")[:-1])
        for file in files
        for hunk in file.hunks
        for line in hunk.lines()
        if line.sign != " "
    ]


@EXAMPLES
@given(changes())
def test_every_changed_line_is_shown_exactly_once_with_its_file_and_number(files: tuple[FileDiff, ...]) -> None:
    plan = planned(files, SMALL)
    shown_lines = [line for chunk in plan.chunks for line in lines_shown(said(plan, chunk))]
    missing = sum(row.lines for row in plan.ledger.not_reviewed)
    assert len(shown_lines) + missing == sum(file.changed for file in files)
    left_out = {row.path for row in plan.ledger.not_reviewed}
    expected = Counter(line for line in lines_of(files) if line.path not in left_out)
    assert Counter(line for line in shown_lines if line.path not in left_out) == expected


@EXAMPLES
@given(changes())
def test_lines_of_a_file_keep_their_order_over_all_requests(files: tuple[FileDiff, ...]) -> None:
    plan = planned(files, SMALL)
    by_path: dict[str, list[ShownLine]] = {}
    for chunk in plan.chunks:
        for line in lines_shown(said(plan, chunk)):
            by_path.setdefault(line.path, []).append(line)
    left_out = {row.path for row in plan.ledger.not_reviewed}
    for file in files:
        if file.path not in left_out:
            assert by_path[file.path] == lines_of([file])


@EXAMPLES
@given(changes(), st.sampled_from([8_192, 16_384, 262_144]))
def test_no_request_is_larger_than_its_bound_and_none_reaches_into_the_answers_share(
    files: tuple[FileDiff, ...], window: int
) -> None:
    plan = planned(files, Budget(window, window // 5, 1.1, chunk_tokens=600))
    for chunk in plan.chunks:
        assert true_size(plan, chunk) <= chunk.input_tokens <= window - plan.output_tokens
        assert chunk.input_tokens + chunk.max_output_tokens <= window


@EXAMPLES
@given(changes())
def test_the_headers_of_pieces_count_what_stands_below_them(files: tuple[FileDiff, ...]) -> None:
    for chunk in planned(files, SMALL).chunks:
        for file in chunk.files:
            for hunk in file.hunks:
                lines = list(hunk.lines())
                assert hunk.old_lines == sum(line.sign != "+" for line in lines)
                assert hunk.new_lines == sum(line.sign != "-" for line in lines)
                assert hunk.changed == sum(line.sign != " " for line in lines) > 0


@EXAMPLES
@given(changes())
def test_the_same_change_has_the_same_plan_and_ids_that_differ(files: tuple[FileDiff, ...]) -> None:
    plan = planned(files, SMALL)
    assert planned(files, SMALL) == plan
    assert len({chunk.id for chunk in plan.chunks}) == len(plan.chunks)


@EXAMPLES
@given(changes())
def test_splitting_down_to_the_end_keeps_every_line_once(files: tuple[FileDiff, ...]) -> None:
    plan = planned(files)
    pending, leaves = list(plan.chunks), []
    while pending:
        chunk = pending.pop(0)
        parts = split_chunk(plan, chunk, COUNT)
        assert all(part.input_tokens <= plan.window_tokens - plan.output_tokens for part in parts)
        pending = [*parts, *pending]
        leaves += [] if parts else [chunk]
    assert Counter(line for leaf in leaves for line in lines_shown(said(plan, leaf))) == Counter(
        line for chunk in plan.chunks for line in lines_shown(said(plan, chunk))
    )
    ledger = answered(plan, {leaf.id: (leaf, None) for leaf in leaves})
    assert ledger == plan.ledger
    assert max(len(list(hunk.lines())) for leaf in leaves for file in leaf.files for hunk in file.hunks) == 1


@pytest.mark.parametrize(
    "line",
    [
        base64.b64encode(random.Random(1).randbytes(600)),
        "中文测试文本".encode() * 40,
        "😀👩‍👩‍👧‍👦".encode() * 30,
        b"a" * 4_000,
        b"{" * 500,
        b"+#/*" * 100,
        b"\xff\xfe\x00" * 100,
        b"\x0c\x0b\r" * 100,
        b" " * 2_000,
        b"<|endoftext|>" * 40,
    ],
    ids=["base64", "cjk", "emoji", "one letter", "brackets", "signs", "no utf-8", "controls", "spaces", "special"],
)
def test_hostile_text_is_never_larger_than_planned(line: bytes) -> None:
    plan = planned([new_file("hostile.txt", [line] * 150)], replace(BUDGET, chunk_tokens=5_000))
    assert plan.ledger.is_complete
    for chunk in plan.chunks:
        prompt = render(plan, chunk, words=WORDS)
        assert true_size(plan, chunk) <= chunk.input_tokens
        in_bytes = len((prompt.system + prompt.user + json.dumps(prompt.schema)).encode())
        assert in_bytes + plan.output_tokens <= plan.window_tokens


def test_an_ordinary_change_is_one_request() -> None:
    plan = planned([new_file(f"src/a{number}.py", [b"value = compute(1)"] * 100) for number in range(8)])
    assert len(plan.chunks) == 1
    assert [file.id for file in plan.chunks[0].files] == [f"F{number}" for number in range(1, 9)]


def test_packed_units_waste_little() -> None:
    lines = random.Random(7)
    files = [
        new_file(
            f"src/m{number:03}.py", [b"value_%d = compute(%d, other)" % (n, n) for n in range(lines.randint(3, 900))]
        )
        for number in range(120)
    ]
    plan = planned(files)
    full = [true_size(plan, chunk) - plan.fixed.tokens for chunk in plan.chunks[:-1]]
    assert len(full) > 10
    assert all(size <= BUDGET.chunk_tokens for size in full)
    assert sum(full) / len(full) >= 0.85 * BUDGET.chunk_tokens


def test_code_is_counted_about_once_however_large_its_files_are() -> None:
    class Tally:
        counted = 0

        def __call__(self, text: bytes | str, /) -> int:
            self.counted += len(text)
            return COUNT(text)

        def each(self, texts: Sequence[bytes | str], /) -> list[int]:
            self.counted += sum(map(len, texts))
            return COUNT.each(texts)

    line = b"    previous_total = compute_the_total(previous_total, other_values)"
    files = [new_file("src/large.py", [line] * 15_000), *(new_file(f"src/m{n}.py", [line] * n * 60) for n in range(40))]
    tally = Tally()
    plan = make_plan(files, words=WORDS, budget=BUDGET, count=tally)
    assert len(plan.chunks) > 20
    assert tally.counted < 1.25 * sum(chunk.size.bytes for chunk in plan.chunks)


def test_a_test_shares_the_unit_of_its_source() -> None:
    files = [new_file(f"src/{name}.py", [b"x = compute(1, 2, 3)"] * 60) for name in ("alpha", "beta", "gamma", "delta")]
    files += [new_file(f"tests/test_{name}.py", [b"x = compute(1, 2, 3)"] * 60) for name in ("alpha", "delta")]
    plan = planned(files, replace(BUDGET, chunk_tokens=3_600))
    assert len(plan.chunks) > 1
    units = [{file.path for file in chunk.files} for chunk in plan.chunks]
    for name in ("alpha", "delta"):
        assert any({f"src/{name}.py", f"tests/test_{name}.py"} <= unit for unit in units)


def test_files_whose_names_are_not_utf_8_are_grouped_like_others() -> None:
    """Only a change of several units is grouped, so such a name must not wait for one to be read."""
    row = b"+line of code\n"
    diff = b"".join(
        b'diff --git "a/%s" "b/%s"\nnew file mode 100644\nindex 0000000..1234567\n--- /dev/null\n+++ "b/%s"\n'
        b"@@ -0,0 +1,100 @@\n%s" % (name, name, name, row * 100)
        for name in (rb"caf\351s.py", rb"test_caf\351s.py", rb"\377\376\375\374")
    )
    plan = planned(parse_diff(diff), SMALL)
    assert sum(chunk.changed for chunk in plan.chunks) == 300
    assert len(plan.chunks) > 1


def test_a_large_file_is_cut_where_a_scope_begins() -> None:
    function = [
        b"def compute(number):",
        *[b"    total += number * %d" % n for n in range(20)],
        b"    return total",
        b"",
    ]
    plan = planned([new_file("big.py", function * 40)], replace(BUDGET, chunk_tokens=3_000))
    assert len(plan.chunks) > 3
    firsts = [lines_shown(said(plan, chunk))[0].text for chunk in plan.chunks]
    assert firsts == ["def compute(number):"] * len(plan.chunks)


def test_a_file_of_many_bytes_and_few_tokens_is_not_called_a_part() -> None:
    plan = planned([new_file("wide.py", [b"x = 1" + b" " * 4_000] * 40)])
    (chunk,) = plan.chunks
    assert chunk.files[0].note == "new file"


def test_a_line_larger_than_a_unit_goes_alone_and_one_larger_than_the_window_is_named() -> None:
    long, longest = b"ab1 " * 30_000, b"ab1 " * 400_000
    plan = planned([new_file("lines.txt", [b"before", long, b"between", longest, b"after"])])
    assert [(row.path, row.reason, row.lines) for row in plan.ledger.not_reviewed] == [
        ("lines.txt", "line of 1.6 MB exceeds the window", 1)
    ]
    texts = [[line.text for line in lines_shown(said(plan, chunk))] for chunk in plan.chunks]
    assert [long.decode()] in texts
    assert sorted(line for lines in texts for line in lines) == sorted(["before", long.decode(), "between", "after"])


def test_skipped_files_are_in_the_ledger_and_what_happened_to_them_reaches_the_model() -> None:
    diff = diff_of(
        [Edited("package-lock.json", ((0, (("+", b"a"), ("-", b"b"))),)), Edited("a.py", ((0, (("+", b"c"),)),))]
    )
    diff += (
        b"diff --git a/vendor/x.go b/vendor/x.go\ndeleted file mode 100644\nindex 1111111..0000000\n"
        b"--- a/vendor/x.go\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-one\n-two\n"
        b"diff --git a/old.py b/new.py\nsimilarity index 100%\nrename from old.py\nrename to new.py\n"
        b"diff --git a/run.sh b/run.sh\nold mode 100644\nnew mode 100755\n"
        b"diff --git a/logo.png b/logo.png\nindex 1111111..2222222 100644\n"
        b"Binary files a/logo.png and b/logo.png differ\n"
    )
    plan = planned(parse_diff(diff))
    assert ledger_text(plan.ledger) == (
        "1 of 5 changed lines reviewed; not reviewed: package-lock.json (lock file, 2);"
        " vendor/x.go (vendored file, 2); logo.png (binary file, 0)"
    )
    (chunk,) = plan.chunks
    text = said(plan, chunk)
    assert {file.path for file in chunk.files} == {"a.py", "new.py", "run.sh"}
    assert "* vendor/x.go 0 added, 2 removed (deleted), not shown: vendored file\n" in text
    assert "new.py\n(renamed from old.py, 100 % alike)\n" in text
    assert "run.sh\n(mode 100644 → 100755 (executable))\n" in text
    assert "* logo.png 0 added, 0 removed, not shown: binary file\n" in text


RENAMES = "diff --git a/old/{0}.py b/new/{0}.py\nsimilarity index 100%\nrename from old/{0}.py\nrename to new/{0}.py\n"


@pytest.mark.parametrize("scope", [Scope(), Scope(exclude=("lib/",)), Scope(include=("nothing/**",))])
def test_a_change_that_rules_leave_out_wholly_is_no_request_and_every_line_of_it_is_named(scope: Scope) -> None:
    folder = "lib" if scope.exclude or scope.include else "vendor/lib"
    files = [new_file(f"{folder}/part{n % 7}/m{n}.go", [b"x"] * 3) for n in range(3_000)]
    plan = make_plan(files, words=WORDS, budget=BUDGET, count=COUNT, scope=scope)
    assert plan.chunks == ()
    assert (plan.ledger.changed_lines, plan.ledger.reviewed_lines) == (9_000, 0)
    assert {row.path: row.lines for row in plan.ledger.not_reviewed} == {file.path: 3 for file in files}
    assert all(row.is_by_rule for row in plan.ledger.not_reviewed)
    assert not plan.ledger.is_complete


def test_what_rules_leave_out_takes_no_more_of_a_request_than_the_map_does() -> None:
    vendored = [new_file(f"vendor/part{n % 7}/m{n}.go", [b"x"] * 3) for n in range(3_000)]
    plan = planned([*vendored, new_file("a.py", [b"x = 1"])])
    (chunk,) = plan.chunks
    assert [file.path for file in chunk.files] == ["a.py"]
    assert COUNT(plan.shared) < 2_400
    assert "* vendor/part3/: 429 files, 1287 added, 0 removed, none of them shown\n" in plan.shared


def test_files_without_changed_lines_are_told_where_there_is_room_and_named_where_there_is_none() -> None:
    renamed = parse_diff("".join(RENAMES.format(f"module_{n}") for n in range(3_000)).encode())
    alone = planned(renamed)
    assert alone.chunks == ()
    assert {(row.reason, row.lines) for row in alone.ledger.not_reviewed} == {("no changed lines", 0)}
    assert alone.ledger.is_complete, "no line of it was missed"

    plan = planned([*renamed, new_file("a.py", [b"x = 1"])])
    (chunk,) = plan.chunks
    told = {file.path for file in chunk.files} - {"a.py"}
    assert len(told) > 40
    assert sum(file.size.tokens for file in chunk.files) <= BUDGET.chunk_tokens * 0.11
    assert told | {row.path for row in plan.ledger.not_reviewed} == {file.path for file in renamed}
    assert told.isdisjoint(row.path for row in plan.ledger.not_reviewed)


def test_a_request_that_is_divided_stays_one_about_lines_in_all_its_parts() -> None:
    renamed = parse_diff("".join(RENAMES.format(f"module_{n}") for n in range(20)).encode())
    plan = planned([*renamed, new_file("a.py", [b"x = 1", b"y = 2"])])
    pending, seen = list(plan.chunks), []
    while pending:
        chunk = pending.pop()
        assert chunk.changed
        seen.append({file.path for file in chunk.files})
        pending += split_chunk(plan, chunk, COUNT)
    assert seen.count({"a.py"}) == 2, "each line is alone at last"


def test_a_path_with_quotes_or_controls_is_a_json_string() -> None:
    file = replace(new_file("x.py", [b"a"]), new_path=b'a "b"\tc\n1|+|x.py' + b"\xff")
    (line,) = lines_shown(said(planned([file]), planned([file]).chunks[0]))
    assert line == ShownLine(file.path, "+", 1, "a")


def test_requests_share_their_beginning_and_secrets_are_masked() -> None:
    token = "ghp_" + "a1B2" * 9
    files = [new_file(f"src/{name}.py", [b"key = '%s'" % token.encode(), *[b"x = 1"] * 90]) for name in "abcdefgh"]
    plan = make_plan(files, words=WORDS, budget=SMALL, count=COUNT, title=token, description=f"see {token}")
    users = [said(plan, chunk) for chunk in plan.chunks]
    assert len(users) > 2
    assert all(user.startswith(f"kind: findings\n{plan.shared}[begin unit ") for user in users)
    assert not any(token in user for user in users)
    assert len({user[len(plan.shared) :][:60] for user in users}) == len(users)


def test_a_map_of_many_files_is_told_by_folder_and_stays_small() -> None:
    files = [new_file(f"src/part{n % 40}/deep/module_{n}.py", [b"x = 1"]) for n in range(3_000)]
    plan = planned(files)
    assert COUNT(plan.shared) < 2_400
    assert "* src/part7/deep/: 75 files, 75 added, 0 removed\n" in plan.shared


def test_caps_grow_with_the_unit_and_can_be_raised_once() -> None:
    plan = planned([new_file("a.py", [b"x = 1"])])
    (chunk,) = plan.chunks
    assert 16_384 < chunk.max_output_tokens < 17_000
    raised = with_raised_cap(chunk, BUDGET)
    assert raised is not None
    assert raised.max_output_tokens == BUDGET.output_tokens
    assert with_raised_cap(raised, BUDGET) is None
    plain = make_plan([new_file("a.py", [b"x = 1"])], words=WORDS, budget=BUDGET, count=COUNT, thinks=False)
    assert 4_096 < plain.chunks[0].max_output_tokens < 4_400


def test_a_cap_is_lowered_to_a_smaller_share_only_where_the_request_still_fits() -> None:
    (chunk,) = planned([new_file("a.py", [b"x"])]).chunks
    share = chunk.max_output_tokens - 1
    window = chunk.input_tokens + share
    lowered = with_lowered_cap(chunk, replace(BUDGET, window_tokens=window, output_tokens=share))
    assert lowered == replace(chunk, max_output_tokens=share)
    assert with_lowered_cap(chunk, replace(BUDGET, window_tokens=window - 1, output_tokens=share)) is None
    assert with_lowered_cap(chunk, BUDGET) is None, "its cap is no larger than the share"


def test_a_window_without_room_for_code_is_refused_in_words() -> None:
    with pytest.raises(ConfigurationError, match="has no room for code"):
        planned([new_file("a.py", [b"x = 1"])], Budget(2_048, 400, 1.1, 20_000))


def test_only_what_was_answered_is_reviewed() -> None:
    plan = planned([new_file(f"src/{name}.py", [b"x = compute(1)"] * 60) for name in "abcdef"], SMALL)
    first, second, *others = plan.chunks
    ledger = answered(plan, {first.id: (first, None), second.id: (second, "the model did not answer")})
    assert ledger.reviewed_lines == first.changed
    assert {row.reason for row in ledger.not_reviewed} == {"the model did not answer", NEVER_SENT}
    assert sum(row.lines for row in ledger.not_reviewed if row.reason == NEVER_SENT) == sum(it.changed for it in others)
    with pytest.raises(ValueError, match="More lines are settled than were planned"):
        answered(plan, {first.id: (first, None), "again": (first, None)})


def test_a_budget_drops_documents_before_tests_before_source_and_names_them() -> None:
    files = [new_file(name, [b"x = compute(1, 2)"] * 60) for name in ("docs/a.md", "src/server.py", "tests/test_b.py")]
    largest = max(planned([file]).chunks[0].size.tokens for file in files)
    plan = planned(files, replace(BUDGET, chunk_tokens=largest))
    assert len(plan.chunks) == 3
    in_order = [file.path for chunk in by_importance(plan.chunks) for file in chunk.files]
    assert in_order == ["src/server.py", "tests/test_b.py", "docs/a.md"]
    two = within_requests(plan, 2)
    assert [(row.path, row.reason) for row in two.ledger.not_reviewed] == [("docs/a.md", "budget")]
    assert [file.path for chunk in within_requests(plan, 1).chunks for file in chunk.files] == ["src/server.py"]
    assert within_requests(plan, None) == plan


def test_scripts_where_build_tools_write_are_sent_last_however_large_they_are() -> None:
    code = [b"function add(a, b) {", b"  return a + b;", b"}"]
    files = [new_file(path, code * 12) for path in ("docs/one.md", "src/two.ts", "tests/three.ts")]
    largest = max(planned([file]).chunks[0].size.tokens for file in files)
    plan = planned([new_file("dist/app.js", code * 60), *files], replace(BUDGET, chunk_tokens=largest + 10))
    order = [{file.path for file in chunk.files} for chunk in by_importance(plan.chunks)]
    alone = [paths == {"dist/app.js"} for paths in order]
    assert "src/two.ts" in order[0]
    assert alone == sorted(alone), "none of them before anything else"
    assert alone.count(True) >= 3
    left_out = within_requests(plan, 1).ledger.not_reviewed
    assert {"dist/app.js", "docs/one.md"} <= {row.path for row in left_out}
    assert {row.reason for row in left_out} == {"budget"}


def test_evidence_takes_room_that_is_left_and_never_looks_like_a_changed_line() -> None:
    plan = planned([new_file("a.py", [b"x = 1"])])
    (chunk,) = plan.chunks
    richer = with_evidence(plan, chunk, "src/b.py:\n12| |def helper():\n", COUNT)
    assert richer.id == chunk.id
    assert true_size(plan, richer) <= richer.input_tokens
    assert len(lines_shown(said(plan, richer))) == 1
    with pytest.raises(ValueError, match="must not look like"):
        with_evidence(plan, chunk, "F2 b.py\n", COUNT)
    with pytest.raises(ValueError, match="does not fit"):
        with_evidence(plan, chunk, "word " * (evidence_room(plan, chunk) + 1), COUNT)


@pytest.mark.parametrize("window", [262_144, 5_000])
def test_what_a_plan_says_of_a_request_holds_for_all_the_evidence_it_may_get(window: int) -> None:
    budget = Budget(window, output_tokens=window // 5, token_factor=1.1, chunk_tokens=1_000)
    plan = planned([new_file("a.py", [b"x = compute(1, 2)"] * 300)], budget)
    for chunk, told in zip(plan.chunks, with_evidence_reserved(plan, 2.0).chunks, strict=True):
        allowance = evidence_allowance(plan, chunk, 2.0)
        sent = with_evidence(plan, chunk, " word" * allowance, COUNT) if allowance else chunk
        assert chunk.input_tokens <= sent.input_tokens <= told.input_tokens <= budget.input_tokens
    assert with_evidence_reserved(plan, 0.0) == plan


def test_what_was_counted_for_a_request_is_all_of_it_evidence_included() -> None:
    plan = planned([new_file("a.py", [b"x = 1"])])
    (chunk,) = plan.chunks
    richer = with_evidence(plan, chunk, "src/b.py:\n" + "12| |    return helper(number)\n" * 500, COUNT)
    for each in (chunk, richer):
        counted = render(plan, each, words=WORDS).counted_tokens
        assert counted == pytest.approx(true_size(plan, each), rel=0.02)


def test_what_the_source_cut_off_is_counted_as_not_reviewed() -> None:
    plan = make_plan(
        [new_file("a.py", [b"x"])], words=WORDS, budget=BUDGET, count=COUNT, cut=[("b.py", "cut by the forge", 7)]
    )
    assert (plan.ledger.changed_lines, plan.ledger.reviewed_lines) == (8, 1)


def test_the_plan_as_json_has_the_documented_shape() -> None:
    plan = make_plan(
        [new_file("a.py", [b"x"]), new_file("uv.lock", [b"y"])], words=WORDS, budget=BUDGET, count=COUNT, scope=Scope()
    )
    value = json.loads(json.dumps(plan_as_json(plan)))
    assert value["chunks"][0]["files"][0] == {
        "path": "a.py",
        "hunks": [{"old_start": 0, "old_lines": 0, "new_start": 1, "new_lines": 1}],
    }
    assert value["ledger"]["not_reviewed"] == [{"path": "uv.lock", "reason": "lock file", "lines": 1}]
    assert (value["ledger"]["changed_lines"], value["ledger"]["planned_lines"]) == (2, 1)
    assert (value["window_tokens"], value["output_tokens"]) == (262_144, 65_536)


def test_a_source_that_git_calls_binary_is_named_once_and_leaves_the_review_incomplete() -> None:
    binary = replace(new_file("a.php", [b"x"]), is_binary=True, hunks=())
    told = ("a.php", "cannot be shown", 0)

    def rows(scope: Scope) -> tuple[list[tuple[str, str, int]], bool]:
        plan = make_plan([binary], words=WORDS, budget=BUDGET, count=COUNT, scope=scope, cut=[told])
        return [(row.path, row.reason, row.lines) for row in plan.ledger.not_reviewed], plan.ledger.is_complete

    assert rows(Scope()) == ([told], False)
    assert rows(Scope(exclude=("*.php",))) == ([("a.php", "excluded by REVIEW_EXCLUDE", 0)], True)
