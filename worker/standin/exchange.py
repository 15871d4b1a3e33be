"""Reads the marks of a request: its kind, the files and lines of a unit, the candidates of a verdict."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

_KIND = re.compile(r"kind:\s*(\w+)\s*$")
_FILE = re.compile(r"(F\d+) (\S.*)$")
_ROW = re.compile(r"\s*(\d+|-?)\|([+ -])\|(.*)$")
_CANDIDATE = re.compile(r"(C\d+)\b")


@dataclass(frozen=True, slots=True)
class ShownLine:
    """`number` counts from 1 in the new file; None for a deleted line."""

    number: int | None
    sign: Literal["+", "-", " "]
    text: str


@dataclass(frozen=True, slots=True)
class ShownFile:
    id: str
    path: str
    lines: tuple[ShownLine, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """What one request shows. `kind` is empty when the user's message does not begin with its mark."""

    kind: str
    files: tuple[ShownFile, ...]
    candidates: tuple[str, ...]


def read(user: str) -> Question:
    """Read the user's message. Text is cut at line feeds alone: nothing else ends a line of the change."""
    lines = user.split("\n")
    kind = _KIND.match(lines[0])
    files: list[tuple[str, str, list[ShownLine]]] = []
    candidates: dict[str, None] = {}
    for line in lines[1:]:
        row = _ROW.match(line)
        if row:
            if files:
                files[-1][2].append(_shown(row))
            continue
        header = _FILE.match(line)
        if header:
            files.append((header[1], _path(header[2]), []))
            continue
        candidate = _CANDIDATE.match(line)
        if candidate:
            candidates[candidate[1]] = None
    shown = tuple(ShownFile(id, path, tuple(rows)) for id, path, rows in files)
    return Question(kind[1] if kind else "", shown, tuple(candidates))


def _shown(row: re.Match[str]) -> ShownLine:
    number, sign, text = row[1], row[2], row[3]
    if sign == "-" or not number.isdigit():
        return ShownLine(None, "-", text)
    return ShownLine(int(number), "+" if sign == "+" else " ", text)


def _path(text: str) -> str:
    """A path with quotes or control characters is shown as a JSON string."""
    if text.startswith('"'):
        try:
            value = json.loads(text)
        except ValueError:
            return text
        return value if isinstance(value, str) else text
    return text
