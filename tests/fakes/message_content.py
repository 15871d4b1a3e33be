"""What Kimi takes as a message's content: text, or parts of which some are images."""

from __future__ import annotations

import base64
import re
from typing import Any

_DATA_URL = re.compile(r"data:image/(?:png|jpeg|webp|gif);base64,([A-Za-z0-9+/]+={0,2})")
IMAGE_TOKENS = 5_334
"""What an image of the largest size costs here."""


def text_of(content: Any) -> str:
    """A message's text: the whole content, or the text parts of it."""
    parts = content if isinstance(content, list) else [{"text": content}]
    return "\n".join(str(part["text"]) for part in parts if isinstance(part, dict) and part.get("text"))


def images_of(content: Any) -> list[str]:
    """URLs of a message's image parts."""
    parts = content if isinstance(content, list) else []
    return [part["image_url"]["url"] for part in parts if isinstance(part, dict) and part.get("type") == "image_url"]


def content_problem(content: Any) -> str:
    """Text, or parts of which the images are `data:` URLs of a kind that Kimi takes."""
    if isinstance(content, list):
        for part in content:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind not in ("text", "image_url") or set(part) != {"type", kind}:
                return "invalid request: unknown content part"
        for url in images_of(content):
            if not (found := _DATA_URL.fullmatch(url)) or not base64.b64decode(found[1], validate=True):
                return "invalid request: unsupported image url, only data URLs of png, jpeg, webp or gif are taken"
    elif not isinstance(content, str):
        return "invalid request: message content must be text or parts"
    return "" if text_of(content) else "invalid request: message content must not be empty"
