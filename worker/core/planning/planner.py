"""Files of a diff → a plan: every changed line in exactly one chunk, or in the ledger with a reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import accumulate
from typing import Final

from worker.core.diff.model import FileDiff, Hunk
from worker.core.errors import ConfigurationError
from worker.core.ledger import Ledger, NotReviewed
from worker.core.model_info import Budget
from worker.core.planning.grouping import clusters
from worker.core.planning.notes import note
from worker.core.planning.overview import MAP_TOKENS, job_nonce, shared_part
from worker.core.planning.packing import pack
from worker.core.planning.pieces import Part, Piece, as_part, divide, halve, parts_of, piece_of, with_parts
from worker.core.planning.plan import Chunk, ChunkFile, Plan
from worker.core.planning.rendering import file_opening_size, fixed_size
from worker.core.planning.rules import Scope, reason_to_skip
from worker.core.planning.tokens import MESSAGE_TOKENS, MESSAGES, SAFETY, Counter, Size, total
from worker.core.words import Words

THINKING_CAP_TOKENS: Final = 16_384
"""What a request may need for reasoning before the size of its diff is looked at."""
PLAIN_CAP_TOKENS: Final = 4_096
_LEAST_UNIT_TOKENS: Final = 256
_BYTES_PER_TOKEN: Final = 6
"""Code has 3 to 5; a unit of far more would be counted very differently by another vocabulary."""


def make_plan(
    files: Sequence[FileDiff],
    *,
    words: Words,
    budget: Budget,
    count: Counter,
    scope: Scope | None = None,
    title: str = "",
    description: str = "",
    guidance: str = "",
    thinks: bool = True,
    cut: Iterable[tuple[str, str, int]] = (),
) -> Plan:
    """Plan the review of `files`. The same arguments give the same plan.

    `guidance` is said to the model as the operator's words: never text from the head of the change.
    `cut` is what the source of the diff left out (`Snapshot.cut`). Raises `ConfigurationError` when
    the window is too small to show anything.
    """
    scope = scope or Scope()
    skipped = {index: reason for index, file in enumerate(files) if (reason := reason_to_skip(file, scope))}
    nonce = job_nonce(files, title, description)
    shared = shared_part(
        files,
        skipped,
        title=title,
        description=description,
        guidance=guidance,
        nonce=nonce,
        count=count,
        limit_tokens=min(MAP_TOKENS, budget.input_tokens // 12),
    )
    fixed = fixed_size(words, shared, count)
    left_out = [NotReviewed(path, reason, lines) for path, reason, lines in cut]
    left_out += [NotReviewed(files[index].path, reason, files[index].changed) for index, reason in skipped.items()]
    packer = _Packer(fixed, budget, count)
    units = packer.pack(files, skipped)
    left_out += packer.too_long
    draft = Plan(
        window_tokens=budget.window_tokens,
        output_tokens=budget.output_tokens,
        chunks=(),
        ledger=Ledger(0, 0),
        budget=budget,
        shared=shared,
        nonce=nonce,
        fixed=fixed,
        thinks=thinks,
    )
    chunks = _named_apart(chunk_of(draft, unit) for unit in units)
    planned = sum(chunk.changed for chunk in chunks)
    changed = planned + sum(row.lines for row in left_out)
    return replace(draft, chunks=chunks, ledger=Ledger(changed, planned, merged(left_out)))


def unit_limit(budget: Budget, fixed: Size) -> Size:
    """The most that the files of one chunk may take, so that its request fits whatever is counted.

    In bytes it is what the input's share holds besides the fixed part, a bound that no vocabulary can
    break; where the units are large for their window, it is what the count allows with a margin.
    """
    room = budget.input_tokens - MESSAGE_TOKENS * MESSAGES
    tokens = min(budget.chunk_tokens, int(room / (budget.token_factor * SAFETY)) - fixed.tokens)
    if tokens < _LEAST_UNIT_TOKENS:
        raise ConfigurationError(
            [
                f"LLM_CONTEXT_TOKENS: a window of {budget.window_tokens:,} tokens, {budget.output_tokens:,} of them for"
                f" the answer, has no room for code besides the instructions ({fixed.tokens:,} tokens);"
                " use a model with a larger window, or give LLM_MAX_OUTPUT_TOKENS less."
            ]
        )
    return Size(tokens, max(room - fixed.bytes, tokens * _BYTES_PER_TOKEN))


def chunk_of(plan: Plan, pieces: Sequence[Piece]) -> Chunk:
    """A chunk of `plan` that carries `pieces`, with its bounds and its name."""
    files = tuple(
        ChunkFile(f"F{number}", piece.diff, piece.hunks, piece.note, piece.sizes)
        for number, piece in enumerate(pieces, start=1)
    )
    size = total(piece.size for piece in pieces)
    budget = _budget(plan)
    return Chunk(
        id=_identity(files),
        files=files,
        input_tokens=(plan.fixed + size).bound(budget.token_factor),
        max_output_tokens=_cap(size.tokens, budget, thinks=plan.thinks),
        size=size,
    )


def with_raised_cap(chunk: Chunk, budget: Budget) -> Chunk | None:
    """The chunk with the whole answer's share as its cap; None when it has that already."""
    if chunk.max_output_tokens >= budget.output_tokens:
        return None
    return replace(chunk, max_output_tokens=budget.output_tokens)


def split_chunk(plan: Plan, chunk: Chunk, count: Counter) -> tuple[Chunk, ...]:
    """Smaller chunks that carry the same changed lines, in order; () for a single line or a file without any.

    Between files while there are several, then between hunks, then within the hunk. Evidence is
    dropped: it was chosen for the whole.
    """
    pieces = [
        Piece(file.diff, file.hunks, file.sizes, file_opening_size(file, count), file.note) for file in chunk.files
    ]
    if len(pieces) == 1:
        halves = _halves_of_file(pieces[0], count)
    else:
        at = _middle([piece.size.tokens for piece in pieces])
        halves = (pieces[:at], pieces[at:])
    return tuple(chunk_of(plan, half) for half in halves)


def merged(rows: Iterable[NotReviewed]) -> tuple[NotReviewed, ...]:
    """One row for each path and reason, in order of first appearance."""
    lines: dict[tuple[str, str], int] = {}
    for row in rows:
        key = (row.path, row.reason)
        lines[key] = lines.get(key, 0) + row.lines
    return tuple(NotReviewed(path, reason, number) for (path, reason), number in lines.items())


class _Packer:
    """Sorts files into those that fit a unit, those that are cut, and single lines that no request can hold."""

    def __init__(self, fixed: Size, budget: Budget, count: Counter) -> None:
        self._fixed = fixed
        self._limit = unit_limit(budget, fixed)
        self._budget = budget
        self._count = count
        self._full: list[list[Piece]] = []
        """Units of files that are larger than a unit; their last parts join the small files."""
        self.too_long: list[NotReviewed] = []

    def pack(self, files: Sequence[FileDiff], skipped: Mapping[int, str]) -> list[list[Piece]]:
        """Units in the order in which they are sent; a file's parts stand in order."""
        small: list[Piece] = []
        for index, file in enumerate(files):
            reason = skipped.get(index)
            told = note(file, reason=reason)
            if reason is None or told:
                hunks = file.hunks if reason is None else ()
                small.extend(self._place(file, hunks, told))
        if total(piece.size for piece in small).fits(self._limit):
            return self._full + ([small] if small else [])
        groups = clusters([p.diff for p in small], [p.size.tokens for p in small], self._limit.tokens)
        return self._full + pack([[small[index] for index in group] for group in groups], self._limit, self._count)

    def _place(self, file: FileDiff, hunks: Sequence[Hunk], told: str) -> Iterable[Piece]:
        """The file as one piece if it fits a unit; else its units, and what is left of it as a piece."""
        bare = piece_of(file, (), told, self._count)
        if not self._can_be_sent(bare.size):
            self._leave_out(file, "its path is too long", file.changed if hunks else 0)
            return ()
        room = self._limit - as_part(bare, self._count).opening
        parts = [part for hunk in hunks for part in parts_of(hunk, room, self._count)]
        whole = with_parts(bare, parts)
        if whole.size.fits(self._limit):
            return (whole,)
        return self._cut(as_part(bare, self._count), parts, room)

    def _cut(self, bare: Piece, parts: Sequence[Part], room: Size) -> Iterable[Piece]:
        run: list[Part] = []
        for part in parts:
            if part.size.fits(room):
                run.append(part)
                continue
            # One line larger than a unit: alone in a request, if any request can hold it.
            self._full.extend([piece] for piece in self._units_of(bare, run))
            run = []
            alone = with_parts(bare, [part])
            if self._can_be_sent(alone.size):
                self._full.append([alone])
            else:
                length = _megabytes(len(part.hunk.body))
                self._leave_out(bare.diff, f"line of {length} exceeds the window", part.hunk.changed)
        pieces = self._units_of(bare, run)
        self._full.extend([piece] for piece in pieces[:-1])
        return pieces[-1:]

    def _units_of(self, bare: Piece, run: Sequence[Part]) -> list[Piece]:
        """Pieces that fill a unit each, but for the last one."""
        if not run:
            return []
        pieces = []
        rest = with_parts(bare, run)
        while not rest.size.fits(self._limit) and (cut := divide(rest, self._limit, self._count)):
            pieces.append(cut[0])
            rest = cut[1]
        return [*pieces, rest]

    def _can_be_sent(self, size: Size) -> bool:
        return (self._fixed + size).bound(self._budget.token_factor) <= self._budget.input_tokens

    def _leave_out(self, file: FileDiff, reason: str, lines: int) -> None:
        self.too_long.append(NotReviewed(file.path, reason, lines))


def _megabytes(size: int) -> str:
    return f"{size / 1_000_000:.1f} MB" if size >= 100_000 else f"{size / 1_000:.1f} kB"


def _budget(plan: Plan) -> Budget:
    if plan.budget is None:
        raise ValueError("This plan was made by hand, without a budget: only plans of make_plan can be divided.")
    return plan.budget


def _cap(diff_tokens: int, budget: Budget, *, thinks: bool) -> int:
    """What an answer about so much diff may need; the account's tokens per minute count all of it."""
    need = THINKING_CAP_TOKENS + 2 * diff_tokens if thinks else PLAIN_CAP_TOKENS + diff_tokens
    return min(budget.output_tokens, need)


def _identity(files: Iterable[ChunkFile]) -> str:
    """A hash of what the chunk shows: paths, notes, and lines with their numbers, in order."""
    digest = blake2b(digest_size=8)
    for file in files:
        digest.update(repr((file.diff.old_path, file.diff.new_path, file.note, len(file.hunks))).encode())
        for hunk in file.hunks:
            digest.update(b"%d,%d,%d:" % (hunk.old_start, hunk.new_start, len(hunk.body)))
            digest.update(hunk.body)
    return digest.hexdigest()


def _named_apart(chunks: Iterable[Chunk]) -> tuple[Chunk, ...]:
    """Chunks with ids that differ, even where a diff says the same twice."""
    seen: dict[str, int] = {}
    out = []
    for chunk in chunks:
        times = seen[chunk.id] = seen.get(chunk.id, 0) + 1
        out.append(chunk if times == 1 else replace(chunk, id=f"{chunk.id}-{times}"))
    return tuple(out)


def _middle(weights: Sequence[int]) -> int:
    """The index, never 0, at which the two sides weigh most nearly the same."""
    half = sum(weights) / 2
    sums = list(accumulate(weights))
    return min(range(1, len(weights)), key=lambda index: abs(sums[index - 1] - half))


def _halves_of_file(piece: Piece, count: Counter) -> tuple[Sequence[Piece], ...]:
    bare = as_part(replace(piece, hunks=(), sizes=()), count)
    parts = [Part(hunk, size) for hunk, size in zip(piece.hunks, piece.sizes, strict=True)]
    if len(parts) == 1:
        return tuple([with_parts(bare, [part])] for part in halve(parts[0].hunk, count))
    if len(parts) < 2:
        return ()
    at = _middle([part.size.tokens for part in parts])
    return [with_parts(bare, parts[:at])], [with_parts(bare, parts[at:])]
