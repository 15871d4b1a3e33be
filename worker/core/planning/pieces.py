"""Files → pieces that fit a unit: cut at hunk borders, and within a large hunk at a scope's border."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from worker.core.diff.model import FileDiff, Hunk
from worker.core.diff.split import split_hunk
from worker.core.planning.plan import ChunkFile
from worker.core.planning.rendering import file_opening_size, hunk_header, hunk_size, row_tokens
from worker.core.planning.showing import shown
from worker.core.planning.tokens import Counter, Size, text_size, total

FULL_ENOUGH: Final = 0.85
"""A unit filled so far may be closed; one that is emptier takes a part of what comes next."""
_BORDER_SHARE: Final = 0.15
"""In this last share of a part a scope's border is looked for; further back, units would stay empty."""
PARTIAL: Final = "part of this file's change; the other parts are reviewed separately"
_CLOSERS: Final = b"})]>"


@dataclass(frozen=True, slots=True)
class Piece:
    """What goes into a unit undivided: a whole file mostly, or a run of its hunks."""

    diff: FileDiff
    hunks: tuple[Hunk, ...]
    sizes: tuple[Size, ...]
    opening: Size
    """Of the header line and the note."""
    note: str = ""

    @property
    def size(self) -> Size:
        return self.opening + total(self.sizes)


@dataclass(frozen=True, slots=True)
class Part:
    """A run of lines of one hunk, with its size as it is shown."""

    hunk: Hunk
    size: Size


def piece_of(diff: FileDiff, parts: Sequence[Part], note: str, count: Counter) -> Piece:
    opening = file_opening_size(ChunkFile("F1", diff, (), note), count)
    return with_parts(Piece(diff, (), (), opening, note), parts)


def with_parts(piece: Piece, parts: Sequence[Part]) -> Piece:
    """The same file's piece with these parts in place of its own."""
    return replace(piece, hunks=tuple(part.hunk for part in parts), sizes=tuple(part.size for part in parts))


def as_part(piece: Piece, count: Counter) -> Piece:
    """`piece`, telling the model that it is not the whole of the file's change."""
    if piece.note.endswith(PARTIAL):
        return piece
    note = f"{piece.note}; {PARTIAL}" if piece.note else PARTIAL
    return replace(piece, note=note, opening=file_opening_size(ChunkFile("F1", piece.diff, (), note), count))


def parts_of(hunk: Hunk, limit: Size, count: Counter) -> list[Part]:
    """`hunk` whole if it fits `limit`, else cut into parts that do; a line that does not is a part by itself.

    Parts without a changed line are left out: they are context of lines that stand in another part.
    """
    # Far above the limit a count of the whole would only be thrown away.
    if len(hunk.body) <= limit.tokens * 8:
        size = hunk_size(hunk, count)
        if size.fits(limit):
            return [Part(hunk, size)]
    ruler = _Ruler(hunk, count, block_bytes=max(200, limit.tokens // 5))
    cuts: list[int] = []
    sizes: list[Size] = []
    start = 0
    while start < ruler.rows_number:
        end, size = ruler.fill(start, limit)
        cuts.append(end)
        sizes.append(size)
        start = end
    pieces = split_hunk(hunk, cuts)
    return [Part(piece, size) for piece, size in zip(pieces, sizes, strict=True) if piece.changed]


def divide(piece: Piece, room: Size, count: Counter) -> tuple[Piece, Piece] | None:
    """Cut `piece` so that the first part fits `room` and is as large as can be; None when no change would be in it.

    At a hunk's border, or within the next hunk where the border would leave much of the room empty.
    """
    piece = as_part(piece, count)
    used = piece.opening
    taken = 0
    while taken < len(piece.hunks) and (used + piece.sizes[taken]).fits(room):
        used += piece.sizes[taken]
        taken += 1
    if taken == len(piece.hunks):
        return None
    hunks, sizes = list(piece.hunks), list(piece.sizes)
    if used.tokens < room.tokens * FULL_ENOUGH and (cut := _cut(hunks[taken], room - used, count)):
        hunks[taken : taken + 1] = [part.hunk for part in cut]
        sizes[taken : taken + 1] = [part.size for part in cut]
        taken += 1
    if not taken:
        return None
    return (
        replace(piece, hunks=tuple(hunks[:taken]), sizes=tuple(sizes[:taken])),
        replace(piece, hunks=tuple(hunks[taken:]), sizes=tuple(sizes[taken:])),
    )


def halve(hunk: Hunk, count: Counter) -> tuple[Part, ...]:
    """Two parts of `hunk`, cut near its middle; () when it has one line. Parts without a change are left out."""
    ruler = _Ruler(hunk, count, block_bytes=max(1, len(hunk.body)))
    if ruler.rows_number < 2:
        return ()
    middle = ruler.row_at_byte(len(hunk.body) // 2)
    pieces = split_hunk(hunk, [middle])
    return tuple(Part(piece, hunk_size(piece, count)) for piece in pieces if piece.changed)


def _cut(hunk: Hunk, room: Size, count: Counter) -> tuple[Part, Part] | None:
    if room.tokens <= 0:
        return None
    ruler = _Ruler(hunk, count, block_bytes=max(200, room.tokens // 5))
    at, size = ruler.fill(0, room)
    if not size.fits(room) or at >= ruler.rows_number:
        return None
    first, second = split_hunk(hunk, [at])
    if not (first.changed and second.changed):
        return None
    return Part(first, size), Part(second, hunk_size(second, count))


class _Ruler:
    """Measures runs of one hunk's lines. A `\\ No newline` row belongs to the line before it."""

    def __init__(self, hunk: Hunk, count: Counter, *, block_bytes: int) -> None:
        self._count = count
        self._rows = rows_of(hunk)
        self._header = text_size(hunk_header(hunk), count)
        self._number_digits = len(str(hunk.new_start + hunk.new_lines))
        self._block_bytes = block_bytes
        self._ends = self._blocks()

    @property
    def rows_number(self) -> int:
        return len(self._rows)

    def fill(self, start: int, limit: Size) -> tuple[int, Size]:
        """Where a part that begins at row `start` ends to fit `limit`, and its size; it has one row at least."""
        used = self._header + Size(2)  # counts of neighbours may be a token or two short of the whole
        at = start
        block = bisect_right(self._ends, start)
        while block < len(self._ends):
            more = self._size(at, self._ends[block])
            if not (used + more).fits(limit):
                break
            used += more
            at = self._ends[block]
            block += 1
        else:
            return at, used
        while at < self._ends[block]:
            more = self._size(at, at + 1)
            if not (used + more).fits(limit) and at > start:
                break
            used += more
            at += 1
            if not used.fits(limit):
                return at, used
        border = self._border(start, at)
        return border, used - self._size(border, at) if border < at else used

    def row_at_byte(self, offset: int) -> int:
        """The scope's border, or else the row, nearest before the middle; never 0."""
        seen = 0
        for index, row in enumerate(self._rows):
            seen += len(row)
            if seen >= offset:
                return self._border(0, max(1, min(index, len(self._rows) - 1)))
        return 1

    def _blocks(self) -> list[int]:
        ends = []
        size = 0
        for index, row in enumerate(self._rows):
            if size and size + len(row) > self._block_bytes:
                ends.append(index)
                size = 0
            size += len(row)
        ends.append(len(self._rows))
        return ends

    def _size(self, start: int, end: int) -> Size:
        rows = self._rows[start:end]
        text = shown(b"".join(rows))
        removed = sum(1 for row in rows if row[:1] == b"-")
        return Size(self._count(text), len(text.encode())) + row_tokens(
            removed, end - start - removed, self._number_digits
        )

    def _border(self, start: int, end: int) -> int:
        """The best row to begin the next part with, from the last rows of `start` … `end`."""
        if end >= len(self._rows):
            return end
        best, best_rank = end, _rank(self._rows[end - 1], self._rows[end])
        for at in range(end - 1, max(start, int(end - (end - start) * _BORDER_SHARE)), -1):
            rank = _rank(self._rows[at - 1], self._rows[at])
            if rank < best_rank:
                best, best_rank = at, rank
        return best


def _rank(before: bytes, row: bytes) -> tuple[int, int]:
    """How good a border is: the least indented line that opens something, best after an empty one."""
    text = row[1:].rstrip()
    stripped = text.lstrip()
    if not stripped or stripped[:1] in _CLOSERS:
        return (1_000, 1)
    return (len(text) - len(stripped), 0 if not before[1:].strip() else 1)


def rows_of(hunk: Hunk) -> list[bytes]:
    """The hunk's lines, each with its sign and its line feed."""
    rows: list[bytes] = []
    for row in _split(hunk.body):
        if row[:1] == b"\\" and rows:
            rows[-1] += row
        else:
            rows.append(row)
    return rows


def _split(body: bytes) -> Iterable[bytes]:
    rows = body.split(b"\n")
    rows.pop()
    return (row + b"\n" for row in rows)
