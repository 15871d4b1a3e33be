"""Pieces of a hunk are hunks: same bytes, right numbers, and git applies them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.git_repository import GitRepository
from tests.fakes.hunks import split_hunk
from worker.core.diff.model import Hunk
from worker.core.diff.parse import parse_diff

rows = st.lists(
    st.tuples(st.sampled_from("+- "), st.binary(max_size=4).map(lambda text: text.replace(b"\n", b"@"))), min_size=1
)


def hunk_of(lines: list[tuple[str, bytes]], start: int = 7) -> Hunk:
    body = b"".join(sign.encode() + text + b"\n" for sign, text in lines)
    added, removed = (sum(sign == wanted for sign, _ in lines) for wanted in "+-")
    context = len(lines) - added - removed
    old_lines, new_lines = context + removed, context + added
    return Hunk(start - (not old_lines), old_lines, start - (not new_lines), new_lines, b"f()", body, added, removed)


@given(rows, st.lists(st.integers(-2, 40)))
def test_pieces_hold_the_same_lines_with_the_same_numbers(lines: list[tuple[str, bytes]], at: list[int]) -> None:
    hunk = hunk_of(lines)
    pieces = split_hunk(hunk, at)
    assert b"".join(piece.body for piece in pieces) == hunk.body
    assert [line for piece in pieces for line in piece.lines()] == list(hunk_of(lines).lines())
    assert len(pieces) == 1 + len({index for index in at if 0 < index < len(lines)})
    for piece in pieces:
        found = list(piece.lines())
        assert piece.old_lines == sum(line.sign != "+" for line in found)
        assert piece.new_lines == sum(line.sign != "-" for line in found)
        assert (piece.added, piece.removed) == tuple(sum(line.sign == sign for line in found) for sign in "+-")


@given(rows, st.lists(st.integers(1, 40)))
def test_a_piece_s_header_is_what_the_parser_reads_back(lines: list[tuple[str, bytes]], at: list[int]) -> None:
    pieces = split_hunk(hunk_of(lines), at)
    text = b"--- a/x\n+++ b/x\n" + b"".join(
        b"@@ -%d,%d +%d,%d @@ f()\n" % (piece.old_start, piece.old_lines, piece.new_start, piece.new_lines) + piece.body
        for piece in pieces
    )
    [file] = parse_diff(text)
    assert file.hunks == pieces


@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_git_applies_the_pieces_to_the_same_blob(tmp_path: Path, step: int) -> None:
    old = b"".join(b"line %d\n" % number for number in range(1, 40)) + b"last"
    new = (
        old.replace(b"line 5\n", b"").replace(b"line 6\n", b"six\nsix and a half\n").replace(b"line 30\n", b"thirty\n")
    )
    new = b"first\n" + new + b" and a newline\n"
    repository = GitRepository.create(tmp_path)
    repository.write("x", old)
    base = repository.commit()
    repository.write("x", new)
    head = repository.commit()
    for context in ("-U0", "-U3", "-U100"):
        [file] = parse_diff(repository.diff(base, head, context))
        patch = b"--- a/x\n+++ b/x\n"
        for hunk in file.hunks:
            for piece in split_hunk(hunk, range(step, hunk.old_lines + hunk.new_lines, step)):
                if piece.changed:
                    patch += b"@@ -%d,%d +%d,%d @@\n" % (
                        piece.old_start,
                        piece.old_lines,
                        piece.new_start,
                        piece.new_lines,
                    )
                    patch += piece.body
        repository.write("x", old)
        repository.git("apply", "--unidiff-zero", stdin=patch)
        assert (tmp_path / "x").read_bytes() == new


def test_a_missing_final_newline_stays_with_its_line() -> None:
    body = b"-a\n\\ No newline at end of file\n+a\n+b\n\\ No newline at end of file\n"
    hunk = Hunk(1, 1, 1, 2, b"", body, 2, 1)
    first, second, third = split_hunk(hunk, [1, 2])
    assert first.body == b"-a\n\\ No newline at end of file\n"
    assert second.body == b"+a\n"
    assert third.body == b"+b\n\\ No newline at end of file\n"
    assert (first.old_start, first.old_lines, first.new_start, first.new_lines) == (1, 1, 0, 0)
    assert (second.old_start, second.old_lines, second.new_start, second.new_lines) == (1, 0, 1, 1)
    assert (third.old_start, third.old_lines, third.new_start, third.new_lines) == (1, 0, 2, 1)
