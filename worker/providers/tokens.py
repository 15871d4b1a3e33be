"""Exact o200k token counts, offline, by quicktok (its package carries the ranks).

Kimi's own vocabulary is not published in any package; its counts are o200k's times a factor that
is planned with at first and learned from usage later (`worker/core/model_info.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final

import quicktok

from worker.core.planning.tokens import Counter

PIECE_BYTES: Final = 200_000
"""Larger text is counted in pieces: memory stays flat and other threads get their turn."""
_LINE_SEARCH_BYTES: Final = 20_000
"""How far before a piece's end a line feed is looked for; a longer line is cut inside."""


@cache
def o200k_counter() -> Counter:
    """The process's one counter; loading its ranks takes about 0.3 s and 60 MB."""
    encoding = quicktok.get_encoding("o200k_base")

    def count(text: bytes | str) -> int:
        # `count` reads special words such as <|endoftext|> as plain text and replaces what is not
        # UTF-8 in bytes, but refuses lone surrogates in str: so a str goes in as bytes.
        data = text.encode("utf-8", "replace") if isinstance(text, str) else text
        if len(data) <= PIECE_BYTES:
            return int(encoding.count(data))
        return sum(int(encoding.count(piece)) for piece in pieces(data))

    return count


def pieces(data: bytes, limit: int = PIECE_BYTES) -> Iterator[bytes]:
    """Cut `data` into at most `limit` bytes each: after a line feed, else before a UTF-8 character."""
    start = 0
    while len(data) - start > limit:
        end = data.rfind(b"\n", start + max(0, limit - _LINE_SEARCH_BYTES), start + limit) + 1
        if end <= start:
            end = start + limit
            # A continuation byte is 10xxxxxx; a character has three of them at most.
            for _ in range(3):
                if end > start + 1 and data[end] & 0xC0 == 0x80:
                    end -= 1
        yield data[start:end]
        start = end
    yield data[start:]
