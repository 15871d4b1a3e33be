"""Whether a suggested text can take the place of the lines it is anchored to."""

from __future__ import annotations

from collections.abc import Iterable

from worker.core.diff.model import Hunk
from worker.core.finding import Anchor


def is_applicable(suggestion: str, anchor: Anchor, hunks: Iterable[Hunk]) -> bool:
    """Whether applying it replaces exactly `start_line..line` of the new file, and changes something.

    The lines stand in one hunk with no removed line between them: the reader would see that one go as well,
    while the forge leaves it alone. https://docs.github.com/en/pull-requests (suggested changes)
    """
    if anchor.side != "RIGHT" or not anchor.start_line <= anchor.line:
        return False
    for hunk in hunks:
        rows = list(hunk.lines())
        at = {row.new_number: index for index, row in enumerate(rows) if row.new_number is not None}
        if anchor.start_line in at and anchor.line in at:
            replaced = rows[at[anchor.start_line] : at[anchor.line] + 1]
            now = b"\n".join(row.text for row in replaced)
            said = suggestion.removesuffix("\n").encode("utf-8", "surrogatepass")
            return all(row.sign != "-" for row in replaced) and said != now
    return False
