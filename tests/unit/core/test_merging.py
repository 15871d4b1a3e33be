"""Which findings say the same, and which of them is kept."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from worker.core.compose import merge, with_disclosed
from worker.core.diff.model import Side
from worker.core.finding import Anchor, Finding, Severity
from worker.core.planning.secret_lines import SecretLine

ONE = Finding(
    path="a.py",
    anchor=Anchor("a.py", "RIGHT", 10, 12),
    severity=Severity.MEDIUM,
    category="correctness",
    title="The loop never ends",
    body="It counts down.",
    quote="",
    fingerprint="one",
)


def other(**differences: object) -> Finding:
    return replace(ONE, fingerprint="other", **differences)  # type: ignore[arg-type]


def at(start_line: int, line: int, side: Side = "RIGHT") -> Anchor:
    return Anchor("a.py", side, start_line, line)


@pytest.mark.parametrize("anchor", [at(8, 10), at(12, 14), at(11, 11), at(1, 99)])
def test_one_title_at_lines_that_overlap_is_said_once(anchor: Anchor) -> None:
    assert merge([ONE, other(anchor=anchor)]) == [ONE]


@pytest.mark.parametrize("anchor", [at(8, 9), at(13, 14), at(10, 12, "LEFT"), None])
def test_one_title_at_other_lines_is_said_of_each(anchor: Anchor | None) -> None:
    elsewhere = other(anchor=anchor)
    assert merge([ONE, elsewhere]) == [ONE, elsewhere]


@pytest.mark.parametrize(
    ("title", "kept"),
    [
        ("the LOOP never ends!", 1),
        # Three of five words, and two of six.
        ("This loop never ends", 1),
        ("The loop is slow", 2),
        ("", 2),
    ],
)
def test_titles_are_one_when_most_of_their_words_are(title: str, kept: int) -> None:
    assert len(merge([ONE, other(title=title)])) == kept


def test_two_findings_of_one_file_without_a_line_are_one_when_their_titles_are() -> None:
    nowhere = replace(ONE, anchor=None)
    assert merge([nowhere, other(anchor=None)]) == [nowhere]
    assert len(merge([nowhere, other(anchor=None, path="b.py")])) == 2


def test_one_fingerprint_is_one_finding_where_its_place_is_the_same_or_not_known() -> None:
    renamed = replace(ONE, title="Endless")
    assert merge([ONE, renamed]) == [ONE]
    assert merge([ONE, replace(renamed, anchor=None)]) == [ONE]
    assert len(merge([ONE, replace(renamed, anchor=at(40, 41))])) == 2


def test_of_two_that_say_the_same_the_worse_is_kept_in_the_place_of_the_first() -> None:
    last = other(title="Something else", anchor=at(1, 1))
    worse = other(severity=Severity.HIGH)
    assert merge([ONE, last, worse]) == [worse, last]
    assert merge([worse, last, ONE]) == [worse, last]
    assert merge([ONE, other(body="Said again.")]) == [ONE]


def test_of_many_secrets_the_first_that_is_read_is_explained_and_each_says_what_to_do() -> None:
    lines = [SecretLine("b.py", "RIGHT", 3, "API key"), SecretLine("a.py", "RIGHT", 9, "API key")]
    found = with_disclosed((), [*lines, SecretLine("a.py", "LEFT", 1, "API key")])
    assert [(one.path, one.anchor.line) for one in found if one.anchor] == [("a.py", 9), ("b.py", 3)]
    assert "masked before the change was shown" in found[0].body
    assert len(found[1].body) < len(found[0].body)
    assert all("revoke it" in one.body for one in found)


def test_a_flood_of_findings_at_no_line_is_merged_in_seconds() -> None:
    flood = [replace(ONE, anchor=None, title=f"T{n} q{n} z{n}", fingerprint=f"{n}") for n in range(3000)]
    began_s = time.process_time()
    assert merge([*flood, *flood[-50:]]) == flood
    # Comparing each with all others took 55 s.
    assert time.process_time() - began_s < 10
