"""Files of a diff → a plan: every changed line in exactly one chunk, or in the ledger with a reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Final

from worker.core.diff.model import FileDiff
from worker.core.errors import ConfigurationError
from worker.core.ledger import BINARY, Ledger, NotReviewed
from worker.core.model_info import Budget
from worker.core.planning.identity import apart, digest_of, name_of
from worker.core.planning.overview import MAP_TOKENS, shared_part
from worker.core.planning.pieces import Piece, halve, measured, partial, piece_of
from worker.core.planning.plan import Chunk, ChunkFile, Plan
from worker.core.planning.rendering import fixed_size
from worker.core.planning.rules import Scope, reason_to_skip
from worker.core.planning.tokens import MESSAGE_TOKENS, MESSAGES, SAFETY, Counter, Size, total
from worker.core.planning.units import Units
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
    scope = replace(scope or Scope(), beside=frozenset(file.path for file in files))
    skipped = {index: reason for index, file in enumerate(files) if (reason := reason_to_skip(file, scope))}
    digests = [digest_of(file, file.hunks) for file in files]
    nonce = name_of(title, description, *digests)
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
    units = Units(unit_limit(budget, fixed), fixed, budget, count)
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
    chunks = [_chunk(draft, unit) for unit in units.of(files, skipped, digests)]
    names = apart(chunk.id for chunk in chunks)
    chunks = [replace(chunk, id=name) for chunk, name in zip(chunks, names, strict=True)]
    beyond = [NotReviewed(path, reason, lines) for path, reason, lines in cut]
    left_out = [NotReviewed(files[index].path, reason, files[index].changed) for index, reason in skipped.items()]
    beyond, left_out = _told_once(beyond, left_out)
    # Counted from the diff and not from the chunks: were a line lost on the way, the ledger would not add up.
    changed = sum(file.changed for file in files) + sum(row.lines for row in beyond)
    ledger = Ledger(changed, sum(chunk.changed for chunk in chunks), merged([*beyond, *left_out, *units.left_out]))
    return replace(draft, chunks=tuple(chunks), ledger=ledger)


def _told_once(
    beyond: Sequence[NotReviewed], left_out: Sequence[NotReviewed]
) -> tuple[list[NotReviewed], list[NotReviewed]]:
    """Of what the source of the diff and a rule both have a reason for, the one that says more.

    The source may have looked into what git calls binary; the other rules were asked for by somebody.
    """
    by_rule = {row.path: row.reason for row in left_out if not row.lines}
    outranked = {row.path for row in beyond if not row.lines and by_rule.get(row.path) == BINARY}
    kept = [row for row in beyond if row.lines or by_rule.get(row.path, BINARY) == BINARY]
    return kept, [row for row in left_out if row.lines or row.path not in outranked]


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


def _chunk(plan: Plan, pieces: Sequence[Piece]) -> Chunk:
    """A chunk of `plan` that carries `pieces`, with its bounds and its name."""
    size = total(piece.size for piece in pieces)
    budget = _budget(plan)
    return Chunk(
        id=name_of(*(f"{piece.note}\n{piece.digest or digest_of(piece.diff, piece.hunks)}" for piece in pieces)),
        files=tuple(
            ChunkFile(f"F{number}", piece.diff, piece.hunks, piece.note, piece.size)
            for number, piece in enumerate(pieces, start=1)
        ),
        input_tokens=(plan.fixed + size).bound(budget.token_factor),
        max_output_tokens=_cap(size.tokens, budget, thinks=plan.thinks),
        size=size,
    )


def with_raised_cap(chunk: Chunk, budget: Budget) -> Chunk | None:
    """The chunk with the whole answer's share as its cap; None when it has that already."""
    if chunk.max_output_tokens >= budget.output_tokens:
        return None
    return replace(chunk, max_output_tokens=budget.output_tokens)


def with_lowered_cap(chunk: Chunk, budget: Budget) -> Chunk | None:
    """The chunk with no more than `budget`'s share for the answer; None when it would not fit by that."""
    cap = min(chunk.max_output_tokens, budget.output_tokens)
    if cap == chunk.max_output_tokens or chunk.input_tokens + cap > budget.window_tokens:
        return None
    return replace(chunk, max_output_tokens=cap)


def split_chunk(plan: Plan, chunk: Chunk, count: Counter) -> tuple[Chunk, ...]:
    """Smaller chunks that carry the same changed lines, in order; () for a single line.

    Between files while there are several, then between hunks, then within the hunk. Files without lines stay with the
    first ones, and at last leave a single line alone. Evidence is dropped: it was chosen for the whole.
    """
    pieces = [Piece(file.diff, file.hunks, file.size, file.note) for file in chunk.files]
    without_lines = [piece for piece in pieces if not piece.hunks]
    pieces = [piece for piece in pieces if piece.hunks]
    if len(pieces) > 1:
        at = _middle([piece.size.tokens for piece in pieces])
        parts = [pieces[:at], pieces[at:]]
    else:
        parts = [[half] for piece in pieces for half in _halves_of(piece, count)]
        if not parts:
            return (_chunk(plan, pieces),) if pieces and without_lines else ()
    parts[0] += without_lines
    return tuple(_chunk(plan, part) for part in parts)


def merged(rows: Iterable[NotReviewed]) -> tuple[NotReviewed, ...]:
    """One row for each path and reason, in order of first appearance."""
    lines: dict[tuple[str, str], int] = {}
    for row in rows:
        key = (row.path, row.reason)
        lines[key] = lines.get(key, 0) + row.lines
    return tuple(NotReviewed(path, reason, number) for (path, reason), number in lines.items())


def _budget(plan: Plan) -> Budget:
    if plan.budget is None:
        raise ValueError("This plan was made by hand, without a budget: only plans of make_plan can be divided.")
    return plan.budget


def _cap(diff_tokens: int, budget: Budget, *, thinks: bool) -> int:
    """What an answer about so much diff may need; the account's tokens per minute count all of it."""
    need = THINKING_CAP_TOKENS + 2 * diff_tokens if thinks else PLAIN_CAP_TOKENS + diff_tokens
    return min(budget.output_tokens, need)


def _middle(weights: Sequence[int]) -> int:
    """The index, never 0, at which the two sides weigh most nearly the same."""
    half = sum(weights) / 2
    sums = list(accumulate(weights))
    return min(range(1, len(weights)), key=lambda index: abs(sums[index - 1] - half))


def _halves_of(piece: Piece, count: Counter) -> list[Piece]:
    told = partial(piece.note)
    if len(piece.hunks) == 1:
        return [piece_of(piece.diff, [part], told, count) for part in halve(piece.hunks[0], count)]
    if not piece.hunks:
        return []
    parts = measured(piece.hunks, count)
    at = _middle([part.size.tokens for part in parts])
    return [piece_of(piece.diff, half, told, count) for half in (parts[:at], parts[at:])]
