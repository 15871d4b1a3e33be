"""Takes secrets out of a text: the ones we know, and whatever has the shape of a well-known token."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable

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
    | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----.*?(?:-----END[ ][A-Z ]*PRIVATE[ ]KEY-----|\Z)
    | (?<=://)[^/\s:@]*:[^/\s@]+(?=@)         # login in a URL
    | (?i:\b(?:bearer|basic|token)[ ]+)(?=[A-Za-z0-9+/=._~-]*[0-9])[A-Za-z0-9+/=._~-]{16,}
    """,
    re.VERBOSE | re.DOTALL,
)


class Redactor:
    """Replaces secrets by `[redacted]`. `secrets` are searched plain, in base64, and as a basic login."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        spellings: set[str] = set()
        for secret in secrets:
            if len(secret) < _SHORTEST:
                continue
            spellings.add(secret)
            spellings.add(json.dumps(secret)[1:-1])  # as JSON and repr() write a key with line feeds
            spellings |= set(_base64_spellings(secret))
        longest_first = sorted(spellings, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return _SHAPES.sub(MASK, text)


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
