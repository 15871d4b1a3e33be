"""Our mark: found again by us, made by nobody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core import markdown
from worker.core.change import ChangeRef
from worker.core.marker import Mark, is_ours, key_from, read, write

KEY = key_from("a false secret of the tests")
REF = ChangeRef("github", "acme/shop", 7)
MARK = Mark(job="01f", head="a" * 40, fingerprint="fp.2")
WRITTEN = write(MARK, key=KEY, ref=REF)


def test_a_mark_is_read_back_among_other_text() -> None:
    assert list(read(f"{WRITTEN}\n### Title\n{WRITTEN}", key=KEY, ref=REF)) == [MARK, MARK]


def test_the_case_of_a_repository_s_name_does_not_matter() -> None:
    assert list(read(WRITTEN, key=KEY, ref=ChangeRef("github", "Acme/SHOP", 7))) == [MARK]


@pytest.mark.parametrize(
    "ref",
    [ChangeRef("gitlab", "acme/shop", 7), ChangeRef("github", "acme/shop2", 7), ChangeRef("github", "acme/shop", 8)],
)
def test_a_mark_copied_to_another_change_says_nothing(ref: ChangeRef) -> None:
    assert list(read(WRITTEN, key=KEY, ref=ref)) == []


def test_a_mark_is_known_by_the_repository_s_id_when_its_name_has_changed() -> None:
    renamed = ChangeRef("github", "acme/store", 7)
    text = write(MARK, key=KEY, ref=REF, repository_id="42")
    assert set(read(text, key=KEY, ref=renamed, repository_id="42")) == {MARK}
    assert list(read(text, key=KEY, ref=renamed, repository_id="43")) == []
    assert list(read(text, key=KEY, ref=ChangeRef("github", "acme/store", 8), repository_id="42")) == []


def test_a_program_that_knows_no_ids_reads_the_mark_by_the_name_and_one_that_does_reads_older_marks() -> None:
    assert list(read(write(MARK, key=KEY, ref=REF, repository_id="42"), key=KEY, ref=REF)) == [MARK]
    assert list(read(WRITTEN, key=KEY, ref=REF, repository_id="42")) == [MARK]


@pytest.mark.parametrize(
    "forged",
    [
        WRITTEN.replace("job=01f", "job=01e"),
        WRITTEN.replace("a" * 40, "b" * 40),
        WRITTEN.replace("fp.2", "summary"),
        WRITTEN.replace("sig=", "sig=0")[:-5] + " -->",
        write(MARK, key=key_from("another"), ref=REF),
    ],
)
def test_a_forged_mark_says_nothing_but_is_taken_for_ours_when_loops_are_broken(forged: str) -> None:
    assert list(read(forged, key=KEY, ref=REF)) == []
    assert is_ours(forged)


def test_the_key_does_not_show_the_secret() -> None:
    assert b"false secret" not in KEY
    assert key_from("one") != key_from("two")


@pytest.mark.parametrize("part", ["", "a b", "a--b", "x-->", "ü", "a" * 129])
def test_a_part_that_could_end_the_comment_is_refused(part: str) -> None:
    with pytest.raises(ValueError, match="marker"):
        write(Mark(job=part, head="a" * 40, fingerprint="f"), key=KEY, ref=REF)


@given(st.text())
def test_rendered_text_never_holds_a_mark(text: str) -> None:
    for rendered in (markdown.block(text + WRITTEN), markdown.inline(WRITTEN + text), markdown.fence(WRITTEN)):
        assert not is_ours(rendered)
        assert list(read(rendered, key=KEY, ref=REF)) == []
