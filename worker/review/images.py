"""Read the changed images of a snapshot, for a model that is shown them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import structlog

from worker.core.diff.model import FileDiff
from worker.core.errors import ReviewError
from worker.core.images import MAX_BYTES, Image, candidates, image_of
from worker.ports import Tree

log = structlog.get_logger()

MOST_READ: Final = 16
"""Files that are looked into; those that are no image, or too large, leave room for the next ones."""


async def read_images(tree: Tree | None, head: str, files: Iterable[FileDiff]) -> list[Image]:
    """In the order of `files`; what cannot be read is done without, as all images are by default."""
    images: list[Image] = []
    if tree is None:
        return images
    for path in candidates(files)[:MOST_READ]:
        try:
            data = await tree.read(path, revision=head, limit_bytes=MAX_BYTES)
        except ReviewError as error:
            log.warning("image.unread", error=str(error))
            break
        if data is not None and (image := image_of(path, data)) is not None:
            images.append(image)
    return images
