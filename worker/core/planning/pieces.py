"""Files → pieces that fit a unit: cut at hunk borders, and within a large hunk at a scope's border."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from worker.core.diff.model import FileDiff, Hunk
from worker.core.diff.split import cut_at
from worker.core.planning.rendering import opening_text, raw_header, raw_size, raw_sizes, rows_gain
from worker.core.planning.showing import is_plain
from worker.core.planning.tokens import Counter, Size, total

FULL_ENOUGH: Final = 0.85
"""A unit filled so far may be closed; one that is emptier takes a part of what comes next."""
SURELY_LARGE: Final = 4
"""Bytes for each token of a unit, above which text is counted in parts at once: hardly any fits whole."""
PARTIAL: Final = "part of this file's change; the other parts are reviewed separately"
_BORDER_SHARE: Final = 0.15
"""In this last share of a part a scope's border is looked for; further back, units would stay empty."""
_CLOSERS: Final = b"})]>"


@dataclass(frozen=True, slots=True)
class Piece:
    """What goes into a unit undivided: a whole file mostly, or a run of its hunks."""

    diff: FileDiff
    hunks: tuple[Hunk, ...]
    size: Size
    """With the header line and the note."""
    note: str = ""
    digest: str = ""
    """Of what it shows, where that is known already."""


@dataclass(frozen=True, slots=True)
class Part:
    """A run of lines of one hunk, with its size as it is shown."""

    hunk: Hunk
    size: Size


def opening_size(diff: FileDiff, note: str, count: Counter) -> Size:
    """Of a file's header line and note, whatever short id it gets."""
    return raw_size(opening_text("F1000", diff.path, note).encode("utf-8", "replace"), count)


def piece_of(diff: FileDiff, parts: Sequence[Part], note: str, count: Counter) -> Piece:
    size = opening_size(diff, note, count) + total(part.size for part in parts)
    return Piece(diff, tuple(part.hunk for part in parts), size, note)


def partial(note: str) -> str:
    """`note`, telling the model besides that it does not see the whole of the file's change."""
    if note.endswith(PARTIAL):
        return note
    return f"{note}; {PARTIAL}" if note else PARTIAL


def measured(hunks: Sequence[Hunk], count: Counter) -> list[Part]:
    """Every hunk whole, with its size."""
    return [Part(hunk, size) for hunk, size in zip(hunks, hunk_sizes(hunks, count), strict=True)]


def hunk_sizes(hunks: Sequence[Hunk], count: Counter) -> list[Size]:
    return [
        raw_size(raw_header(hunk) + hunk.body, count) + rows_gain(hunk.removed, hunk.new_start, hunk.new_lines)
        for hunk in hunks
    ]


def parts_of(hunks: Sequence[Hunk], limit: Size, count: Counter) -> Iterator[Part]:
    """Each of `hunks` whole if it fits `limit`, else cut into parts that do; a line that does not is a part by itself.

    Parts without a changed line are left out: they are context of lines that stand in another part.
    """
    # Above the limit a count of the whole would only be thrown away; the others are counted side by side.
    are_small = [len(hunk.body) <= limit.tokens * SURELY_LARGE for hunk in hunks]
    wholes = iter(measured([hunk for hunk, is_small in zip(hunks, are_small, strict=True) if is_small], count))
    for hunk, is_small in zip(hunks, are_small, strict=True):
        if is_small and (part := next(wholes)).size.fits(limit):
            yield part
        else:
            yield from _cut_up(hunk, limit, count)


def _cut_up(hunk: Hunk, limit: Size, count: Counter) -> list[Part]:
    ruler = _Ruler(hunk, count, block_bytes=max(200, limit.tokens // 10))
    cuts: list[int] = []
    sizes: list[Size] = []
    start = 0
    while start < len(hunk.body):
        start, size = ruler.fill(start, limit)
        cuts.append(start)
        sizes.append(size)
    return [Part(piece, size) for piece, size in zip(cut_at(hunk, cuts), sizes, strict=True) if piece.changed]


def divide(piece: Piece, room: Size, count: Counter) -> tuple[Piece, Piece] | None:
    """Cut `piece` so that the first fits `room` and is as large as can be; None when no change would be in it.

    At a hunk's border, or within the next hunk where the border would leave much of the room empty.
    """
    note = partial(piece.note)
    room -= opening_size(piece.diff, note, count)
    split = split_parts(measured(piece.hunks, count), room, count)
    return (piece_of(piece.diff, split[0], note, count), piece_of(piece.diff, split[1], note, count)) if split else None


def split_parts(parts: Sequence[Part], room: Size, count: Counter) -> tuple[list[Part], list[Part]] | None:
    """The parts that fit `room`, in order, and the rest, which is not empty; None when nothing fits."""
    left = room
    taken = 0
    while taken < len(parts) and parts[taken].size.fits(left):
        left -= parts[taken].size
        taken += 1
    if taken == len(parts):
        return None
    first, rest = list(parts[:taken]), list(parts[taken:])
    if left.tokens > room.tokens * (1 - FULL_ENOUGH) and (cut := _cut(rest[0].hunk, left, count)):
        first.append(cut[0])
        rest[0] = cut[1]
    return (first, rest) if first else None


def halve(hunk: Hunk, count: Counter) -> tuple[Part, ...]:
    """Two parts of `hunk`, cut near its middle; () when it has one line. Parts without a change are left out."""
    ruler = _Ruler(hunk, count, block_bytes=len(hunk.body))
    middle = ruler.middle()
    if middle is None:
        return ()
    return tuple(measured([piece for piece in cut_at(hunk, [middle]) if piece.changed], count))


def _cut(hunk: Hunk, room: Size, count: Counter) -> tuple[Part, Part] | None:
    if room.tokens <= 0:
        return None
    ruler = _Ruler(hunk, count, block_bytes=max(200, room.tokens // 10))
    at, size = ruler.fill(0, room)
    if not size.fits(room) or at >= len(hunk.body):
        return None
    first, second = cut_at(hunk, [at])
    if not (first.changed and second.changed):
        return None
    return Part(first, size), measured([second], count)[0]


class _Ruler:
    """Measures runs of one hunk's lines, by offsets into its body at which a line begins.

    Lines are counted in blocks, of which a part holds forty or so; single ones only in a block that is more
    than a part by itself. A `\\ No newline` row belongs to the line before it.
    """

    def __init__(self, hunk: Hunk, count: Counter, *, block_bytes: int) -> None:
        self._hunk = hunk
        self._body = hunk.body
        self._count = count
        self._is_plain = is_plain(hunk.body)
        # Counts of neighbours may be a token or two short of the whole.
        self._header = raw_size(raw_header(hunk), count) + Size(2)
        self._last_number = hunk.new_start + hunk.new_lines
        self._ends = self._blocks(block_bytes)
        starts = [0, *self._ends[:-1]]
        self._sizes = self._measured([self._body[start:end] for start, end in zip(starts, self._ends, strict=True)])

    def fill(self, start: int, limit: Size) -> tuple[int, Size]:
        """Where a part that begins at `start` ends to fit `limit`, and its size; it has one line at least."""
        used = self._header
        at = start
        block = bisect_right(self._ends, start)
        while block < len(self._ends):
            end = self._ends[block]
            is_whole = at == (self._ends[block - 1] if block else 0)
            more = self._sizes[block] if is_whole else self._measured([self._body[at:end]])[0]
            if not (used + more).fits(limit):
                break
            used += more
            at = end
            block += 1
        else:
            return at, used
        if at == start:
            # Not even one block fits: the lines of it that do, one at least.
            rows = self._rows(at, self._ends[block])
            for row, size in zip(rows, self._measured(rows), strict=True):
                if at > start and not (used + size).fits(limit):
                    break
                used += size
                at += len(row)
                if not used.fits(limit):
                    return at, used
        border = self._border(start, at)
        return border, used - self._measured([self._body[border:at]])[0] if border < at else used

    def middle(self) -> int | None:
        """The best border near the middle; None when there is only one line."""
        at = self._line_after(len(self._body) // 2)
        if at >= len(self._body):
            at = self._body.rfind(b"\n", 0, len(self._body) // 2) + 1
            while at and self._body[at : at + 1] == b"\\":
                at = self._body.rfind(b"\n", 0, at - 1) + 1
        return self._border(0, at) if at else None

    def _line_after(self, offset: int) -> int:
        """Where the first line begins at or after `offset`."""
        end = self._body.find(b"\n", max(0, offset - 1)) + 1 or len(self._body)
        while self._body[end : end + 1] == b"\\":
            end = self._body.find(b"\n", end) + 1 or len(self._body)
        return end

    def _blocks(self, block_bytes: int) -> list[int]:
        ends: list[int] = []
        end = 0
        while end < len(self._body):
            end = self._line_after(end + block_bytes)
            ends.append(end)
        return ends

    def _rows(self, start: int, end: int) -> list[bytes]:
        rows: list[bytes] = []
        for row in self._body[start:end].split(b"\n")[:-1]:
            if row[:1] == b"\\" and rows:
                rows[-1] += row + b"\n"
            else:
                rows.append(row + b"\n")
        return rows

    def _measured(self, texts: Sequence[bytes]) -> list[Size]:
        sizes = []
        for text, size in zip(texts, raw_sizes(texts, self._count, are_plain=self._is_plain), strict=True):
            removed = text.count(b"\n-") + text.startswith(b"-") if self._hunk.removed else 0
            # Which numbers the rows have is not known here: the last ones are the longest.
            sizes.append(size + rows_gain(removed, self._last_number, text.count(b"\n") - removed))
        return sizes

    def _border(self, start: int, end: int) -> int:
        """The best offset to begin the next part at, from the last lines of `start` … `end`."""
        if end >= len(self._body):
            return end
        lowest = int(end - (end - start) * _BORDER_SHARE)
        following = self._body.find(b"\n", end)
        rows = self._rows(self._line_after(max(start + 1, lowest)), end)
        best, best_rank = end, (1_001, 0)
        at = end
        row = self._body[end : following if following >= 0 else len(self._body)]
        for before in reversed(rows):
            rank = _rank(before, row)
            if rank < best_rank:
                best, best_rank = at, rank
                if rank == (0, 0):
                    break
            at -= len(before)
            row = before
        return best


def _rank(before: bytes, row: bytes) -> tuple[int, int]:
    """How good a border is: the least indented line that opens something, best after an empty one."""
    text = row[1:].rstrip()
    stripped = text.lstrip()
    if not stripped or stripped[:1] in _CLOSERS:
        return (1_000, 1)
    return (len(text) - len(stripped), 0 if not before[1:].strip() else 1)
