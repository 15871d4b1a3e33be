"""Our mark: found again by us, made by nobody else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core import markdown
from worker.core.change import ChangeRef
from worker.core.marker import Mark, Told, is_ours, key_from, parted, read, read_told, write, write_told

KEY = key_from("a false secret of the tests")
REF = ChangeRef("github", "acme/shop", 7)
MARK = Mark(job="01f", head="a" * 40, fingerprint="fp.2")
WRITTEN = write(MARK, key=KEY, ref=REF)
TOLD = Told(job="01f", head="a" * 40, fingerprints=("fp1", "fp2", "0123456789abcdef"))
TOLD_WRITTEN = write_told(TOLD, key=KEY, ref=REF)


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


@given(st.text(), st.sampled_from([WRITTEN, TOLD_WRITTEN]))
def test_rendered_text_never_holds_a_mark(text: str, mark: str) -> None:
    for rendered in (markdown.block(text + mark), markdown.inline(mark + text), markdown.fence(mark)):
        assert not is_ours(rendered)
        assert list(read(rendered, key=KEY, ref=REF)) == []
        assert list(read_told(rendered, key=KEY, ref=REF)) == []


def test_a_mark_of_many_findings_is_one_line_and_read_back_among_other_text() -> None:
    assert "\n" not in TOLD_WRITTEN
    assert list(read_told(f"{WRITTEN}\n- a row\n\n{TOLD_WRITTEN}\n\nmore", key=KEY, ref=REF)) == [TOLD]
    assert is_ours(TOLD_WRITTEN)
    counted = replace(TOLD, is_counted=True)
    assert list(read_told(write_told(counted, key=KEY, ref=REF), key=KEY, ref=REF)) == [counted]


def test_a_mark_of_many_findings_is_known_by_the_repository_s_name_and_by_its_id() -> None:
    text = write_told(TOLD, key=KEY, ref=REF, repository_id="42")
    renamed = ChangeRef("github", "acme/store", 7)
    assert list(read_told(text, key=KEY, ref=REF)) == [TOLD]
    assert list(read_told(text, key=KEY, ref=renamed, repository_id="42")) == [TOLD]
    assert list(read_told(text, key=KEY, ref=renamed, repository_id="43")) == []


@pytest.mark.parametrize(
    "forged",
    [
        TOLD_WRITTEN.replace("job=01f", "job=01e"),
        TOLD_WRITTEN.replace("a" * 40, "b" * 40),
        TOLD_WRITTEN.replace("fp1,fp2", "fp1,fp3"),
        TOLD_WRITTEN.replace("fp1,fp2,", "fp1,"),
        TOLD_WRITTEN.replace("fp1,fp2", "fp1:fp2"),
        TOLD_WRITTEN.replace("kimi-review:told", "kimi-review:counted"),
        write_told(TOLD, key=key_from("another"), ref=REF),
        write_told(TOLD, key=KEY, ref=ChangeRef("github", "acme/shop", 8)),
    ],
)
def test_a_forged_or_copied_mark_of_many_findings_says_nothing(forged: str) -> None:
    assert list(read_told(forged, key=KEY, ref=REF)) == []


def test_neither_kind_of_mark_is_taken_for_the_other() -> None:
    """A program that knows no marks of many findings reads nothing from them."""
    assert list(read(TOLD_WRITTEN, key=KEY, ref=REF)) == []
    assert list(read_told(WRITTEN, key=KEY, ref=REF)) == []
    one = Told(MARK.job, MARK.head, (MARK.fingerprint,))
    as_other = write_told(one, key=KEY, ref=REF).replace("kimi-review:told", "kimi-review:v1").replace("fps=", "fp=")
    assert as_other.startswith(WRITTEN.partition("sig=")[0])
    assert list(read(as_other, key=KEY, ref=REF)) == []


@pytest.mark.parametrize("fingerprints", [(), ("a,b",), ("fp1", "a--b"), ("fp1", "x-->")])
def test_a_fingerprint_that_could_end_the_comment_or_pass_for_two_is_refused(fingerprints: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="marker"):
        write_told(Told("01f", "a" * 40, fingerprints), key=KEY, ref=REF)


def test_a_body_is_parted_into_its_marks_and_its_text() -> None:
    assert parted(f"{WRITTEN}{WRITTEN}\nText\n{WRITTEN}") == (WRITTEN + WRITTEN, f"Text\n{WRITTEN}")
    assert parted("Text") == ("", "Text")
