"""Exactly once, over this repository's own history, as it is and damaged: held against a reader of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import zip_longest
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.changes import ShownLine, lines_shown
from tests.fakes.real_diffs import (
    ENOUGH,
    ChangedLine,
    RawFile,
    changed_lines,
    damaged,
    diffs_without_history,
    read,
    real_diffs,
    written,
)
from worker.core.diff.parse import parse_diff
from worker.core.exchange import Kind
from worker.core.model_info import Budget
from worker.core.planning.planner import make_plan
from worker.core.planning.rendering import render
from worker.providers.tokens import o200k_counter
from worker.review.prompts import words

COUNT = o200k_counter()
WORDS = words(Kind.FINDINGS)
# What may be replaced or escaped, and how escapes look.
_NOT_COMPARED = re.compile(r"[\x00-\x1f\x7f\ufffd]|\\x[0-9a-f]{2}|\\[0bfrv]")
_MASK = re.compile(r"«masked[^»]*»|\*{1,8}")


@st.composite
def budgets(draw: st.DrawFn) -> Budget:
    window = draw(st.sampled_from((10_000, 16_384, 48_000, 262_144)))
    chunk_tokens = draw(st.integers(300, 3_000) | st.sampled_from((20_000, 200_000)))
    return Budget(window, window // 5, draw(st.sampled_from((1.0, 1.1, 1.6))), chunk_tokens)


def assert_exactly_once(files: list[RawFile], budget: Budget) -> None:
    plan = make_plan(parse_diff(written(files)), words=WORDS, budget=budget, count=COUNT, title="1|+|x\nF1 y")
    seen: dict[str, list[ShownLine]] = {}
    for chunk in plan.chunks:
        prompt = render(plan, chunk, words=WORDS)
        assert COUNT(prompt.system + prompt.user) <= prompt.input_tokens <= budget.input_tokens
        for line in lines_shown(prompt.user):
            seen.setdefault(line.path, []).append(line)
    left_out: dict[str, int] = {}
    for row in plan.ledger.not_reviewed:
        left_out[row.path] = left_out.get(row.path, 0) + row.lines
    for file in files:
        expected, found = changed_lines(file), seen.pop(file.path, [])
        assert len(found) + left_out.get(file.path, 0) == len(expected), file.path
        if file.path not in left_out:
            for want, got in zip_longest(expected, found):
                assert_is(got, want)
    assert seen == {}
    assert plan.ledger.reviewed_lines + sum(left_out.values()) == plan.ledger.changed_lines


def assert_is(got: ShownLine, want: ChangedLine) -> None:
    assert (got.sign, got.number) == (want.sign, want.number), want
    text = comparable(want.text.decode("utf-8", "replace"))
    if comparable(got.text) == text:
        return
    # A line may say what a mask looks like and hold a secret too, as tests of masking do.
    apart = ".*".join(re.escape(comparable(piece)) for piece in _MASK.split(got.text))
    assert re.fullmatch(apart, text, re.DOTALL), (got.text, text)


def comparable(text: str) -> str:
    return _NOT_COMPARED.sub("", text)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10_000), st.integers(0, 2**32), budgets())
def test_every_line_of_a_damaged_real_change_is_shown_once_at_its_file_and_number(
    which: int, seed: int, budget: Budget
) -> None:
    diffs = real_diffs()
    assert_exactly_once(damaged(read(diffs[which % len(diffs)]), Random(seed)), budget)


@pytest.mark.parametrize("diffs", [real_diffs, diffs_without_history])
def test_every_line_of_real_changes_is_shown_once_within_small_and_large_budgets(
    diffs: Callable[[], tuple[bytes, ...]],
) -> None:
    changes = diffs()
    assert len(changes) >= ENOUGH
    for diff in changes:
        assert written(read(diff)).count(b"\n") == diff.count(b"\n")
        for budget in (Budget(10_000, 2_000, 1.1, 400), Budget(262_144, 65_536, 1.1, 20_000)):
            assert_exactly_once(read(diff), budget)
