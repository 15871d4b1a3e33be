"""The plan of one review: chunks that fit the window, and a ledger of what is in them and what is not."""

from __future__ import annotations

from dataclasses import dataclass

from worker.core.diff.model import FileDiff, Hunk
from worker.core.ledger import Ledger


@dataclass(frozen=True, slots=True)
class ChunkFile:
    """One file's part in a chunk. `hunks` may be pieces of git's hunks, each with a correct header of its own."""

    id: str
    """The short closed name the model uses: "F1" is the first file of the chunk."""
    diff: FileDiff
    """The whole file's diff; what this chunk shows of it is `hunks`."""
    hunks: tuple[Hunk, ...]
    note: str = ""
    """What happened besides lines ("renamed from a.py", "mode 100644 → 100755"), shown to the model."""

    @property
    def path(self) -> str:
        return self.diff.path

    @property
    def changed(self) -> int:
        return sum(hunk.changed for hunk in self.hunks)


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one model request carries."""

    id: str
    """Made of the content: the same unit of an unchanged plan has the same id, so its answer is found again."""
    files: tuple[ChunkFile, ...]
    input_tokens: int
    """Upper bound of the whole rendered request."""
    max_output_tokens: int

    @property
    def changed(self) -> int:
        return sum(file.changed for file in self.files)


@dataclass(frozen=True, slots=True)
class Plan:
    """`ledger.reviewed_lines` is what the chunks show: interface.md's `planned_lines`."""

    window_tokens: int
    output_tokens: int
    """The answer's share of the window: no request's input may reach into it."""
    chunks: tuple[Chunk, ...]
    ledger: Ledger
