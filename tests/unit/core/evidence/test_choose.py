"""Evidence stays within its budget, shows no line twice, and cannot be taken for the change."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from worker.core.evidence.blocks import Block, render
from worker.core.evidence.choose import Excerpt, Rank, choose

ROWS = tuple(f"row {number}" for number in range(1, 101))


def words(text: str) -> int:
    return len(text.split())


def spans(
    excerpts: list[Excerpt], *, budget: int = 10_000, visible: frozenset[int] = frozenset()
) -> list[tuple[str, int, int]]:
    found = choose(excerpts, sources={"a": ROWS, "b": ROWS}, visible={"a": visible}, budget_tokens=budget, count=words)
    return [(block.path, block.start_line, block.end_line) for block in found.blocks]


def test_excerpts_that_meet_become_one_block_that_names_both_reasons() -> None:
    excerpts = [
        Excerpt("a", 10, 12, "definition of x", Rank.DEFINITION),
        Excerpt("a", 12, 14, "caller of y", Rank.CALLER),
    ]
    (block,) = choose(excerpts, sources={"a": ROWS}, visible={}, budget_tokens=999, count=words).blocks
    assert (block.start_line, block.end_line) == (10, 14)
    assert block.kind == "definition of x; caller of y"
    assert block.text == "".join(f"row {number}\n" for number in range(10, 15))


def test_lines_that_the_request_shows_already_are_not_repeated() -> None:
    assert spans([Excerpt("a", 10, 20, "k", Rank.SCOPE)], visible=frozenset(range(13, 17))) == [
        ("a", 10, 12),
        ("a", 17, 20),
    ]
    assert spans([Excerpt("a", 10, 20, "k", Rank.SCOPE)], visible=frozenset({15})) == [("a", 10, 14), ("a", 16, 20)]


def test_an_excerpt_ends_where_its_file_ends() -> None:
    assert spans([Excerpt("a", -5, 2, "k", Rank.AROUND), Excerpt("b", 99, 120, "k", Rank.AROUND)]) == [
        ("a", 1, 2),
        ("b", 99, 100),
    ]
    assert spans([Excerpt("missing", 1, 2, "k", Rank.AROUND), Excerpt("a", 200, 300, "k", Rank.AROUND)]) == []


def test_the_more_useful_comes_first_when_not_everything_fits() -> None:
    excerpts = [Excerpt("a", 1, 40, "whole", Rank.WHOLE_SCOPE), Excerpt("b", 5, 6, "signature", Rank.SCOPE)]
    assert spans(excerpts, budget=30) == [("b", 5, 6)]


@given(
    st.lists(
        st.builds(
            Excerpt,
            st.sampled_from(["a", "b"]),
            st.integers(-3, 110),
            st.integers(-3, 110),
            st.sampled_from(["one", "two three"]),
            st.sampled_from(Rank),
        ),
        max_size=20,
    ),
    st.frozensets(st.integers(1, 100)),
    st.integers(0, 400),
)
def test_no_line_is_shown_twice_and_the_budget_holds(
    excerpts: list[Excerpt], visible: frozenset[int], budget: int
) -> None:
    found = choose(excerpts, sources={"a": ROWS, "b": ROWS}, visible={"a": visible}, budget_tokens=budget, count=words)
    shown = [(block.path, line) for block in found.blocks for line in range(block.start_line, block.end_line + 1)]
    assert len(shown) == len(set(shown))
    assert not {line for path, line in shown if path == "a"} & visible
    assert words(render(found.blocks)) <= budget


@given(
    st.lists(st.text(alphabet=st.sampled_from("F1E2 |+-@[]beginudit:\t"), max_size=30), max_size=8),
    st.text(max_size=12),
)
def test_no_line_of_evidence_looks_like_a_part_of_the_change(rows: list[str], path: str) -> None:
    text = render((Block(path, 1, len(rows), "definition of x", "".join(f"{row}\n" for row in rows)),))
    for row in text.split("\n"):
        assert not re.match(r"\d*\|[+\- ]\||F\d+ |@@ |\[(begin|end) ", row)
        assert row == "" or re.match(r"E1 .*:1-\d+ \(definition of x\)$|    ", row)
