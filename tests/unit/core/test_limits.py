"""Limits are values: what cannot be is refused, and an account is named without its key."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.limits import LIMIT_KINDS, TIERS, Limits, account_of


@pytest.mark.parametrize("kind", LIMIT_KINDS)
def test_a_limit_that_admits_nobody_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=f"{kind}=0"):
        Limits(**{kind: 0})  # type: ignore[arg-type]


def test_a_limit_says_who_told_it() -> None:
    limits = Limits(concurrency=30, rpm=200, concurrency_source="Code Plan")
    assert [(limits.value(kind), limits.source(kind)) for kind in LIMIT_KINDS] == [
        (30, "Code Plan"),
        (200, "settings"),
        (None, "settings"),
        (None, "settings"),
    ]


def test_a_higher_tier_never_gives_less() -> None:
    for lower, higher in pairwise(TIERS[1:]):
        assert all((lower.limits.value(kind) or 0) <= (higher.limits.value(kind) or 0) for kind in LIMIT_KINDS)


@given(st.text(min_size=8), st.text(min_size=8))
def test_an_account_is_named_by_endpoint_and_key_and_names_neither(key: str, other: str) -> None:
    account = account_of("https://api.moonshot.ai/v1", key)
    assert account == account_of("https://api.moonshot.ai/v1/", key)
    assert account != account_of("https://api.moonshot.cn/v1", key)
    assert (account == account_of("https://api.moonshot.ai/v1", other)) == (key == other)
    assert key not in account
    assert "moonshot" not in account
