"""Units are filled and never overfilled, and no piece is lost or doubled on the way into them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.changes import new_file
from worker.core.planning.packing import pack
from worker.core.planning.pieces import Piece, measured, piece_of
from worker.core.planning.tokens import Size, total
from worker.providers.tokens import o200k_counter

COUNT = o200k_counter()
LIMIT = Size(200, 20_000)
ROW = b"value = compute(value, 1)"


def piece(name: str, lines: int) -> Piece:
    file = new_file(f"{name}.py", [ROW] * lines)
    return piece_of(file, measured(file.hunks, COUNT), "", COUNT)


def rows(unit: list[Piece]) -> list[tuple[str, int]]:
    return [
        (piece.diff.path, line.new_number or 0)
        for piece in unit
        for hunk in piece.hunks
        for line in hunk.lines()
        if line.sign == "+"
    ]


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(1, 15), min_size=1, max_size=8), min_size=1, max_size=6))
def test_no_unit_is_larger_than_its_limit_and_every_line_is_in_one_of_them(groups: list[list[int]]) -> None:
    given_pieces = [
        [piece(f"g{group}/f{file}", lines) for file, lines in enumerate(files)] for group, files in enumerate(groups)
    ]
    units = pack(given_pieces, LIMIT, COUNT)
    assert all(total(piece.size for piece in unit).fits(LIMIT) for unit in units)
    assert sorted(row for unit in units for row in rows(unit)) == sorted(
        row for group in given_pieces for row in rows(group)
    )


def test_a_group_larger_than_a_unit_is_parted_between_its_files_and_its_parts_are_full() -> None:
    group = [piece(f"f{number}", 6) for number in range(8)]
    size = group[0].size.tokens
    limit = Size(3 * size + size // 3, 20_000)
    units = pack([group], limit, COUNT)
    assert all(total(piece.size for piece in unit).fits(limit) for unit in units)
    assert [piece.diff.path for piece in units[0]][:3] == ["f0.py", "f1.py", "f2.py"]
    assert len(units) == 3


def test_a_piece_that_nothing_can_make_fit_goes_alone() -> None:
    small, large = piece("small", 1), piece("large", 1)
    units = pack([[large], [small]], Size(1, 20_000), COUNT)
    assert [[piece.diff.path for piece in unit] for unit in units] == [["large.py"], ["small.py"]]
