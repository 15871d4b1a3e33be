"""Excerpts that would help → the ones that a budget has room for, without a line shown twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from worker.core.evidence.blocks import Block, Evidence, heading, indented, render

_MAX_KINDS: Final = 4
_GAP: Final = 1
"""A single line between two excerpts costs less than a new heading."""


class Rank(IntEnum):
    """What is taken first when not everything fits."""

    SCOPE = 0
    """Signatures of what holds the change."""
    DEFINITION = 1
    """Signatures of what changed lines name."""
    CALLER = 2
    """Lines that call what has a changed signature."""
    AROUND = 3
    """The lines before and after a change."""
    BODY = 4
    """Short definitions as a whole."""
    WHOLE_SCOPE = 5
    """The function that holds the change, as a whole."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Lines of one file at the head that somebody proposes, and why. Counted from 1, ends included."""

    path: str
    start: int
    end: int
    kind: str
    rank: Rank


def choose(
    excerpts: Sequence[Excerpt],
    *,
    sources: Mapping[str, Sequence[str]],
    visible: Mapping[str, frozenset[int]],
    budget_tokens: int,
    count: Callable[[str], int],
) -> Evidence:
    """Take excerpts by rank, then in order, as long as `render` of them stays within `budget_tokens`.

    `sources` has the lines of every file named; lines in `visible` are in the request already. An excerpt that
    does not fit is passed over for a later, smaller one.
    """
    taken: list[Excerpt] = []
    lines: dict[str, set[int]] = {}
    spent = left_out = 0
    for excerpt in sorted(excerpts, key=lambda item: item.rank):
        rows = sources.get(excerpt.path, ())
        here = lines.setdefault(excerpt.path, set())
        known = visible.get(excerpt.path, frozenset())
        span = range(max(excerpt.start, 1), min(excerpt.end, len(rows)) + 1)
        new = [line for line in span if line not in here and line not in known]
        if not any(rows[line - 1].strip() for line in new):
            continue
        text = indented("".join(f"{rows[line - 1]}\n" for line in new))
        # A heading for each run is more than is needed where runs meet.
        runs = len(list(_runs(new, gap=0)))
        cost = count(text) + runs * (count(heading(99, excerpt.path, 10_000, 10_000, excerpt.kind)) + 1)
        if spent + cost > budget_tokens:
            left_out += 1
            continue
        spent += cost
        here.update(new)
        taken.append(excerpt)
    blocks = tuple(_blocks(taken, lines, sources, visible))
    # The sum of counted pieces is close to the count of the whole, not equal to it.
    while blocks and count(render(blocks)) > budget_tokens:
        blocks = blocks[:-1]
        left_out += 1
    return Evidence(blocks, left_out)


def _blocks(
    taken: Sequence[Excerpt],
    lines: Mapping[str, set[int]],
    sources: Mapping[str, Sequence[str]],
    visible: Mapping[str, frozenset[int]],
) -> Iterator[Block]:
    for path in dict.fromkeys(excerpt.path for excerpt in taken):
        rows = sources[path]
        known = visible.get(path, frozenset())
        for start, end in _runs(sorted(lines[path]), gap=_GAP, known=known):
            kinds = dict.fromkeys(
                excerpt.kind
                for excerpt in taken
                if excerpt.path == path and excerpt.start <= end and excerpt.end >= start
            )
            kind = "; ".join(list(kinds)[:_MAX_KINDS])
            yield Block(path, start, end, kind, "".join(f"{row}\n" for row in rows[start - 1 : end]))


def _runs(lines: Sequence[int], *, gap: int, known: frozenset[int] = frozenset()) -> Iterator[tuple[int, int]]:
    """Runs of line numbers that follow one another, but for `gap` lines that are not `known` already."""
    start = last = None
    for line in lines:
        if start is None or last is None:
            start = line
        elif line - last - 1 > gap or any(between in known for between in range(last + 1, line)):
            yield start, last
            start = line
        last = line
    if start is not None and last is not None:
        yield start, last
