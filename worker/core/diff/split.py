"""One hunk → smaller hunks, each with a correct header of its own."""

from __future__ import annotations

from collections.abc import Sequence

from worker.core.diff.model import Hunk


def split_hunk(hunk: Hunk, at: Sequence[int]) -> tuple[Hunk, ...]:
    """Cut `hunk` before each line whose index (from 0, as `hunk.lines()` yields them) is in `at`.

    A `\\ No newline` row belongs to the line before it. Indices outside 1 … number of lines - 1 and
    repeated ones make no piece. The bodies of the pieces, put together, are `hunk.body`.
    """
    rows = hunk.body.split(b"\n")
    rows.pop()
    starts = _row_of_line(rows, at)
    if not starts:
        return (hunk,)
    # git writes the number of the line before where a side has no line, so the count starts one later.
    old = hunk.old_start + (hunk.old_lines == 0)
    new = hunk.new_start + (hunk.new_lines == 0)
    pieces = []
    for start, end in zip([0, *starts], [*starts, len(rows)], strict=True):
        body = b"\n".join(rows[start:end]) + b"\n"
        marked = b"\n" + body
        added, removed = marked.count(b"\n+"), marked.count(b"\n-")
        context = end - start - added - removed - marked.count(b"\n\\")
        old_lines, new_lines = context + removed, context + added
        pieces.append(
            Hunk(
                old - (old_lines == 0),
                old_lines,
                new - (new_lines == 0),
                new_lines,
                hunk.section,
                body,
                added,
                removed,
            )
        )
        old += old_lines
        new += new_lines
    return tuple(pieces)


def _row_of_line(rows: list[bytes], at: Sequence[int]) -> list[int]:
    """Indices of lines → indices of rows, sorted; they differ by the `\\ No newline` rows before."""
    notes = [index for index, row in enumerate(rows) if row.startswith(b"\\")]
    lines = len(rows) - len(notes)
    starts = []
    for line in sorted(set(at)):
        if 0 < line < lines:
            row = line
            for note in notes:
                if note <= row:
                    row += 1
            starts.append(row)
    return starts
