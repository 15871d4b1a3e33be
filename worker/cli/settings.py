"""`settings`: the text of `.env.example`."""

from __future__ import annotations

from worker.settings import example


def settings() -> None:
    """Print every setting with its meaning and default, as a file to fill in."""
    print(example(), end="")
