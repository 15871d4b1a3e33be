"""Images of a change that may be shown to a model: what a file's bytes prove, whatever its name says.

PNG, JPEG and WebP alone; SVG is text that may hold anything, and models take none.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from worker.core.diff.model import FileDiff

MOST_IMAGES: Final = 4
MAX_BYTES: Final = 500_000
MAX_TOTAL_BYTES: Final = 1_200_000
"""A third more in base64; Kimi's Code Plan takes messages of 2 MiB in all."""
MAX_PIXELS: Final = 4_000_000
MAX_SIDE: Final = 8_000
TOKENS: Final = 6_000
"""The most that one image takes. Of the vendors that say so the dearest asks a token for 750 pixels (Anthropic), Kimi's
encoder one for 28 × 28; 4,000,000 pixels are 5,334 then. The rest is for the image's name in the text."""
_LONGEST_PATH: Final = 300

_NAME: Final = re.compile(r"\.(?:png|jpe?g|webp)$", re.IGNORECASE)
_REGULAR_MODES: Final = ("100644", "100755")
_PNG: Final = b"\x89PNG\r\n\x1a\n"
# https://www.w3.org/Graphics/JPEG/itu-t81.pdf table B.1: every start of frame but DHT, JPG and DAC.
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class Image:
    """One image at the head of the change."""

    path: str
    media_type: str
    data: bytes = field(repr=False)


def candidates(files: Iterable[FileDiff]) -> list[str]:
    """Paths that may hold an image to show: named like one, binary in the diff, and there at the head."""
    return [
        file.path
        for file in files
        if file.is_binary
        and file.new_path is not None
        and (file.new_mode or "100644") in _REGULAR_MODES
        and _NAME.search(file.path)
        and len(file.raw_path) <= _LONGEST_PATH
    ]


def image_of(path: str, data: bytes) -> Image | None:
    """The image that `data` is; None for what is none, is too large in bytes or pixels, or is cut off."""
    if len(data) > MAX_BYTES:
        return None
    for media_type, size in (("image/png", _png(data)), ("image/jpeg", _jpeg(data)), ("image/webp", _webp(data))):
        if size is not None:
            width, height = size
            is_fit = 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS
            return Image(path, media_type, data) if is_fit else None
    return None


def within_limits(images: Iterable[Image]) -> Iterator[Image]:
    """The first ones, as many as one request may carry."""
    number = size = 0
    for image in images:
        if number < MOST_IMAGES and size + len(image.data) <= MAX_TOTAL_BYTES:
            number += 1
            size += len(image.data)
            yield image


def _png(data: bytes) -> tuple[int, int] | None:
    """https://www.w3.org/TR/png-3/#11IHDR"""
    if not data.startswith(_PNG) or data[12:16] != b"IHDR" or len(data) < 24:
        return None
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _jpeg(data: bytes) -> tuple[int, int] | None:
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _FRAMES:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        if length < 2:
            return None
        at += 2 + length
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    """https://developers.google.com/speed/webp/docs/riff_container"""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if data[12:16] == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return None
