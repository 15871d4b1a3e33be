"""A finding is known again after a re-run, and not taken for another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.fingerprint import fingerprint

FINDING = {"path": "src/a.py", "code": "if x == None:", "category": "bug", "title": "`x` is compared with `==`"}


def test_it_is_sixteen_hex_digits() -> None:
    assert len(fingerprint(**FINDING)) == 16
    assert int(fingerprint(**FINDING), 16) >= 0


@pytest.mark.parametrize(
    "same",
    [
        {"code": "    if x  ==  None:\n"},
        {"category": " Bug "},
        {"title": "Comparing `x` with `==` is wrong here"},
        {"title": "`==` is used to compare `x`"},
    ],
)
def test_white_space_and_other_words_change_nothing(same: dict[str, str]) -> None:
    assert fingerprint(**FINDING | same) == fingerprint(**FINDING)


@pytest.mark.parametrize(
    "other",
    [
        {"path": "src/b.py"},
        {"code": "if y == None:"},
        {"category": "security"},
        {"title": "`y` is compared with `==`"},
        {"title": "read_all() and `x`, `==`"},
    ],
)
def test_place_code_category_and_identifiers_tell_findings_apart(other: dict[str, str]) -> None:
    assert fingerprint(**FINDING | other) != fingerprint(**FINDING)


def test_parts_do_not_run_into_each_other() -> None:
    assert fingerprint(path="ab", code="c", category="", title="") != fingerprint(
        path="a", code="bc", category="", title=""
    )


@given(st.text(), st.text(), st.text(), st.text())
def test_any_text_has_a_fingerprint(path: str, code: str, category: str, title: str) -> None:
    assert len(fingerprint(path=path + "\udcff", code=code, category=category, title=title)) == 16
