"""Secrets of well-known shapes, taken out of text before a model sees it.

Only what is surely a secret: what is masked here, nobody reviews. `redaction` takes the same and more out of the log.
A mask is never longer than what it hides, in bytes, so a bound computed on the raw text holds for
the masked one. Lines stay lines. Shapes: the vendors' own documentation of their token prefixes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Shape:
    """`hint` is a literal that every match holds, for a search that is cheap where there is none.

    The secret is the pattern's one group where it has one, else all of the match.
    """

    kind: str
    hint: str
    pattern: re.Pattern[str]


def _shape(kind: str, hint: str, pattern: str) -> Shape:
    return Shape(kind, hint, re.compile(pattern, re.ASCII))


# Of a password in a URL, unless something is to be filled in there.
_SIGN: Final = r"[^\s/@\"'`<>{}$]"

# No pattern can match more than one way over the same text, so none can be made to backtrack for long.
SHAPES: Final = (
    _shape("AWS key", "AKIA", r"(?<![A-Za-z0-9])AKIA[A-Z0-9]{16}(?![A-Za-z0-9])"),
    _shape("AWS key", "ASIA", r"(?<![A-Za-z0-9])ASIA[A-Z0-9]{16}(?![A-Za-z0-9])"),
    *(
        # The other half of an AWS key has no prefix: its setting's name tells it.
        _shape(
            "AWS secret key",
            name,
            rf"{name}[\"']?[ \t]{{0,8}}[=:][ \t]{{0,8}}[\"']?([A-Za-z0-9/+]{{40}})(?![A-Za-z0-9/+=])",
        )
        for name in ("ecret_access_key", "SECRET_ACCESS_KEY", "ecretAccessKey")
    ),
    _shape("GitHub token", "gh", r"gh[pousr]_[A-Za-z0-9]{36,255}"),
    _shape("GitHub token", "github_pat_", r"(?<![A-Za-z0-9])github_pat_[A-Za-z0-9_]{40,255}"),
    _shape("GitLab token", "glpat-", r"(?<![A-Za-z0-9])glpat-[A-Za-z0-9_.\-]{20,255}"),
    _shape("Slack token", "xox", r"(?<![A-Za-z0-9])xox[abeoprs]-[A-Za-z0-9\-]{20,255}"),
    _shape("Slack webhook", "hooks.slack.com/", r"hooks\.slack\.com/services/[A-Za-z0-9/+]{20,255}"),
    _shape("Stripe key", "_live_", r"(?<![A-Za-z0-9])[rs]k_live_[A-Za-z0-9]{16,255}"),
    _shape("Google key", "AIza", r"(?<![A-Za-z0-9])AIza[A-Za-z0-9_\-]{35}(?![A-Za-z0-9_\-])"),
    _shape("npm token", "npm_", r"(?<![A-Za-z0-9])npm_[A-Za-z0-9]{36}(?![A-Za-z0-9])"),
    _shape("PyPI token", "pypi-", r"(?<![A-Za-z0-9])pypi-[A-Za-z0-9_\-]{60,255}"),
    _shape("SendGrid key", "SG.", r"(?<![A-Za-z0-9])SG\.[A-Za-z0-9_\-]{16,64}\.[A-Za-z0-9_\-]{16,64}"),
    _shape("Hugging Face token", "hf_", r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{34}(?![A-Za-z0-9])"),
    _shape("Azure storage key", "AccountKey=", r"AccountKey=([A-Za-z0-9+/]{86}==)"),
    _shape("Google OAuth secret", "GOCSPX-", r"(?<![A-Za-z0-9])GOCSPX-[A-Za-z0-9_\-]{28}(?![A-Za-z0-9_\-])"),
    _shape("DigitalOcean token", "_v1_", r"(?<![A-Za-z0-9])do[opr]_v1_[a-f0-9]{64}(?![A-Za-z0-9])"),
    _shape("Shopify token", "shp", r"(?<![A-Za-z0-9])shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}(?![A-Za-z0-9])"),
    _shape("Atlassian token", "ATATT3", r"(?<![A-Za-z0-9])ATATT3[A-Za-z0-9_\-]{100,400}"),
    _shape("Vault token", "hvs.", r"(?<![A-Za-z0-9])hvs\.[A-Za-z0-9_\-]{24,255}"),
    # Words may be joined behind it: sk-fading-circle-animation, sk-of-the-benchmark-0123. A key has a part that
    # is no word: long, or with a letter behind a digit. Langfuse's are UUIDs.
    _shape(
        "API key",
        "sk-",
        r"(?<![A-Za-z0-9])sk-(?=(?:[A-Za-z0-9]{0,255}[_\-]){0,12}"
        r"(?:[A-Za-z0-9]{32}|(?=[A-Za-z0-9]{8})[A-Za-z0-9]{0,255}[0-9][A-Za-z]|[0-9a-f]{8}-[0-9a-f]{4}-))"
        r"[A-Za-z0-9_\-]{20,255}",
    ),
    # Those for one's own machine are no secrets, and neither are words: postgres:postgres, user:password, user:${PW}.
    _shape(
        "URL password",
        "://",
        rf"://[^\s/:@\"'`<>{{}}$]{{0,64}}:(?={_SIGN}{{0,255}}[0-9])(?={_SIGN}{{0,255}}[A-Za-z])"
        rf"({_SIGN}{{8,255}})@(?!localhost\b|127\.|\[::1\])",
    ),
    _shape(
        "JWT", "eyJ", r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_\-]{8,4096}\.eyJ[A-Za-z0-9_\-]{8,8192}\.[A-Za-z0-9_\-]{8,1024}"
    ),
)
PRIVATE_KEY: Final = "private key"
_KEY_HINT: Final = "PRIVATE KEY"
HINTS: Final = tuple({*(shape.hint for shape in SHAPES), _KEY_HINT})
"""A text with none of them holds no secret that is known here."""
_KEY_BEGIN: Final = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_KEY_END: Final = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
# A row of a key in text: sign of a diff, indentation or quotes around, base64 within.
_KEY_ROW: Final = re.compile(
    r"^[+\- ]?[\s\"'#/*]*(?:[A-Za-z0-9+/]+={0,2}|[A-Za-z\-]+: [^\n]*)(?:\\n|\\r|[\s\"'+,;\\])*$"
)


@dataclass(frozen=True, slots=True)
class Span:
    """Where in a text a secret stands."""

    start: int
    end: int
    kind: str


def mask(text: str) -> str:
    """`text` with every secret replaced by `«masked: <kind>»`."""
    spans = find(text)
    if not spans:
        return text
    out: list[str] = []
    at = 0
    for span in spans:
        out.append(text[at : span.start])
        out.append(_mask(span, text))
        at = span.end
    out.append(text[at:])
    return "".join(out)


def find(text: str) -> list[Span]:
    """The secrets in `text`, in order, none overlapping another."""
    found = [
        Span(*match.span(shape.pattern.groups), shape.kind)
        for shape in SHAPES
        if shape.hint in text
        for match in shape.pattern.finditer(text)
    ]
    if _KEY_HINT in text:
        found.extend(_private_keys(text))
    found.sort(key=lambda span: (span.start, -span.end))
    apart: list[Span] = []
    for span in found:
        if not apart or span.start >= apart[-1].end:
            apart.append(span)
    return apart


def _mask(span: Span, text: str) -> str:
    words = f"«masked: {span.kind}»"
    room = len(text[span.start : span.end].encode("utf-8", "replace"))
    return words if len(words.encode()) <= room else "*" * min(8, room)


def _private_keys(text: str) -> Iterator[Span]:
    """The rows between BEGIN and END; where a diff shows only one of the two, the rows that look like a key."""
    for begin in _KEY_BEGIN.finditer(text):
        line_end = _end_of_line(text, begin.end())
        end = _KEY_END.search(text, begin.end(), line_end)
        if end or text[begin.end() : line_end].strip(" \t\r\"',;+\\"):
            # The whole key on one line, with its line feeds written out.
            yield Span(begin.end(), end.start() if end else line_end, PRIVATE_KEY)
            continue
        yield from _key_rows(text, line_end)
    for end in _KEY_END.finditer(text):
        yield from _key_rows_before(text, end.start())


def _key_rows(text: str, line_end: int) -> Iterator[Span]:
    while line_end < len(text):
        start, line_end = line_end + 1, _end_of_line(text, line_end + 1)
        row = text[start:line_end]
        if not _is_key_row(row):
            return
        yield from _within(row, start)


def _key_rows_before(text: str, position: int) -> Iterator[Span]:
    start = text.rfind("\n", 0, position) + 1
    while start > 0:
        end, start = start - 1, text.rfind("\n", 0, start - 1) + 1
        row = text[start:end]
        if not _is_key_row(row):
            return
        yield from _within(row, start)


def _is_key_row(row: str) -> bool:
    return len(row) <= 400 and (not row[1:].strip() or _KEY_ROW.match(row) is not None)


def _within(row: str, start: int) -> Iterator[Span]:
    """The row without its sign and the white space around it; nothing of a blank one."""
    inner = row[1:] if row[:1] in ("+", "-", " ") else row
    if inner.strip():
        begin = start + len(row) - len(inner.lstrip())
        yield Span(begin, begin + len(inner.strip()), PRIVATE_KEY)


def _end_of_line(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end
