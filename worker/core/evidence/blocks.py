"""Evidence as it is said: blocks of lines, each under a line that names where they stand and why they are shown."""

from __future__ import annotations

from dataclasses import dataclass

from worker.core.showing import shown_path


@dataclass(frozen=True, slots=True)
class Block:
    """Lines `start_line` to `end_line` of one file at the head, counted from 1, ends included."""

    path: str
    start_line: int
    end_line: int
    kind: str
    """Why it is shown, in words: "definition of parse", "around F1's change"."""
    text: str
    """The lines as they may be shown, each ended by a line feed."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was chosen, in the order it is said. `left_out` counts excerpts that the budget had no room for."""

    blocks: tuple[Block, ...] = ()
    left_out: int = 0


def render(blocks: tuple[Block, ...]) -> str:
    """Blocks as text. No line of it can be taken for a file's header or for a numbered line of the diff."""
    return "".join(
        heading(number, block.path, block.start_line, block.end_line, block.kind) + indented(block.text)
        for number, block in enumerate(blocks, start=1)
    )


def heading(number: int, path: str, start_line: int, end_line: int, kind: str) -> str:
    """`E1 src/a.py:10-20 (definition of parse)`"""
    return f"E{number} {shown_path(path)}:{start_line}-{end_line} ({kind})\n"


def indented(text: str) -> str:
    """Four spaces before every line: neither a header nor a row of the diff begins so."""
    rows = text.removesuffix("\n").split("\n")
    return "".join(f"    {row}".rstrip() + "\n" for row in rows)
