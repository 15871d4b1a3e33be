"""Files → units: small ones packed, large ones cut, and lines that no request can hold named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple

from worker.core.diff.model import FileDiff, Hunk
from worker.core.ledger import NotReviewed
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


class _Whole(NamedTuple):
    """A file whose size is not known yet."""

    diff: FileDiff
    hunks: tuple[Hunk, ...]
    note: str
    digest: str


class Units:
    """Built once for a plan; `too_long` has what could not be put into any unit."""

    def __init__(self, limit: Size, fixed: Size, budget: Budget, count: Counter) -> None:
        self._limit = limit
        self._fixed = fixed
        self._budget = budget
        self._count = count
        self._full: list[list[Piece]] = []
        """Units of files that are larger than a unit; their last parts join the small files."""
        self.too_long: list[NotReviewed] = []

    def of(self, files: Sequence[FileDiff], skipped: Mapping[int, str], digests: Sequence[str]) -> list[list[Piece]]:
        """Units in the order in which they are sent; the parts of a file stand in order.

        `skipped` maps indices to reasons; such a file still gets a line where more than lines happened to it.
        """
        small: list[Piece] = []
        for batch in self._batches(files, skipped, digests):
            small.extend(self._measured(batch))
        if total(piece.size for piece in small).fits(self._limit):
            return self._full + ([small] if small else [])
        groups = clusters([piece.diff for piece in small], [it.size.tokens for it in small], self._limit.tokens)
        return self._full + pack([[small[index] for index in group] for group in groups], self._limit, self._count)

    def _batches(
        self, files: Sequence[FileDiff], skipped: Mapping[int, str], digests: Sequence[str]
    ) -> Iterator[list[_Whole]]:
        batch: list[_Whole] = []
        batch_bytes = 0
        for index, file in enumerate(files):
            reason = skipped.get(index)
            told = note(file, reason=reason)
            if reason is None:
                batch.append(_Whole(file, file.hunks, told, digests[index]))
                batch_bytes += sum([len(hunk.body) for hunk in file.hunks])
            elif told:
                batch.append(_Whole(file, (), told, ""))
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
        self.too_long.append(NotReviewed(file.path, reason, lines))


def _text(whole: _Whole) -> bytes:
    opening = opening_text("F1000", whole.diff.path, whole.note).encode("utf-8", "replace")
    return b"".join([opening, *(part for hunk in whole.hunks for part in (raw_header(hunk), hunk.body))])


def _readable(size: int) -> str:
    return f"{size / 1_000_000:.1f} MB" if size >= 100_000 else f"{size / 1_000:.1f} kB"
