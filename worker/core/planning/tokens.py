"""How sizes are counted while planning: a counter that is handed in, and the bound made of its counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final, Protocol

SAFETY: Final = 1.14
"""On top of the model's factor: 1.10 planned becomes 1.25 admitted."""
MESSAGE_TOKENS: Final = 64
"""What a server may add for each message: roles, separators, the opening of the answer."""
MESSAGES: Final = 2
"""A request has a system message and a user message."""


class Counter(Protocol):
    """Counts o200k tokens. Never raises: bytes that are not UTF-8 and lone surrogates count as replaced."""

    def __call__(self, text: bytes | str, /) -> int: ...

    def each(self, texts: Sequence[bytes | str], /) -> list[int]:
        """The count of every text; many at a time may be counted side by side."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of a text as it is sent: o200k tokens and UTF-8 bytes."""

    tokens: int = 0
    bytes: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(self.tokens + other.tokens, self.bytes + other.bytes)

    def __sub__(self, other: Size) -> Size:
        return Size(self.tokens - other.tokens, self.bytes - other.bytes)

    def fits(self, limit: Size) -> bool:
        return self.tokens <= limit.tokens and self.bytes <= limit.bytes

    def bound(self, factor: float) -> int:
        """The most input tokens that a request of this size can take from a model of that token factor.

        A token is never less than a byte, whatever the vocabulary, so the bytes are a proven bound;
        the count times factor and safety is the one that is used where it is smaller.
        """
        return min(self.bytes, ceil(self.tokens * factor * SAFETY)) + MESSAGE_TOKENS * MESSAGES


def total(sizes: Iterable[Size]) -> Size:
    tokens = 0
    size_bytes = 0
    for size in sizes:
        tokens += size.tokens
        size_bytes += size.bytes
    return Size(tokens, size_bytes)


def text_size(text: str, count: Counter) -> Size:
    return Size(count(text), len(text.encode("utf-8", "replace")))
