"""The plan of one review: chunks that fit the window, and a ledger of what is in them and what is not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from worker.core.diff.model import FileDiff, Hunk
from worker.core.diff.paths import in_utf8
from worker.core.images import Image
from worker.core.ledger import Ledger
from worker.core.model_info import Budget
from worker.core.planning.tokens import Size


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
    size: Size = field(default_factory=Size)
    """Of the file as it is shown, header and note included."""

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
    size: Size = field(default_factory=Size)
    """Of the files as shown, headers included: what `Budget.chunk_tokens` limits."""
    evidence: str = ""
    """Code from elsewhere in the repository, named and delimited by whoever chose it; never counts as changed."""
    evidence_size: Size = field(default_factory=Size)
    images: tuple[Image, ...] = ()
    """Changed images that are shown besides; the ledger names them as binary files all the same."""

    @property
    def changed(self) -> int:
        return sum(file.changed for file in self.files)


@dataclass(frozen=True, slots=True)
class Plan:
    """`ledger.reviewed_lines` is what the chunks show: `planned_lines` in `plan_as_json`."""

    window_tokens: int
    output_tokens: int
    """The answer's share of the window: no request's input may reach into it."""
    chunks: tuple[Chunk, ...]
    ledger: Ledger
    budget: Budget | None = None
    """What it was planned with; None only in plans made by hand."""
    shared: str = ""
    """What all requests of the job have in common, after the `kind:` line: byte-identical, for the prefix cache."""
    nonce: str = ""
    """Of the shared part: a hash over the whole change, which no content can contain of itself."""
    fixed: Size = field(default_factory=Size)
    """Of everything in a request but its files and its evidence."""
    thinks: bool = True
    """Whether the model reasons before it answers: its caps are larger then."""
    unpaid: tuple[Chunk, ...] = ()
    """What the review's budget does not reach, in order; its lines are in the ledger as such."""


def plan_as_json(plan: Plan) -> dict[str, Any]:
    """The value that `kimi-review plan --format json` prints."""
    return {
        "window_tokens": plan.window_tokens,
        "output_tokens": plan.output_tokens,
        "chunks": [
            {
                "id": chunk.id,
                "input_tokens": chunk.input_tokens,
                "max_output_tokens": chunk.max_output_tokens,
                "files": [
                    {"path": in_utf8(file.path), "hunks": [_numbers(hunk) for hunk in file.hunks]}
                    for file in chunk.files
                ],
            }
            for chunk in plan.chunks
        ],
        "ledger": {
            "changed_lines": plan.ledger.changed_lines,
            "planned_lines": plan.ledger.reviewed_lines,
            "not_reviewed": [
                {"path": in_utf8(row.path), "reason": row.reason, "lines": row.lines}
                for row in plan.ledger.not_reviewed
            ],
        },
    }


def _numbers(hunk: Hunk) -> dict[str, int]:
    return {
        "old_start": hunk.old_start,
        "old_lines": hunk.old_lines,
        "new_start": hunk.new_start,
        "new_lines": hunk.new_lines,
    }
