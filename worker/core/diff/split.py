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
    pieces = []
    start = 0
    for end in [*(offset for offset in offsets if offset < len(hunk.body)), len(hunk.body)]:
        body = hunk.body[start:end]
        added = body.count(b"\n+") + (body[:1] == b"+")
        removed = body.count(b"\n-") + (body[:1] == b"-")
        notes = body.count(b"\n\\")
        context = body.count(b"\n") - added - removed - notes
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
