"""Takes secrets out of what leaves the program as a log line or a message: the ones we know, and what looks like one.

Whatever `masking` would hide from a model is hidden here too, by its table. The shapes of this module come on top and
are looser: a word too many costs a log line nothing, while in a request it would take code from the review.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable

from worker.core.masking import find

MASK = "[redacted]"

# A known secret shorter than this is not searched for: it would tear words apart. Settings refuse such secrets
# where they protect something.
_SHORTEST = 6

# Shapes that their makers publish so that scanners find them; https://docs.github.com/en/code-security/secret-scanning
_SHAPES = re.compile(
    r"""
      \bgh[pousr]_[A-Za-z0-9]{16,}            # GitHub tokens
    | \bgithub_pat_[A-Za-z0-9_]{20,}
    | \bglpat-[A-Za-z0-9_-]{16,}              # GitLab
    | \bATBB[A-Za-z0-9]{20,}                  # Bitbucket
    | \bsk-[A-Za-z0-9_-]{16,}                 # Moonshot, OpenAI, Anthropic, OpenRouter
    | \bxox[abeoprs]-[A-Za-z0-9-]{10,}        # Slack
    | \bA(?:KIA|SIA)[A-Z0-9]{16}\b            # AWS
    | \bAIza[A-Za-z0-9_-]{35}                 # Google
    | \beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+   # JSON Web Token
    | -----BEGIN[ ][A-Z0-9 ]*PRIVATE[ ]KEY(?:[ ]BLOCK)?-----
      .*?(?:-----END[ ][A-Z0-9 ]*PRIVATE[ ]KEY(?:[ ]BLOCK)?-----|\Z)
    | (?<=://)[^/\s:@]*:[^/\s@]+(?=@)         # login in a URL
    | (?i:\b(?:bearer|basic|token)[ ]+)(?=[A-Za-z0-9+/=._~-]*[0-9])[A-Za-z0-9+/=._~-]{16,}
    """,
    re.VERBOSE | re.DOTALL,
)


_BLOCK = 6
"""Characters by which a part of a secret is found."""
_SHORTEST_PART, _TELLING_SHARE = 12, 0.6
"""A part that is shorter than this, or than this share of the secret, is taken for chance. 11 characters of a secret
hold one whole block of it."""


class Redactor:
    """Replaces secrets by `[redacted]`. `secrets` are searched plain, in base64 (as in a basic login), and in hex.

    The larger part of one is found too: a token without its telling first characters is worth as much to a thief.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        spellings: set[str] = set()
        for secret in secrets:
            if len(secret) < _SHORTEST:
                continue
            spellings.add(secret)
            spellings.add(json.dumps(secret)[1:-1])  # as JSON and repr() write a key with line feeds
            spellings |= {secret.encode().hex(), secret.encode().hex().upper(), *_base64_spellings(secret)}
        short = [spelling for spelling in spellings if len(spelling) < _SHORTEST_PART]
        self._short = re.compile("|".join(map(re.escape, sorted(short, key=len, reverse=True)))) if short else None
        self._blocks: dict[str, list[tuple[str, int]]] = {}
        """Block → the spellings that hold it, and where."""
        for spelling in spellings:
            for at in range(0, len(spelling) - _BLOCK + 1, _BLOCK):
                self._blocks.setdefault(spelling[at : at + _BLOCK], []).append((spelling, at))

    def __call__(self, text: str) -> str:
        text = self._without_known(text)
        if self._short is not None:
            text = self._short.sub(MASK, text)
        return _without_shapes(_SHAPES.sub(MASK, text))

    def _without_known(self, text: str) -> str:
        out: list[str] = []
        done = 0
        blocks = self._blocks
        for at in range(len(text) - _BLOCK + 1) if blocks else ():
            if at + _BLOCK <= done:
                continue
            for spelling, inner in blocks.get(text[at : at + _BLOCK], ()):
                start, end = _widest(text, at, spelling, inner)
                if end - start >= max(_SHORTEST_PART, len(spelling) * _TELLING_SHARE) and end > done:
                    out += (text[done : max(start, done)], MASK) if start >= done else ()
                    done = end
        return "".join([*out, text[done:]])


def _without_shapes(text: str) -> str:
    out: list[str] = []
    at = 0
    for span in find(text):
        out += (text[at : span.start], MASK)
        at = span.end
    return "".join([*out, text[at:]])


def _widest(text: str, at: int, spelling: str, inner: int) -> tuple[int, int]:
    """How far `text` around `at` goes on as `spelling` does around `inner`: (start, end) in `text`."""
    before = 0
    while before < min(at, inner) and text[at - before - 1] == spelling[inner - before - 1]:
        before += 1
    after = _BLOCK
    while after < min(len(text) - at, len(spelling) - inner) and text[at + after] == spelling[inner + after]:
        after += 1
    return at - before, at + after


def _base64_spellings(secret: str) -> Iterable[str]:
    """The part that base64 of `secret` always holds, whatever stands before it: one for each of three offsets."""
    raw = secret.encode()
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + raw).decode()
        # The first characters mix with what stands before, the last with what follows.
        middle = encoded[(offset * 8 + 5) // 6 : len(encoded.rstrip("=")) - 1]
        if len(middle) >= _SHORTEST + 2:
            yield middle
            yield middle.replace("+", "-").replace("/", "_")
