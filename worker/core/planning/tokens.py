"""How tokens are counted while planning: a counter that is handed in, and the bound made of its counts."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Final

Counter = Callable[[bytes | str], int]
"""o200k tokens of a text. Never raises: bytes that are not UTF-8 and lone surrogates count as replaced."""

SAFETY: Final = 1.14
"""On top of the model's factor: 1.10 planned becomes 1.25 admitted."""
MESSAGE_TOKENS: Final = 64
"""What a server may add for each message: roles, separators, the opening of the answer."""


def bound(tokens: int, text_bytes: int, factor: float, *, messages: int = 2) -> int:
    """The most input tokens that a request of `tokens` o200k tokens and `text_bytes` UTF-8 bytes can take.

    A token is never less than a byte, whatever the vocabulary, so bytes are the proven bound where
    they are the smaller one.
    """
    return min(text_bytes, ceil(tokens * factor * SAFETY)) + MESSAGE_TOKENS * messages
