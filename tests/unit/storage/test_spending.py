"""Money is kept in whole millionths of a dollar, and never rounded in the spender's favour."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.storage.spending import micro_usd, read_books


@given(st.floats(min_value=0, max_value=10_000, allow_nan=False))
def test_a_price_is_rounded_up_by_less_than_a_millionth(usd: float) -> None:
    assert -0.002 <= micro_usd(usd) - usd * 1e6 < 1.001


@given(st.integers(min_value=0, max_value=10**10))
def test_whole_millionths_stay_as_they_are(micro: int) -> None:
    assert micro_usd(micro / 1e6) == micro


def test_books_are_read_with_their_repositories_in_order() -> None:
    spent = read_books(
        {
            "spent": 1_250_000,
            "reserved": 10,
            "requests": 3,
            "input": 9,
            "repository:b/b": 250_000,
            "repository:a/a": 10**6,
        }
    )
    assert (spent.usd, spent.reserved_usd, spent.requests, spent.input_tokens) == (1.25, 0.00001, 3, 9)
    assert list(spent.repositories.items()) == [("a/a", 1.0), ("b/b", 0.25)]


def test_empty_books_say_that_nothing_was_spent() -> None:
    assert read_books({}).usd == 0.0
