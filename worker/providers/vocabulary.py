"""A vocabulary that the operator mounts: Kimi's own `tiktoken.model`, for exact counts.

Its format is tiktoken's: one token a line, base64 and a rank. The pattern that splits text before tokens are
merged is not in the file; it is that of the whole K2 and K3 family, whose vocabulary is one (`pat_str` in Moonshot's
published `tokenization_kimi.py`).
"""

from __future__ import annotations

import base64
import binascii
from functools import cache
from pathlib import Path
from typing import Final

from worker.core.errors import ConfigurationError
from worker.core.planning.tokens import Counter
from worker.providers.tokens import SideBySide

_WORD_END: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_UPPER: Final = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_LOWER: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
PATTERN: Final = "|".join(
    (
        r"[\p{Han}]+",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_WORD_END}",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_WORD_END}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
_PIECE_BYTES: Final = 25_000
"""The pattern's engine gives up on far longer runs; Moonshot's own code cuts runs of so many characters too."""
_LARGEST_FILE_BYTES: Final = 64_000_000
_CURE: Final = "Mount the file tiktoken.model of a Kimi model, whole, or leave the setting empty."


@cache
def mounted_counter(path: Path) -> Counter:
    """Counts by the vocabulary in `path`; loading takes about a second. Raises `ConfigurationError`."""
    # Slow to import, and only needed where a vocabulary is mounted.
    import tiktoken

    encoding = tiktoken.Encoding(
        name=path.name, pat_str=PATTERN, mergeable_ranks=ranks_of(_read(path)), special_tokens={}
    )
    return SideBySide(
        lambda data: len(encoding.encode_ordinary(data.decode("utf-8", "replace"))), piece_bytes=_PIECE_BYTES
    )


def problems_with(path: Path) -> list[str]:
    """Why `path` holds no vocabulary, for the check of the settings at the start; empty when it does."""
    try:
        ranks_of(_read(path))
    except ConfigurationError as error:
        return error.problems
    return []


def ranks_of(text: bytes) -> dict[bytes, int]:
    """Token → rank. Raises `ConfigurationError` for what no tokenizer could work with."""
    ranks: dict[bytes, int] = {}
    for number, row in enumerate(text.splitlines(), start=1):
        token, _, rank = row.partition(b" ")
        if not row:
            continue
        try:
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (binascii.Error, ValueError):
            raise _wrong(f"line {number} is not a token in base64, a blank and a rank") from None
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise _wrong("its ranks do not count from 0 without a gap")
    if missing := sum(bytes([code]) not in ranks for code in range(256)):
        raise _wrong(f"{missing} of the 256 single bytes have no token in it")
    return ranks


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise _wrong(f"is larger than {_LARGEST_FILE_BYTES:,} bytes")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no path"
        raise _wrong(f"the file cannot be read: {why}") from error


def _wrong(what: str) -> ConfigurationError:
    return ConfigurationError([f"LLM_TOKENIZER_FILE: {what}. {_CURE}"])
