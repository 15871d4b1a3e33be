"""The account's limits as values: what the operator or the plan says, and the vendor's tiers for comparison."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from worker.core.errors import LimitKind

LIMIT_KINDS: tuple[LimitKind, ...] = ("concurrency", "rpm", "tpm", "tpd")


@dataclass(frozen=True, slots=True)
class Limits:
    """What is known of an account before it is used; None is "not known, learn it". All count the whole fleet.

    `rpm` and `tpm` count per minute, `tpd` per day; a request's tokens are its input plus its output cap.
    """

    concurrency: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    tpd: int | None = None
    concurrency_source: str = "settings"
    """Who says so: "settings", or the plan's name."""

    def __post_init__(self) -> None:
        for kind in LIMIT_KINDS:
            value = self.value(kind)
            if value is not None and value < 1:
                raise ValueError(f"a limit admits at least one: {kind}={value}")

    def value(self, kind: LimitKind) -> int | None:
        if kind == "concurrency":
            return self.concurrency
        if kind == "rpm":
            return self.rpm
        return self.tpm if kind == "tpm" else self.tpd

    def source(self, kind: LimitKind) -> str:
        return self.concurrency_source if kind == "concurrency" else "settings"


@dataclass(frozen=True, slots=True)
class HardStops:
    """Our own limits on money, in US dollars; None is no stop. They hold over all accounts of the installation."""

    month_usd: float | None = None
    review_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Tier:
    """One row of a vendor's table of limits."""

    name: str
    limits: Limits


TIERS: tuple[Tier, ...] = (
    Tier("Tier 0", Limits(concurrency=1, rpm=3, tpm=500_000, tpd=1_500_000)),
    Tier("Tier 1", Limits(concurrency=15, rpm=100, tpm=2_000_000)),
    Tier("Tier 2", Limits(concurrency=40, rpm=100, tpm=3_000_000)),
    Tier("Tier 3", Limits(concurrency=50, rpm=200, tpm=3_000_000)),
    Tier("Tier 4", Limits(concurrency=60, rpm=200, tpm=4_000_000)),
    Tier("Tier 5", Limits(concurrency=100, rpm=300, tpm=5_000_000)),
)
"""Moonshot's published tiers, autumn 2026: shown and simulated with, never decided by. Real accounts deviate."""


def account_of(base_url: str, key: str) -> str:
    """Name the account that `key` opens at `base_url`, without telling the key: limits are kept under this name."""
    text = f"{base_url.rstrip('/').lower()}\n{key}"
    return hashlib.blake2b(text.encode(), digest_size=10, person=b"kimi-account").hexdigest()


FIRST_CONCURRENCY = 8
"""Where nothing is known of an account: low enough to be welcome, high enough to learn from within a minute."""
