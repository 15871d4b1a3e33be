"""Files → pieces that fit a unit: cut at hunk borders, and within a large hunk at a scope's border."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from worker.core.diff.model import FileDiff, Hunk
from worker.core.diff.split import cut_at
from worker.core.planning.rendering import hunks_gain, opening_text, raw_header, raw_size, raw_sizes, rows_gain
from worker.core.planning.tokens import Counter, Size, total

FULL_ENOUGH: Final = 0.85
"""A unit filled so far may be closed; one that is emptier takes a part of what comes next."""
MAY_FIT: Final = 3
"""Bytes for each token of a unit up to which text is counted whole; longer text, which has to be cut as a rule, is
counted by blocks at once, so that nothing is counted twice."""
PARTIAL: Final = "part of this file's change; the other parts are reviewed separately"
_BORDER_SHARE: Final = 0.15
"""In this last share of a part a scope's border is looked for; further back, units would stay empty."""
_BLOCKS: Final = 40
"""Of a unit of code, more or less: lines are counted in blocks, and single ones only where a block does not fit."""
_LEAST_BLOCK_BYTES: Final = 200
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
    sizes = raw_sizes([raw_header(hunk) + hunk.body for hunk in hunks], count)
    return [Part(hunk, size + hunks_gain([hunk])) for hunk, size in zip(hunks, sizes, strict=True)]


def measured_or_ruled(hunks: Sequence[Hunk], limit: Size, count: Counter) -> list[Part | Ruler]:
    """Every hunk with its size, or a ruler for it where it is unlikely to fit `limit`; all counted side by side."""
    are_large = [len(hunk.body) > limit.tokens * MAY_FIT for hunk in hunks]
    wholes = iter(measured([hunk for hunk, large in zip(hunks, are_large, strict=True) if not large], count))
    ruled = iter(rulers([hunk for hunk, large in zip(hunks, are_large, strict=True) if large], limit, count))
    return [next(ruled) if large else next(wholes) for large in are_large]


def parts_of(hunks: Iterable[Part | Ruler], limit: Size, count: Counter) -> Iterator[Part]:
    """Each hunk whole if it fits `limit`, else cut into parts that do; a line that does not is a part by itself.

    Parts without a changed line are left out: they are context of lines that stand in another part.
    """
    for it in hunks:
        if isinstance(it, Ruler):
            yield from it.parts(limit)
        elif it.size.fits(limit):
            yield it
        else:
            yield from rulers([it.hunk], limit, count)[0].parts(limit)


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
    middle = _middle(hunk.body)
    if middle is None:
        return ()
    return tuple(measured([piece for piece in cut_at(hunk, [middle]) if piece.changed], count))


def _cut(hunk: Hunk, room: Size, count: Counter) -> tuple[Part, Part] | None:
    if room.tokens <= 0:
        return None
    ruler = rulers([hunk], room, count)[0]
    at, size = ruler.take(room)
    if not size.fits(room) or at >= len(hunk.body):
        return None
    first, second = cut_at(hunk, [at])
    if not (first.changed and second.changed):
        return None
    return Part(first, size), Part(second, ruler.rest())


# -------------------------------------------------------------------------------- within one hunk


@dataclass(frozen=True, slots=True)
class _Block:
    """Consecutive lines of a hunk, or what several of them add up to."""

    length: int
    """Bytes of the hunk's body."""
    size: Size
    """As text, without what the rows gain when they are shown."""
    removed: int
    numbered: int
    """Lines that are shown with a number: all others."""


def _added_up(blocks: Sequence[_Block]) -> _Block:
    return _Block(
        sum([block.length for block in blocks]),
        total(block.size for block in blocks),
        sum([block.removed for block in blocks]),
        sum([block.numbered for block in blocks]),
    )


def rulers(hunks: Sequence[Hunk], limit: Size, count: Counter) -> list[Ruler]:
    """A ruler for each of `hunks`, to cut parts of about `limit` from; all counted side by side."""
    block_bytes = max(_LEAST_BLOCK_BYTES, limit.tokens * 4 // _BLOCKS)
    texts = [_in_blocks(hunk.body, block_bytes) for hunk in hunks]
    headers = raw_sizes([raw_header(hunk) for hunk in hunks], count)
    sizes = iter(raw_sizes([text for blocks in texts for text in blocks], count))
    return [
        Ruler(hunk, header, _measured_blocks(hunk, blocks, list(islice(sizes, len(blocks)))), count)
        for hunk, header, blocks in zip(hunks, headers, texts, strict=True)
    ]


class Ruler:
    """Takes runs of lines from the beginning of one hunk on, each as long as may be."""

    def __init__(self, hunk: Hunk, header: Size, blocks: Sequence[_Block], count: Counter) -> None:
        self._hunk = hunk
        self._count = count
        # The numbers of a part may have more digits than the hunk's own.
        self._header = header + Size(2)
        self._left = list(reversed(blocks))
        self._at = 0
        self._number = hunk.new_start

    def parts(self, limit: Size) -> list[Part]:
        """What is left in parts that fit `limit`, those without a changed line left out."""
        cuts: list[int] = []
        sizes: list[Size] = []
        while self._left:
            end, size = self.take(limit)
            cuts.append(end)
            sizes.append(size)
        return [Part(piece, size) for piece, size in zip(cut_at(self._hunk, cuts), sizes, strict=True) if piece.changed]

    def take(self, limit: Size) -> tuple[int, Size]:
        """Where in the body a part that fits `limit` ends, and its size; it has one line at least."""
        taken = self._that_fit(limit)
        if not taken:
            if self._opened():
                return self.take(limit)
            taken = [self._left.pop()]
        elif self._left:
            end = self._at + sum(block.length for block in taken)
            self._give_back(taken, end - _border(self._hunk.body, self._at, end))
        run = _added_up(taken)
        size = self._size(run)
        self._at += run.length
        self._number += run.numbered
        return self._at, size

    def rest(self) -> Size:
        """The size of all that is left, as one part."""
        return self._size(_added_up(self._left))

    def _size(self, run: _Block) -> Size:
        return self._header + run.size + Size(*rows_gain(run.removed, self._number, run.numbered))

    def _that_fit(self, limit: Size) -> list[_Block]:
        """The next blocks, as many as `limit` holds together, taken out of what is left."""
        room = limit - self._header
        tokens = size_bytes = removed = numbered = taken = 0
        for block in reversed(self._left):
            tokens += block.size.tokens
            size_bytes += block.size.bytes
            removed += block.removed
            numbered += block.numbered
            gain_tokens, gain_bytes = rows_gain(removed, self._number, numbered)
            if tokens + gain_tokens > room.tokens or size_bytes + gain_bytes > room.bytes:
                break
            taken += 1
        return [self._left.pop() for _ in range(taken)]

    def _opened(self) -> bool:
        """Put single lines in the place of the next block; False when it is one already."""
        rows = _rows(self._hunk.body[self._at : self._at + self._left[-1].length])
        if len(rows) == 1:
            return False
        self._left.pop()
        self._left.extend(reversed(self._blocks(rows)))
        return True

    def _give_back(self, taken: list[_Block], length: int) -> None:
        """Move the last `length` bytes of `taken`, which begin with a line, back to what is left."""
        end = self._at + sum(block.length for block in taken)
        while length:
            block = taken.pop()
            start = end - block.length
            if block.length > length:
                cut = end - length
                kept, block = self._blocks([self._hunk.body[start:cut], self._hunk.body[cut:end]])
                taken.append(kept)
            self._left.append(block)
            length -= block.length
            end = start

    def _blocks(self, texts: Sequence[bytes]) -> list[_Block]:
        return _measured_blocks(self._hunk, texts, raw_sizes(texts, self._count))


def _measured_blocks(hunk: Hunk, texts: Sequence[bytes], sizes: Sequence[Size]) -> list[_Block]:
    blocks = []
    for text, size in zip(texts, sizes, strict=True):
        removed = text.count(b"\n-") + text.startswith(b"-") if hunk.removed else 0
        blocks.append(_Block(len(text), size, removed, text.count(b"\n") - removed))
    return blocks


def _in_blocks(body: bytes, block_bytes: int) -> list[bytes]:
    """`body` in runs of whole lines, each of about `block_bytes`."""
    blocks = []
    start = 0
    while start < len(body):
        end = _line_after(body, start + block_bytes)
        blocks.append(body[start:end])
        start = end
    return blocks


def _line_after(body: bytes, offset: int) -> int:
    """Where the first line begins at or after `offset`; a `\\ No newline` row belongs to the line before it."""
    end = body.find(b"\n", max(0, offset - 1)) + 1 or len(body)
    while body[end : end + 1] == b"\\":
        end = body.find(b"\n", end) + 1 or len(body)
    return end


def _rows(text: bytes) -> list[bytes]:
    """The lines of `text`, each with the `\\ No newline` row after it."""
    rows: list[bytes] = []
    for row in text.split(b"\n")[:-1]:
        if row[:1] == b"\\" and rows:
            rows[-1] += row + b"\n"
        else:
            rows.append(row + b"\n")
    return rows


def _middle(body: bytes) -> int | None:
    """The best border near the middle; None when there is only one line."""
    at = _line_after(body, len(body) // 2)
    if at >= len(body):
        at = body.rfind(b"\n", 0, len(body) // 2) + 1
        while at and body[at : at + 1] == b"\\":
            at = body.rfind(b"\n", 0, at - 1) + 1
    return _border(body, 0, at) if at else None


def _border(body: bytes, start: int, end: int) -> int:
    """The best offset to begin the next part at, from the last lines of `start` … `end`."""
    if end >= len(body):
        return end
    lowest = int(end - (end - start) * _BORDER_SHARE)
    following = body.find(b"\n", end)
    rows = _rows(body[_line_after(body, max(start + 1, lowest)) : end])
    best, best_rank = end, (1_001, 0)
    at = end
    row = body[end : following if following >= 0 else len(body)]
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
