"""Which changed scripts were built, by what they were at the base: a change may touch no row that says so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import structlog

from worker.core.diff.model import FileDiff
from worker.core.errors import ReviewError
from worker.core.planning.built import looks_built
from worker.core.planning.places import is_built_place
from worker.ports import Tree

log = structlog.get_logger()

MOST_READ: Final = 32
"""Files, those with the most changed lines first: they cost most."""
LEAST_CHANGED: Final = 20
"""Of fewer changed lines a file is reviewed whatever it is, unless the diff itself tells."""
LIMIT_BYTES: Final = 5_000_000


async def built_at_base(tree: Tree | None, base: str, files: Iterable[FileDiff]) -> frozenset[str]:
    """Paths of `files` whose former text was built. Nothing of the head counts: it would let a change excuse itself."""
    if tree is None or not base:
        return frozenset()
    candidates = [
        file for file in files if file.old_path and file.changed >= LEAST_CHANGED and is_built_place(file.path)
    ]
    candidates.sort(key=lambda file: file.changed, reverse=True)
    found = set()
    for file in candidates[:MOST_READ]:
        former = (file.old_path or b"").decode("utf-8", "surrogateescape")
        try:
            text = await tree.read(former, revision=base, limit_bytes=LIMIT_BYTES)
        except ReviewError as error:
            # What is not known to be built is reviewed.
            log.warning("built.unread", error=str(error))
            break
        # A file that was somewhere else before says nothing of this place.
        if text is not None and is_built_place(former) and looks_built(text):
            found.add(file.path)
    return frozenset(found)
