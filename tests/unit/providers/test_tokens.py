"""Tokens are counted exactly, and no text makes counting fail or slow."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.providers.tokens import PIECE_BYTES, o200k_counter, pieces

COUNT = o200k_counter()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        # As tiktoken's o200k_base has them.
        ("", 0),
        ("hello world", 2),
        ("def compute(number):\n    return number\n", 8),
        ("<|endoftext|>", 7),
    ],
)
def test_counts_are_those_of_o200k(text: str, tokens: int) -> None:
    assert COUNT(text) == COUNT(text.encode()) == tokens


def test_a_lone_surrogate_and_bytes_that_are_no_utf_8_are_counted_as_replaced() -> None:
    assert COUNT("a\ud800b") == COUNT("a?b")
    assert 0 < COUNT(b"\xff\xfe\x80" * 10) <= 30


@pytest.mark.parametrize(
    "unit", [b"a", b" ", b"/", b"=", "中".encode(), "😀".encode(), b"\r\n", b"x = 1\n", b"\xff"], ids=repr
)
def test_megabytes_of_anything_are_counted_in_no_time(unit: bytes) -> None:
    data = unit * (2_000_000 // len(unit))
    # Of the processor: what else the machine does is not our slowness.
    started = time.process_time()
    tokens = COUNT(data)
    assert time.process_time() - started < 3
    assert 0 < tokens <= len(data)


@given(st.binary(max_size=3_000))
def test_a_token_is_never_less_than_a_byte(data: bytes) -> None:
    assert COUNT(data) <= len(data)


@given(st.text(max_size=400), st.integers(8, 60))
def test_pieces_are_the_text_cut_at_lines_or_between_characters(text: str, limit: int) -> None:
    data = text.encode("utf-8", "replace")
    parts = list(pieces(data, limit))
    assert b"".join(parts) == data
    assert all(len(part) <= limit for part in parts)
    assert "".join(part.decode("utf-8") for part in parts) == text.encode("utf-8", "replace").decode()


def test_counting_in_pieces_agrees_with_counting_whole() -> None:
    source = random.Random(3)
    rows = [
        b"value_%d = compute(%d)  # note\n" % (source.randint(0, 9_999), source.randint(0, 99)) for _ in range(20_000)
    ]
    data = b"".join(rows)
    assert len(data) > 3 * PIECE_BYTES
    assert abs(COUNT(data) - sum(COUNT.each(list(pieces(data, 10_000))))) <= len(data) // 10_000


def test_many_texts_are_counted_side_by_side_in_their_order() -> None:
    texts: list[bytes | str] = [b"word " * number for number in range(1, 900)]
    assert sum(map(len, texts)) > 1_000_000
    assert COUNT.each(texts) == [COUNT(text) for text in texts]
