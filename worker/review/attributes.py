"""What the base branch says of the changed files in its `.gitattributes`, those of their folders included."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from posixpath import dirname
from typing import Final

import structlog

from worker.core.errors import BadInput
from worker.core.planning.globs import Attributes
from worker.ports import Tree

log = structlog.get_logger()

LIMIT_BYTES: Final = 200_000
MOST_FOLDERS: Final = 64
"""Looked into for one change: the upper ones first, then those with the most changed files."""


async def attributes_of_base(tree: Tree | None, base: str, paths: Sequence[str]) -> Attributes:
    """The marks for `paths`; a deeper file outranks one above it, as in git (gitattributes(5)).

    Only the base's count: the head's would let a change excuse itself. Empty without a `tree`, as for a diff
    that came without its repository.
    """
    if tree is None or not base:
        return Attributes()
    folders = folders_of(paths)
    if len(folders) > MOST_FOLDERS:
        log.info("attributes.cut_short", folders=len(folders), read=MOST_FOLDERS)
    chosen = folders[:MOST_FOLDERS]
    names = (f"{folder}/.gitattributes" if folder else ".gitattributes" for folder in chosen)
    try:
        texts = await asyncio.gather(*(tree.read(name, revision=base, limit_bytes=LIMIT_BYTES) for name in names))
    except BadInput as error:
        # A partial clone that has the change's blobs may lack these; without marks more is reviewed, not less.
        log.warning("attributes.unread", error=str(error))
        return Attributes()
    found = (Attributes.parse(text, folder=folder) for folder, text in zip(chosen, texts, strict=True) if text)
    return Attributes(tuple(line for attributes in found for line in attributes.lines))


def folders_of(paths: Iterable[str]) -> list[str]:
    """Every folder above any of `paths`, the root ("") first, then by depth."""
    files: Counter[str] = Counter({"": 0})
    for path in paths:
        while path := dirname(path):
            files[path] += 1
    return sorted(files, key=lambda folder: (folder.count("/") + bool(folder), -files[folder], folder))
