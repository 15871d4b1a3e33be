"""Exact o200k token counts, offline, by quicktok (its package carries the ranks).

Where no vocabulary of the model is mounted (`vocabulary.py`), its counts are o200k's times a factor that is
planned with at first and learned from usage later (`worker/core/model_info.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final

import quicktok

from worker.core.planning.tokens import Counter

PIECE_BYTES: Final = 200_000
"""Larger text is counted in pieces: memory stays flat and other threads get their turn."""
_LINE_SEARCH_BYTES: Final = 20_000
"""How far before a piece's end a line feed is looked for; a longer line is cut inside."""
_WORTH_THREADS_BYTES: Final = 1_000_000
_MOST_THREADS: Final = 4


@cache
def o200k_counter() -> Counter:
    """The process's one counter; loading its ranks takes about 0.3 s and 60 MB."""
    count = quicktok.get_encoding("o200k_base").count
    # It reads special words such as <|endoftext|> as plain text and replaces what is not UTF-8 in bytes, but refuses
    # lone surrogates in str: so a str goes in as bytes.
    return SideBySide(lambda data: int(count(data)), piece_bytes=PIECE_BYTES)


class SideBySide:
    """A counter made of `count`, which takes bytes and lets go of the interpreter while it counts.

    Text of more than `piece_bytes` is counted in pieces: a seam may cost a token more, never one less than is due.
    """

    def __init__(self, count: Callable[[bytes], int], *, piece_bytes: int) -> None:
        self._count = count
        self._piece_bytes = piece_bytes

    def __call__(self, text: bytes | str, /) -> int:
        data = text.encode("utf-8", "replace") if isinstance(text, str) else text
        if len(data) <= self._piece_bytes:
            return self._count(data)
        return sum(self._count(piece) for piece in pieces(data, self._piece_bytes))

    def each(self, texts: Sequence[bytes | str], /) -> list[int]:
        if sum(map(len, texts)) < _WORTH_THREADS_BYTES:
            return self._every(texts)
        threads = min(_MOST_THREADS, os.cpu_count() or 1)
        counts = [0] * len(texts)
        with ThreadPoolExecutor(threads, thread_name_prefix="tokens") as pool:
            for first, some in enumerate(pool.map(self._every, (texts[start::threads] for start in range(threads)))):
                counts[first::threads] = some
        return counts

    def _every(self, texts: Sequence[bytes | str]) -> list[int]:
        return [self(text) for text in texts]


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
