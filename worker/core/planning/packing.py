"""Pieces → units: full ones, with what belongs together in one of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from worker.core.planning.pieces import FULL_ENOUGH, Piece, divide
from worker.core.planning.tokens import Counter, Size, total

_LOOK_AHEAD: Final = 32
"""Groups that are tried for the rest of a unit; more would part neighbours for little."""
_WORTH_CUTTING: Final = 0.05
"""Share of a unit below which the start of a piece is not worth a cut."""


def pack(groups: Sequence[Sequence[Piece]], limit: Size, count: Counter) -> list[list[Piece]]:
    """Fill units of at most `limit` with groups of pieces, each of which fits by itself.

    A group stays whole where a unit comes out full enough; else it is parted, and at last a piece is cut.
    """
    pending = deque((list(group), total(piece.size for piece in group)) for group in groups)
    units: list[list[Piece]] = []
    while pending:
        unit: list[Piece] = []
        room = limit
        while pending and (found := _next_that_fits(pending, room)) is not None:
            group, size = pending[found]
            del pending[found]
            unit += group
            room -= size
        if pending and room.tokens > limit.tokens * (1 - FULL_ENOUGH):
            chosen = _to_part(pending)
            group, _ = pending[chosen]
            del pending[chosen]
            rest = _fill(unit, group, room, limit, count)
            if rest:
                pending.appendleft((rest, total(piece.size for piece in rest)))
        units.append(unit)
    return units


def _next_that_fits(pending: deque[tuple[list[Piece], Size]], room: Size) -> int | None:
    for index in range(min(len(pending), _LOOK_AHEAD)):
        if pending[index][1].fits(room):
            return index
    return None


def _to_part(pending: deque[tuple[list[Piece], Size]]) -> int:
    """A file that stands alone is cut rather than a group."""
    for index in range(min(len(pending), _LOOK_AHEAD)):
        if len(pending[index][0]) == 1:
            return index
    return 0


def _fill(unit: list[Piece], group: list[Piece], room: Size, limit: Size, count: Counter) -> list[Piece]:
    """Put into `unit` what fits of `group`, cutting one piece if need be; returns the rest."""
    rest = list(group)
    while rest and rest[0].size.fits(room):
        room -= rest[0].size
        unit.append(rest.pop(0))
    if not rest or (unit and room.tokens <= limit.tokens * (1 - FULL_ENOUGH)):
        return rest
    cut = divide(rest[0], room, count)
    if cut and (not unit or cut[0].size.tokens >= limit.tokens * _WORTH_CUTTING):
        unit.append(cut[0])
        rest[0] = cut[1]
    elif not unit:
        # Cannot be made to fit, and must not be lost: it is a unit by itself.
        unit.append(rest.pop(0))
    return rest
