"""Files → units: small ones packed, large ones cut, and lines that no request can hold named."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from worker.core.diff.model import FileDiff, Hunk
from worker.core.ledger import NO_LINES, NotReviewed
from worker.core.model_info import Budget
from worker.core.planning.grouping import clusters
from worker.core.planning.notes import note
from worker.core.planning.packing import pack
from worker.core.planning.pieces import (
    MAY_FIT,
    Part,
    Piece,
    Ruler,
    measured_or_ruled,
    opening_size,
    partial,
    parts_of,
    piece_of,
    split_parts,
)
from worker.core.planning.rendering import hunks_gain, opening_text, raw_header, raw_sizes
from worker.core.planning.tokens import Counter, Size, total

_BATCH_BYTES: Final = 8_000_000
"""Files are counted together up to so much: side by side, and without holding a second copy of the diff."""
_NOTES_SHARE: Final = 0.1
"""Of a unit, for files that are renamed, made executable or emptied and have no line to show."""


class _Whole(NamedTuple):
    """A file whose size is not known yet."""

    diff: FileDiff
    hunks: tuple[Hunk, ...]
    note: str
    digest: str


class Units:
    """Built once for a plan; `left_out` has what could not be put into any unit."""

    def __init__(self, limit: Size, fixed: Size, budget: Budget, count: Counter) -> None:
        self._limit = limit
        self._fixed = fixed
        self._budget = budget
        self._count = count
        self._full: list[list[Piece]] = []
        """Units of files that are larger than a unit; their last parts join the small files."""
        self.left_out: list[NotReviewed] = []

    def of(self, files: Sequence[FileDiff], skipped: Container[int], digests: Sequence[str]) -> list[list[Piece]]:
        """Units in the order in which they are sent; the parts of a file stand in order.

        Each has a changed line at least, since a request is paid for lines: files of the indices `skipped` are in none,
        and those that have no lines are told in units that are sent anyway, as far as their share goes. The map of the
        change tells of all.
        """
        small: list[Piece] = []
        without_lines: list[Piece] = []
        for batch in self._batches(files, skipped, digests):
            for piece in self._measured(batch):
                (small if piece.hunks else without_lines).append(piece)
        units = self._full + self._packed(small)
        self._tell(without_lines, units)
        return units

    def _packed(self, small: Sequence[Piece]) -> list[list[Piece]]:
        if total(piece.size for piece in small).fits(self._limit):
            return [list(small)] if small else []
        groups = clusters([piece.diff for piece in small], [it.size.tokens for it in small], self._limit.tokens)
        return pack([[small[index] for index in group] for group in groups], self._limit, self._count)

    def _tell(self, pieces: Sequence[Piece], units: Sequence[list[Piece]]) -> None:
        """Put `pieces`, which have no lines, where `units` have room; those that find none are left out."""
        waiting = deque(pieces)
        share = Size(int(self._limit.tokens * _NOTES_SHARE), int(self._limit.bytes * _NOTES_SHARE))
        for unit in units:
            room = self._limit - total(piece.size for piece in unit)
            room = Size(min(room.tokens, share.tokens), min(room.bytes, share.bytes))
            while waiting and waiting[0].size.fits(room):
                room -= waiting[0].size
                unit.append(waiting.popleft())
        for piece in waiting:
            self._leave_out(piece.diff, NO_LINES, 0)

    def _batches(
        self, files: Sequence[FileDiff], skipped: Container[int], digests: Sequence[str]
    ) -> Iterator[list[_Whole]]:
        batch: list[_Whole] = []
        batch_bytes = 0
        for index, file in enumerate(files):
            if index in skipped:
                continue
            batch.append(_Whole(file, file.hunks, note(file), digests[index]))
            batch_bytes += sum([len(hunk.body) for hunk in file.hunks])
            if batch_bytes > _BATCH_BYTES:
                yield batch
                batch, batch_bytes = [], 0
        yield batch

    def _measured(self, batch: Sequence[_Whole]) -> Iterator[Piece]:
        """The batch's files that fit a unit, with their sizes, and the last parts of those that do not."""
        most = self._limit.tokens * MAY_FIT
        is_large = [sum([len(hunk.body) for hunk in whole.hunks]) > most for whole in batch]
        sizes = iter(
            raw_sizes([_text(it) for it, large in zip(batch, is_large, strict=True) if not large], self._count)
        )
        hunks = [hunk for whole, large in zip(batch, is_large, strict=True) if large for hunk in whole.hunks]
        ruled = iter(measured_or_ruled(hunks, self._limit, self._count))
        for whole, large in zip(batch, is_large, strict=True):
            if large:
                yield from self._cut(whole, list(islice(ruled, len(whole.hunks))))
                continue
            size = next(sizes) + hunks_gain(whole.hunks)
            if size.fits(self._limit):
                yield Piece(whole.diff, whole.hunks, size, whole.note, whole.digest)
            else:
                yield from self._cut(whole, measured_or_ruled(whole.hunks, self._limit, self._count))

    def _cut(self, whole: _Whole, hunks: Sequence[Part | Ruler]) -> list[Piece]:
        """Full units of a file that is larger than one; returns what is left of it as a piece.

        `hunks` are the file's.
        """
        told = partial(whole.note)
        opening = opening_size(whole.diff, told, self._count)
        if not self._can_be_sent(opening):
            self._leave_out(whole.diff, "its path is too long", sum(hunk.changed for hunk in whole.hunks))
            return []
        room = self._limit - opening
        run: list[Part] = []
        for part in parts_of(hunks, room, self._count):
            if part.size.fits(room):
                run.append(part)
                continue
            # One line larger than a unit: alone in a request, if any request can hold it.
            self._full.extend([full] for full in self._pieces(whole.diff, told, run, room))
            run = []
            if self._can_be_sent(opening + part.size):
                self._full.append([piece_of(whole.diff, [part], told, self._count)])
            else:
                length = _readable(len(part.hunk.body))
                self._leave_out(whole.diff, f"line of {length} exceeds the window", part.hunk.changed)
        if tuple(part.hunk for part in run) == whole.hunks and total(part.size for part in run).fits(room):
            return [piece_of(whole.diff, run, whole.note, self._count)]
        pieces = self._pieces(whole.diff, told, run, room)
        self._full.extend([full] for full in pieces[:-1])
        return pieces[-1:]

    def _pieces(self, diff: FileDiff, told: str, run: Sequence[Part], room: Size) -> list[Piece]:
        """Pieces that fill a unit each, but for the last one."""
        pieces: list[Piece] = []
        rest = list(run)
        while rest:
            split = split_parts(rest, room, self._count)
            first, rest = split or (rest, [])
            pieces.append(piece_of(diff, first, told, self._count))
        return pieces

    def _can_be_sent(self, size: Size) -> bool:
        return (self._fixed + size).bound(self._budget.token_factor) <= self._budget.input_tokens

    def _leave_out(self, file: FileDiff, reason: str, lines: int) -> None:
        self.left_out.append(NotReviewed(file.path, reason, lines))


def _text(whole: _Whole) -> bytes:
    opening = opening_text("F1000", whole.diff.path, whole.note).encode("utf-8", "replace")
    return b"".join([opening, *(part for hunk in whole.hunks for part in (raw_header(hunk), hunk.body))])


def _readable(size: int) -> str:
    return f"{size / 1_000_000:.1f} MB" if size >= 100_000 else f"{size / 1_000:.1f} kB"
