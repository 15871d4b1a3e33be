"""What a file's bytes prove about an image, and what is too much to show."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.diff.parse import parse_diff
from worker.core.images import MAX_BYTES, MAX_TOTAL_BYTES, MOST_IMAGES, Image, candidates, image_of, within_limits


def png(width: int = 2, height: int = 3) -> bytes:
    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"".join(b"\0" + b"\xff\0\0" * width for _ in range(height)))
    head = part(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + part(b"IDAT", rows) + part(b"IEND", b"")


def jpeg(width: int, height: int) -> bytes:
    frame = b"\xff\xc2\x00\x11\x08" + struct.pack(">HH", height, width) + b"\x03" + b"\0" * 9
    return b"\xff\xd8\xff\xe0\x00\x10JFIF\0" + b"\0" * 9 + b"\xff\xc4\x00\x04\0\0" + frame


def webp(kind: bytes, body: bytes) -> bytes:
    chunk = kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk + b"\0" * 10


PLAIN_WEBP = webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 640, 480))
LOSSLESS_WEBP = webp(b"VP8L", b"\x2f" + struct.pack("<I", 639 | 479 << 14))
EXTENDED_WEBP = webp(b"VP8X", b"\0" * 4 + (639).to_bytes(3, "little") + (479).to_bytes(3, "little"))


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (png(), "image/png"),
        (jpeg(640, 480), "image/jpeg"),
        (PLAIN_WEBP, "image/webp"),
        (LOSSLESS_WEBP, "image/webp"),
        (EXTENDED_WEBP, "image/webp"),
    ],
)
def test_an_image_is_known_by_its_bytes_whatever_its_name(data: bytes, media_type: str) -> None:
    assert image_of("x.png", data) == Image("x.png", media_type, data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n",
        png(0, 5),
        jpeg(640, 480)[:30],
        jpeg(0, 480),
        PLAIN_WEBP[:20],
        webp(b"VP9 ", b"\0" * 20),
    ],
)
def test_what_is_no_whole_image_is_none(data: bytes) -> None:
    assert image_of("x.png", data) is None


def test_an_image_that_is_too_large_is_not_shown() -> None:
    assert image_of("x", png() + b"\0" * MAX_BYTES) is None
    assert image_of("x", jpeg(2_000, 2_000)) is not None
    assert image_of("x", jpeg(2_001, 2_000)) is None
    assert image_of("x", jpeg(8_001, 1)) is None


@given(st.sampled_from([png()[:20], jpeg(3, 3)[:12], b"RIFF\0\0\0\0WEBP"]), st.binary(max_size=60))
def test_no_bytes_make_it_fail(start: bytes, rest: bytes) -> None:
    image = image_of("x", start + rest)
    assert image is None or image.data == start + rest


def test_a_request_carries_few_images_and_not_too_many_bytes() -> None:
    small = Image("s.png", "image/png", b"x")
    large = Image("l.png", "image/png", b"x" * (MAX_TOTAL_BYTES - 1))
    assert list(within_limits([small] * 9)) == [small] * MOST_IMAGES
    assert list(within_limits([large, small, small])) == [large, small]
    assert list(within_limits([small, large, large, small])) == [small, large]


def test_binary_files_at_the_head_that_are_named_like_an_image_may_be_one() -> None:
    def changed(path: str) -> str:
        header = f"diff --git a/{path} b/{path}\nindex 1111111..2222222 100644\n"
        return f"{header}Binary files a/{path} and b/{path} differ\n"

    deleted = (
        "diff --git a/d.png b/d.png\ndeleted file mode 100644\nindex 1111111..0000000\n"
        "Binary files a/d.png and /dev/null differ\n"
    )
    link = "diff --git a/l.png b/l.png\nindex 1111111..2222222 120000\n--- a/l.png\n+++ b/l.png\n@@ -1 +1 @@\n-a\n+b\n"
    named = [changed(path) for path in ("a.png", "b.JPEG", "c.svg", "e/f.webp", "g.gif")]
    assert candidates(parse_diff("".join([*named, deleted, link]).encode())) == ["a.png", "b.JPEG", "e/f.webp"]
