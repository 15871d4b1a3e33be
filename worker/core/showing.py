"""Bytes of a change as the model is shown them: text that keeps its lines, and nothing that fakes one."""

from __future__ import annotations

import json
import re
from typing import Final

# C0 but tab, line feed and carriage return; delete; and CR, which is harmless only before a line feed.
_CONTROLS: Final = bytes(set(range(0x20)) - {0x09, 0x0A, 0x0D}) + b"\x7f"
_ESCAPES: Final = {code: f"\\x{code:02x}" for code in _CONTROLS} | {0x0C: "\\f", 0x0B: "\\v", 0x08: "\\b", 0x00: "\\0"}
_LONE_RETURN: Final = re.compile(r"\r(?!\n)")
_NEEDS_JSON: Final = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"]|^\\s|\\s$')


def is_plain(body: bytes) -> bool:
    """Whether `body` is shown byte for byte."""
    return body.isascii() and b"\r" not in body and len(body.translate(None, _CONTROLS)) == len(body)


def shown(body: bytes) -> str:
    """`body` as text: what is not UTF-8 replaced, control characters escaped, line feeds untouched.

    The carriage return of a CRLF line stays; a lone one is escaped, like a form feed, since many
    readers would take it for the end of a line.
    """
    text = body.decode("utf-8", "replace")
    if len(body.translate(None, _CONTROLS)) != len(body):
        text = text.translate(_ESCAPES)
    if "\r" in text:
        text = _LONE_RETURN.sub(r"\\r", text)
    return text


def shown_path(path: str) -> str:
    """`path` as it is, or as a JSON string when it has quotes, control characters or bytes that are not UTF-8."""
    return json.dumps(path) if _NEEDS_JSON.search(path) else path
