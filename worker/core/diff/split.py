"""One hunk → smaller hunks, each with a correct header of its own; lines are counted in C, not touched one by one."""

from __future__ import annotations

from collections.abc import Sequence

from worker.core.diff.model import Hunk


def cut_at(hunk: Hunk, offsets: Sequence[int]) -> tuple[Hunk, ...]:
    """Cut `hunk` at ascending `offsets` into its body, each the start of a line; the body's end may be one of them.

    A `\\ No newline` row belongs to the line before it. The bodies of the pieces, put together, are `hunk.body`.
    """
    # git writes the number of the line before where a side has no line, so the count starts one later.
    old = hunk.old_start + (hunk.old_lines == 0)
    new = hunk.new_start + (hunk.new_lines == 0)
    # What the hunk has none of is not looked for in its pieces.
    has_notes = hunk.body.count(b"\n") != hunk.added + hunk.old_lines
    pieces = []
    start = 0
    for end in [*(offset for offset in offsets if offset < len(hunk.body)), len(hunk.body)]:
        body = hunk.body[start:end]
        rows = body.count(b"\n") - (body.count(b"\n\\") if has_notes else 0)
        removed = _beginning_with(b"-", body) if hunk.removed else 0
        added = _beginning_with(b"+", body) if hunk.old_lines else rows
        context = rows - added - removed
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
        start = end
    return tuple(pieces)


def _beginning_with(sign: bytes, body: bytes) -> int:
    return body.count(b"\n" + sign) + body.startswith(sign)
