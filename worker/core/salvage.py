"""JSON objects saved from text that is not quite JSON: fences, prose, cuts, quotes nobody escaped.

Every step is linear: patterns are possessive, and what is read twice is charged to an allowance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field

Item = dict[str, object]

_DEEPEST = 64
"""Levels of nesting beyond which an object is no item of ours, and no work for the JSON reader."""
_LONGEST = 100_000
"""Characters within which an item must end that is no JSON."""
_READ_AGAIN = 2
"""How many times the answer's length may be read in vain before repairing stops,"""
_READ_AGAIN_AT_LEAST = 1_000_000
"""or this many characters, for an answer of ordinary length."""

_DECODER = json.JSONDecoder(strict=False)
# An unclosed string reaches to the end of the text.
_STRING = r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)'
_TOKEN = re.compile(rf"{_STRING}|[{{}}\[\]]", re.DOTALL)
_ONE_STRING = re.compile(_STRING, re.DOTALL)
_THINKING = re.compile(r"\s*<(?:think|thinking|reasoning)>", re.IGNORECASE)
_THOUGHT = re.compile(r"</(?:think|thinking|reasoning)>", re.IGNORECASE)
_BETWEEN = re.compile(r"[\s,;]*+")
_SCALAR = re.compile(rf"(?:null|true|false|-?[\d.eE+]++|{_STRING})", re.DOTALL)
_TRAILING_COMMA = re.compile(r",(?=\s*+[}\]])")
_INNER_QUOTE = re.compile(r'(\\.)|"', re.DOTALL)
_FIELD_ENDS = re.compile(r"[\s,}]*+\Z")


@dataclass(slots=True)
class Salvage:
    """What was saved. `is_found` is False when the text holds neither the list nor anything like an item."""

    items: list[Item] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    is_found: bool = False
    is_cut: bool = False
    """Whether a list has no end: items may be missing behind the last one."""


def read_items(text: str, name: str, *, keys: tuple[str, ...], is_item: Callable[[Item], bool]) -> Salvage:
    """The objects in every `"name": […]` of `text`.

    Where there is no such list, every object of the text that `is_item` holds for. `keys` are the members
    an item may have; they guide the repair of an item that is no JSON.
    """
    return _Reader(without_thinking(text), keys, is_item).read(name)


def read_string(text: str, name: str) -> str | None:
    """The string member `name` of the first object that has one, closed or not; None when there is none."""
    answer = without_thinking(text)
    key = re.compile(rf'(?<!\\)"{re.escape(name)}"\s*:\s*(?=")', re.IGNORECASE).search(answer)
    string = _ONE_STRING.match(answer, key.end()) if key else None
    return None if string is None else _plain(string[0])


def without_thinking(text: str) -> str:
    """What follows the model's thinking, which is no answer even where it holds a draft of one."""
    thinking = _THINKING.match(text)
    if thinking:
        end = _THOUGHT.search(text, thinking.end())
        return text[end.end() :] if end else ""
    # Some templates send the closing tag alone. Behind an answer's beginning it is code that somebody quotes.
    end = _THOUGHT.search(text)
    if end and "{" in text[end.end() :] and not re.match(r"\s*(?:```\w*\s*)?[{\[]", text):
        return text[end.end() :]
    return text


class _Reader:
    def __init__(self, text: str, keys: tuple[str, ...], is_item: Callable[[Item], bool]) -> None:
        self._text = text
        self._is_item = is_item
        self._allowance = max(_READ_AGAIN * len(text), _READ_AGAIN_AT_LEAST)
        self._found = Salvage()
        names = "|".join(keys)
        self._field = re.compile(rf'(?<!\\)"({names})"\s*:\s*', re.IGNORECASE)
        self._border = re.compile(
            rf'\}}\s*(?:,\s*)?(?:(?=\{{\s*"(?:{names})"\s*:)|(?=\]\s*(?:\}}|\Z|```)))', re.IGNORECASE
        )

    def read(self, name: str) -> Salvage:
        lists = re.compile(rf'(?<!\\)"{name}"\s*:\s*\[', re.IGNORECASE)
        position = 0
        while start := lists.search(self._text, position):
            self._found.is_found = True
            position = self._list(start.end())
        if not self._found.is_found:
            self._loose()
        return self._found

    def _list(self, position: int) -> int:
        """Read items from behind a `[`; the answer is where reading ended."""
        text, found = self._text, self._found
        while True:
            between = _BETWEEN.match(text, position)
            position = between.end() if between else position
            if text.startswith("]", position):
                return position + 1
            if text.startswith("{", position):
                after = self._item(position)
                if after is None:
                    found.is_cut = True
                    found.problems.append("the list is cut inside an item; what came before was read")
                    return len(text)
                position = after
                continue
            scalar = _SCALAR.match(text, position)
            if scalar is None or scalar.end() == len(text):
                found.is_cut = True
                found.problems.append("the list has no end; what came before was read")
                return position
            found.problems.append("an item that is no object was left out")
            position = scalar.end()

    def _item(self, start: int) -> int | None:
        """Read the object at `start`; the answer is where it ends, None when it has no end."""
        end, is_deep = self._end(start)
        if end is not None and is_deep:
            self._found.problems.append("an item that is nested too deep was left out")
            return end
        item = None if end is None else _object(self._text[start:end])
        if item is None:
            # One quote too many and strings change places with what is between them, so the end found is no end.
            limit = start + _LONGEST
            border = self._border.search(self._text, start, limit) if self._allowance > 0 else None
            self._allowance -= (border.end() if border else min(limit, len(self._text))) - start
            self._allowance -= (end or min(limit, len(self._text))) - start
            if border is not None:
                end = border.end()
                item = self._repaired(self._text[start : border.start() + 1])
        if item is not None:
            self._found.items.append(item)
        elif end is not None:
            self._found.problems.append("an item that is no JSON was left out")
        return end

    def _loose(self) -> None:
        """Items without their list: a bare array, one object, an object a line."""
        position = self._text.find("{")
        while position >= 0 and self._allowance > 0:
            end, is_deep = self._end(position)
            item = None if end is None or is_deep else _object(self._text[position:end])
            if item is not None and self._is_item(item):
                self._found.items.append(item)
                self._found.is_found = True
            else:
                self._allowance -= (end or min(position + _LONGEST, len(self._text))) - position
                end = position + 1
            position = self._text.find("{", end)

    def _end(self, start: int) -> tuple[int | None, bool]:
        """Where the object at `start` ends (None: nowhere), and whether it is nested beyond reason."""
        limit = start + _LONGEST
        end, is_deep = self._closed(start, limit)
        if end is None and limit < len(self._text) and self._allowance > 0:
            whole = _end_of_json(self._text, start)
            if whole is not None:
                return self._closed(start, whole)
            self._allowance -= len(self._text) - start
        return end, is_deep

    def _closed(self, start: int, limit: int) -> tuple[int | None, bool]:
        """As `_end`, by its marks alone, and within `limit`."""
        depth = deepest = 0
        for token in _TOKEN.finditer(self._text, start, limit):
            mark = token[0]
            if mark in "{[":
                depth += 1
                deepest = max(deepest, depth)
            elif mark in "}]":
                depth -= 1
                if depth == 0:
                    return token.end(), deepest > _DEEPEST
        return None, deepest > _DEEPEST

    def _repaired(self, text: str) -> Item | None:
        """An item read member by member: each value reaches to the next known member."""
        fields = list(self._field.finditer(text))
        item: Item = {}
        for index, member in enumerate(fields):
            stop = fields[index + 1].start() if index + 1 < len(fields) else len(text)
            value = text[member.end() : stop]
            ends = _FIELD_ENDS.search(value)
            value = value[: ends.start()] if ends else value
            if member[1].lower() in item:
                return None
            item[member[1].lower()] = _value(value)
        return item if item and self._is_item(item) else None


def _object(text: str) -> Item | None:
    """An object with lower-case keys, or None."""
    value = _json(text)
    if value is None:
        value = _json(_TRAILING_COMMA.sub("", text))
    if not isinstance(value, dict):
        return None
    return {str(key).lower(): member for key, member in value.items()}


def _json(text: str) -> object:
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        # ValueError: no JSON, or a number of thousands of digits.
        return None


def _end_of_json(text: str, start: int) -> int | None:
    """Where the JSON value at `start` ends, however long it is; None where there is none."""
    try:
        return _DECODER.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return None


def _value(text: str) -> object:
    """A member's value; a string may have quotes in it that nobody escaped."""
    value = _json(text)
    if value is not None or not text.startswith('"'):
        return value
    return _plain(text)


def _plain(string: str) -> str:
    """A JSON string with its quotes, perhaps broken, as text."""
    inner = string[1:-1] if len(string) > 1 and string.endswith('"') else string[1:]
    escaped = _INNER_QUOTE.sub(lambda found: found[1] or '\\"', inner)
    value = _json(f'"{escaped}"')
    return value if isinstance(value, str) else inner
