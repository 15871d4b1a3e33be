"""Lines that look like definitions, found without parsing: one search gives those of a whole repository."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

_MODIFIERS: Final = (
    "export|default|declare|public|private|protected|internal|static|async|abstract|final|override|virtual|sealed|"
    "readonly|partial|inline|constexpr|extern|unsafe|synchronized|native|open|suspend|pub|local|template|typedef"
)
_KEYWORDS: Final = (
    "def|class|func|function|fn|struct|enum|union|trait|interface|type|module|mod|namespace|record|const|let|var|val|"
    "macro_rules!|object|protocol|defp|defmodule|sub|fun"
)
# POSIX extended, for git grep: a superset of what `names_defined` accepts. No text of a change is in it. Blanks and not
# [[:space:]], which takes in line feeds too: a million empty lines are then searched for minutes.
PATTERN: Final = (
    rf"^[[:blank:]]*((({_MODIFIERS})|pub\([a-z]*\))[[:blank:]]+)*({_KEYWORDS})[[:blank:]*]+[(A-Za-z_$]"
    r"|^[[:blank:]]*(pub[^ ]*[[:blank:]]+)?static[[:blank:]]+(mut[[:blank:]]+)?[A-Za-z_]+[[:blank:]]*:"
    r"|^[A-Za-z_][A-Za-z0-9_]*[[:blank:]]*(:[^=]+)?=[^=]"
    r"|^    [A-Za-z_][A-Za-z0-9_]*[[:blank:]]*:[[:blank:]]*[A-Za-z_\"]"
    r"|^    [A-Z_][A-Z0-9_]*[[:blank:]]*="
    r"|^[[:blank:]]*#[[:blank:]]*define[[:blank:]]"
    r"|^[[:blank:]]*(export[[:blank:]]+default([^A-Za-z0-9_$]|$)|(module[.]exports|export)[[:blank:]]*=[^=])"
    rf"|^[[:blank:]]*(({_MODIFIERS})[[:blank:]]+)*[A-Za-z_~][A-Za-z0-9_<>,:*&. ]*\([^;]*[{{,)]?[[:blank:]"
    "\r]*$"
)

_WORD: Final = r"[A-Za-z_$][\w$]*"
_SHAPES: Final = (
    re.compile(rf"\s*(?:pub(?:\([a-z]*\))?\s+)?static\s+(?:mut\s+)?({_WORD})\s*:"),
    re.compile(
        rf"\s*(?:(?:{_MODIFIERS})(?:\([a-z]*\))?\s+)*(?:{_KEYWORDS})\*?\s+\*?(?:\([^)]*\)\s*)?(?:self\.)?({_WORD})"
    ),
    re.compile(rf"({_WORD})\s*(?::[^=]+)?=(?!=)"),
    re.compile(rf"    ({_WORD})\s*(?::\s*[A-Za-z_\"]|=(?!=))"),
    re.compile(rf"\s*#\s*define\s+({_WORD})"),
    # A type or a modifier, then `name(`: C, C++, Java, C#.
    re.compile(rf"\s*(?:[A-Za-z_][\w<>,:.\[\]]*[\s*&]+)+~?(?:{_WORD}::)*({_WORD})\s*\([^;]*$"),
    # `name(…) {`: a method of JavaScript, TypeScript, PHP.
    re.compile(rf"\s*(?:(?:{_MODIFIERS}|get|set)\s+)*[*#]?({_WORD})\s*\([^;]*\)[^;]*\{{\s*$"),
)
_DEFAULT_EXPORT: Final = re.compile(r"\s*(?:export\s+default(?![\w$])|(?:module\.exports|export)\s*=(?!=))")
_WITHIN_EXPORT: Final = re.compile(rf"\b(?:class|function|interface|enum)\b\s*\*?\s*({_WORD})")
_STATEMENT_WORDS: Final = """
if for while switch return else elif new throw catch do case with await yield assert not and or in is lambda sizeof
print raise except try import from super this self function class def extends implements
"""
_NO_NAMES: Final = frozenset(_STATEMENT_WORDS.split())
_STARTS_STATEMENT: Final = re.compile(
    r"\s*(?:return|else|new|throw|await|yield|case|assert|raise|del|not|in|if|while|for)\b"
)
_MAX_ROW: Final = 400
DEFAULT: Final = "default"
"""Stands for what a module exports without a name; no code can use the word as one."""


@dataclass(frozen=True, slots=True)
class Site:
    """A line that looks like a definition. Counts from 1."""

    path: str
    line: int


def names_defined(row: str) -> list[str]:
    """Names that a line seems to define; most often none or one."""
    if len(row) > _MAX_ROW or _STARTS_STATEMENT.match(row):
        return []
    if is_default_export(row):
        return [name for name in _WITHIN_EXPORT.findall(row) if name not in _NO_NAMES][:1]
    for shape in _SHAPES:
        match = shape.match(row)
        if match and match.group(1) not in _NO_NAMES:
            return [match.group(1)]
    return []


def is_default_export(row: str) -> bool:
    """Whether a line begins what its module exports as a whole, named or not."""
    return _DEFAULT_EXPORT.match(row) is not None


def index_sites(lines: Iterable[tuple[str, int, str]]) -> Mapping[str, tuple[Site, ...]]:
    """(path, line, text) → name → where it seems to be defined, in the order given; default exports as `DEFAULT`."""
    found: dict[str, list[Site]] = {}
    for path, line, text in lines:
        for name in names_defined(text):
            found.setdefault(name, []).append(Site(path, line))
        if is_default_export(text):
            found.setdefault(DEFAULT, []).append(Site(path, line))
    return {name: tuple(sites) for name, sites in found.items()}
