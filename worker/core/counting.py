"""Numbers of things, as they are said to a reader."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """`1 file`, `1,204 files`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
