"""Where a finding may be anchored: the model's line number and quote, checked against the hunks.

A quote proves the place and the number says which of several; neither is moved to fit. What cannot be told
apart is not anchored: a comment in the wrong place costs the reader more than one in the summary.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from worker.core.diff.model import FileDiff, Hunk, Sign
from worker.core.finding import Anchor, Claim
from worker.core.masking import mask
from worker.core.showing import shown

_NEAR = 10
"""Lines around the claimed number in which the quote is looked for first."""
_APART = 2
"""How much nearer than the next best a place must be: models miscount by up to two lines."""
_TELLING = 6
"""Characters without white space from which a quote alone, far from its number, proves a place."""
_ALIKE, _ALIKE_BY = 0.8, 0.08
"""Similarity (0 … 1) from which two lines are one, and by how much it must beat the next best."""
_LONGEST_RANGE = 50
_LONGEST_FUZZY = 400

# White space changes in answers; what cannot be shown was replaced before the model saw it.
_NO_TEXT = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b\ufeff\ufffd]+")
_SHOWN_PREFIX = re.compile(r"\s*(?:(\d{1,10})|-)?\s?\|([+\- ])\|")
_MASKED = re.compile("«masked[^»]*»")
_ELLIPSIS = re.compile(r"^(?:\.\.\.|…)|(?:\.\.\.|…)$")


def resolve(claim: Claim, file: FileDiff, visible: Sequence[Hunk] | None = None) -> Anchor | None:
    """Find the lines of `file` that `claim` is about; None when they cannot be proven.

    In this order: the quote at the claimed line; the nearest whole match within ±10 lines; the only match
    anywhere; the same for a part of a line; a line that is nearly the quote, within ±10. `visible` are
    the hunks, or pieces of them, that the model saw: nothing else is looked at. A claim without
    a quote is anchored only to an added line that was shown.
    """
    views = _views(file.hunks if visible is None else visible)
    variants = _readings(claim.quote)
    if not variants:
        return _by_number(claim, file, views[0])
    for find in (_whole, _part, _alike):
        for quote in variants:
            hint = quote.number if quote.number is not None else claim.line
            for rows in views:
                place = _chosen(find(quote, rows, hint), quote, hint)
                if place is not None:
                    return _anchor(place, claim, hint, file)
    for rows in views:
        if (anchor := _by_longest_line(claim, variants[-1], file, rows)) is not None:
            return anchor
    return None


# ---------------------------------------------------------------------------------- lines and quotes


@dataclass(frozen=True, slots=True)
class _Row:
    """A line that was shown. `place` is its new number, for a deleted line that of the line after it."""

    hunk: int
    sign: Sign
    text: str
    key: str
    old: int | None
    new: int | None
    place: int


def _views(hunks: Sequence[Hunk]) -> list[list[list[_Row]]]:
    """The rows of `hunks` as the model was shown them; where that is not as they are, as they are besides.

    A quote repeats the mask of a secret and the escape of a control character, or undoes the escape.
    """
    raw = [hunk.body.decode("utf-8", "replace") for hunk in hunks]
    seen = [mask(shown(hunk.body)) for hunk in hunks]
    return [
        [list(_rows(hunk, number, text)) for number, (hunk, text) in enumerate(zip(hunks, texts, strict=True))]
        for texts in ([seen] if seen == raw else [seen, raw])
    ]


def _rows(hunk: Hunk, number: int, body: str) -> Iterator[_Row]:
    """The lines that have any text, in the diff's order. `body` is the hunk's, in the form that is compared."""
    place = hunk.new_start + (hunk.new_lines == 0)
    texts = [row[1:] for row in body.split("\n")[:-1] if row[:1] != "\\"]
    for line, text in zip(hunk.lines(), texts, strict=True):
        if line.new_number is not None:
            place = line.new_number
        key = _NO_TEXT.sub("", text)
        if key:
            yield _Row(number, line.sign, text.rstrip(), key, line.old_number, line.new_number, place)
        if line.new_number is not None:
            place += 1


@dataclass(frozen=True, slots=True)
class _Quote:
    """One way to read the model's quote. `signs` has a sign per line where the quote tells them."""

    texts: tuple[str, ...]
    keys: tuple[str, ...]
    signs: tuple[str, ...]
    number: int | None = None
    """The number that the quote itself carries for its first line."""

    def is_at(self, rows: Sequence[_Row]) -> bool:
        """Whether the signs, where given, allow these rows."""
        return all((sign == "-") == (row.sign == "-") for sign, row in zip(self.signs, rows, strict=False))


def _readings(quote: str) -> list[_Quote]:
    """The quote as it stands; without `12|+|`; without the signs of a diff. Empty when it has no text."""
    lines = [line for line in quote.replace("\r\n", "\n").split("\n") if _NO_TEXT.sub("", line)]
    if not lines:
        return []
    readings = [_reading(lines)]
    prefixes = [_SHOWN_PREFIX.match(line) for line in lines]
    if any(prefixes):
        bare = [line[found.end() :] if found else line for line, found in zip(lines, prefixes, strict=True)]
        signs = tuple(found[2] for found in prefixes if found)
        first = prefixes[0]
        number = int(first[1]) if first and first[1] else None
        readings.append(_reading(bare, signs if len(signs) == len(lines) else (), number))
    elif all(line[0] in "+- " for line in lines) and any(line[0] in "+-" for line in lines):
        readings.append(_reading([line[1:] for line in lines], tuple(line[0] for line in lines)))
    return [reading for reading in readings if reading.keys]


def _reading(lines: Iterable[str], signs: tuple[str, ...] = (), number: int | None = None) -> _Quote:
    texts = tuple(line.rstrip() for line in lines)
    keys = tuple(_NO_TEXT.sub("", text) for text in texts)
    if not all(keys):
        texts, signs = tuple(text for text, key in zip(texts, keys, strict=True) if key), ()
        keys = tuple(key for key in keys if key)
    return _Quote(texts, keys, signs, number)


# ------------------------------------------------------------------------------------------ matching


@dataclass(frozen=True, slots=True)
class _Place:
    """Consecutive rows that may be what is quoted. `score` is 1 for a whole match, less for a part."""

    rows: tuple[_Row, ...]
    score: float

    @property
    def is_left(self) -> bool:
        """A comment stands on the old side only where nothing new is quoted."""
        return any(row.sign == "-" for row in self.rows) and all(row.sign != "+" for row in self.rows)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(row.key for row in self.rows)

    @property
    def is_change(self) -> bool:
        return any(row.sign != " " for row in self.rows)

    @property
    def start(self) -> int:
        """In numbers of the new file."""
        return next((row.place for row in self.rows if self.is_left or row.new is not None), self.rows[0].place)


def _windows(hunks: Sequence[Sequence[_Row]], length: int) -> Iterator[tuple[_Row, ...]]:
    """All runs of `length` rows as the diff shows them, as the new file has them, as the old one had them."""
    for rows in hunks:
        views = [rows]
        if length > 1:
            views += [[row for row in rows if row.sign != "-"], [row for row in rows if row.sign != "+"]]
        seen: set[tuple[int, ...]] = set()
        for view in views:
            for start in range(len(view) - length + 1):
                window = tuple(view[start : start + length])
                if length > 1:
                    identity = tuple(map(id, window))
                    if identity in seen:
                        continue
                    seen.add(identity)
                yield window


def _whole(quote: _Quote, hunks: Sequence[Sequence[_Row]], hint: int | None) -> list[_Place]:
    """Places where every line is the quote's, white space aside."""
    first, keys = quote.keys[0], quote.keys
    if len(keys) == 1:
        return [_Place((row,), 1.0) for rows in hunks for row in rows if row.key == first and quote.is_at((row,))]
    return [
        _Place(window, 1.0)
        for window in _windows(hunks, len(keys))
        if window[0].key == first and all(row.key == key for row, key in zip(window, keys, strict=True))
        if quote.is_at(window)
    ]


def _part(quote: _Quote, hunks: Sequence[Sequence[_Row]], hint: int | None) -> list[_Place]:
    """Places that hold the quote as a part: of a line, or beginning and ending within lines."""
    keys = quote.keys
    length = sum(map(len, keys))
    places = []
    if len(keys) == 1:
        wanted = _MASKED.split(quote.texts[0])
        pieces = [_NO_TEXT.sub("", _ELLIPSIS.sub("", piece.strip())) for piece in wanted]
        pieces = [piece for piece in pieces if piece]
        length = sum(map(len, pieces))
        for rows in hunks:
            for row in rows:
                is_here = row.place == hint
                if length < (3 if is_here else _TELLING) or not quote.is_at((row,)):
                    continue
                if _in_order(pieces, row.key):
                    places.append(_Place((row,), length / len(row.key)))
                elif len(row.key) >= _TELLING and len(row.key) >= 0.6 * length and row.key in keys[0]:
                    places.append(_Place((row,), len(row.key) / length))
        return places
    for window in _windows(hunks, len(keys)):
        if (
            window[0].key.endswith(keys[0])
            and window[-1].key.startswith(keys[-1])
            and all(row.key == key for row, key in zip(window[1:-1], keys[1:-1], strict=True))
            and quote.is_at(window)
            and length >= _TELLING
        ):
            places.append(_Place(window, length / sum(len(row.key) for row in window)))
    return places


def _in_order(pieces: Sequence[str], text: str) -> bool:
    at = 0
    for piece in pieces:
        at = text.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return bool(pieces)


def _alike(quote: _Quote, hunks: Sequence[Sequence[_Row]], hint: int | None) -> list[_Place]:
    """Places near the number that are nearly the quote, the best only, and only if none comes close to it."""
    if hint is None or sum(map(len, quote.keys)) < _TELLING:
        return []
    wanted = "\n".join(quote.keys)[:_LONGEST_FUZZY]
    matcher = SequenceMatcher(None, autojunk=False)
    matcher.set_seq2(wanted)
    scored: list[tuple[float, _Place]] = []
    for window in _windows(hunks, len(quote.keys)):
        place = _Place(window, _ALIKE)
        if abs(place.start - hint) > _NEAR or not quote.is_at(window):
            continue
        matcher.set_seq1("\n".join(row.key for row in window)[:_LONGEST_FUZZY])
        if matcher.real_quick_ratio() >= _ALIKE - _ALIKE_BY and matcher.quick_ratio() >= _ALIKE - _ALIKE_BY:
            scored.append((matcher.ratio(), place))
    scored.sort(key=lambda pair: -pair[0])
    if not scored or scored[0][0] < _ALIKE or (len(scored) > 1 and scored[0][0] - scored[1][0] < _ALIKE_BY):
        return []
    return [scored[0][1]]


# ------------------------------------------------------------------------------------------ choosing


def _chosen(places: list[_Place], quote: _Quote, hint: int | None) -> _Place | None:
    """The one place that is meant, or None when there is none or no telling."""
    if len(places) > 1:
        places = _as_written(places, quote)
    if hint is None:
        return _only(places)
    near = [place for place in places if abs(place.start - hint) <= _NEAR]
    # A line that was indented anew or moved is not gone: the comment belongs to where it is now.
    alive = {place.keys for place in near if place.is_change and not place.is_left}
    near = [place for place in near if not (place.is_left and place.keys in alive)]
    near.sort(key=lambda place: abs(place.start - hint))
    if not near:
        return _only(places) if sum(map(len, quote.keys)) >= _TELLING else None
    if len(near) == 1:
        return near[0]
    exact = [place for place in near if place.start == hint]
    if len(exact) > 1:
        # The number is a new line's, so that one is meant. A run of deleted lines stands before one new line:
        # then only the old number tells them apart.
        exact = [place for place in exact if not place.is_left] or [
            place for place in exact if place.rows[0].old == hint
        ]
    if len(exact) == 1 and _stands_out(exact[0], near):
        return exact[0]
    return near[0] if abs(near[1].start - hint) - abs(near[0].start - hint) >= _APART else None


def _as_written(places: list[_Place], quote: _Quote) -> list[_Place]:
    """Those with the quote's very white space, if the quote has its indentation and any place agrees."""
    if not quote.texts[0][:1].isspace():
        return places
    return [
        place for place in places if all(row.text == text for row, text in zip(place.rows, quote.texts, strict=True))
    ] or places


def _stands_out(place: _Place, near: Sequence[_Place]) -> bool:
    """Whether the place at the very number may be taken although others are near."""
    others = [other for other in near if other is not place and abs(other.start - place.start) <= _APART]
    return place.score >= 0.5 or not others


def _only(places: Sequence[_Place]) -> _Place | None:
    if len(places) > 1:
        # Of several, the only one that the change itself made is meant: context is there to be read.
        places = [place for place in places if place.is_change]
    return places[0] if len(places) == 1 else None


def _anchor(place: _Place, claim: Claim, hint: int | None, file: FileDiff) -> Anchor | None:
    if place.is_left:
        numbers = [row.old for row in place.rows if row.old is not None]
        return _within_hunk(Anchor(file.path, "LEFT", numbers[0], numbers[-1]), file)
    numbers = [row.new for row in place.rows if row.new is not None]
    start, end = numbers[0], numbers[-1]
    if claim.line is not None and claim.end_line is not None and hint is not None and abs(start - hint) <= _NEAR:
        # The quote is of the first line; a range that was counted wrongly was moved as a whole.
        end = max(end, start + min(claim.end_line - claim.line, _LONGEST_RANGE))
    return _within_hunk(Anchor(file.path, "RIGHT", start, end), file)


def _within_hunk(anchor: Anchor, file: FileDiff) -> Anchor | None:
    """The anchor, ended where its hunk ends; None when it does not begin in a hunk (added context, say)."""
    for hunk in file.hunks:
        if anchor.side == "RIGHT":
            start, end = hunk.new_start, hunk.new_start + hunk.new_lines - 1
        else:
            start, end = hunk.old_start, hunk.old_start + hunk.old_lines - 1
        if start <= anchor.start_line <= end:
            return Anchor(anchor.path, anchor.side, anchor.start_line, min(anchor.line, end))
    return None


def _by_number(claim: Claim, file: FileDiff, hunks: Sequence[Sequence[_Row]]) -> Anchor | None:
    """No quote: only an added line is taken on its number's word."""
    if claim.line is None or not any(row.sign == "+" and row.new == claim.line for rows in hunks for row in rows):
        return None
    end = claim.line + min(max(0, (claim.end_line or claim.line) - claim.line), _LONGEST_RANGE)
    return _within_hunk(Anchor(file.path, "RIGHT", claim.line, end), file)


def _by_longest_line(claim: Claim, quote: _Quote, file: FileDiff, hunks: Sequence[Sequence[_Row]]) -> Anchor | None:
    """A quote of several lines that stand apart in the file: its most telling line that is found alone."""
    if len(quote.keys) < 2:
        return None
    hint = quote.number if quote.number is not None else claim.line
    for index in sorted(range(len(quote.keys)), key=lambda index: -len(quote.keys[index]))[:3]:
        line = _Quote(quote.texts[index : index + 1], quote.keys[index : index + 1], quote.signs[index : index + 1])
        if len(line.keys[0]) < _TELLING:
            break
        place = _chosen(_whole(line, hunks, hint), line, None if hint is None else hint + index)
        if place is not None:
            return _anchor(place, claim, None, file)
    return None
