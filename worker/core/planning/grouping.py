"""What belongs together: a test with its source, files that name one another, neighbours in a folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from posixpath import basename, dirname, splitext
from typing import Final

from worker.core.diff.model import FileDiff

_TEST_AFFIX: Final = re.compile(
    r"^(?:tests?[_\-.]|spec[_\-.])|[_\-.](?:tests?|specs?|unittest|e2e)$|(?<=[a-z])(?:Tests?|Spec)$"
)
_COMMON_STEMS: Final = frozenset(
    (
        "__init__",
        "index",
        "main",
        "mod",
        "lib",
        "utils",
        "util",
        "types",
        "models",
        "views",
        "tests",
        "test",
        "base",
        "common",
        "conftest",
    )
)
_MOST_NAMESAKES: Final = 6
"""Files of one stem; more of them only share a habit of naming."""
_READ_BYTES: Final = 1_000_000
"""Names are looked for in changes up to this size; a larger one fills many units whatever the order."""
_WORD: Final = re.compile(rb"[A-Za-z_][A-Za-z0-9_\-]{3,60}")


def clusters(files: Sequence[FileDiff], weights: Sequence[int], limit: int) -> list[list[int]]:
    """Indices of `files` in groups whose `weights` add up to `limit` at most (or of a single file).

    Groups stand in the order of their first file and hold theirs in order, so that neighbours of
    a folder, which git lists together, stay neighbours.
    """
    groups = _Groups(weights, limit)
    stems = [stem(file.path) for file in files]
    by_stem: dict[str, list[int]] = {}
    for index, name in enumerate(stems):
        if name.lower() not in _COMMON_STEMS and len(name) > 2:
            by_stem.setdefault(name.lower(), []).append(index)
    for namesakes in by_stem.values():
        if len(namesakes) <= _MOST_NAMESAKES:
            for index in namesakes[1:]:
                groups.join(namesakes[0], index)
    if sum(len(hunk.body) for file in files for hunk in file.hunks) <= _READ_BYTES:
        _join_by_name(files, by_stem, groups)
    return groups.listed()


def stem(path: str) -> str:
    """The file's name without extensions and without what marks it as a test."""
    name = splitext(basename(path))[0]
    while (shorter := _TEST_AFFIX.sub("", name)) != name and shorter:
        name = shorter
    return name


def _join_by_name(files: Sequence[FileDiff], by_stem: dict[str, list[int]], groups: _Groups) -> None:
    """Join files whose changed lines name another changed file, those of one folder first."""
    # A path is bytes to git: those that are not UTF-8 are surrogates in a name.
    unique = {
        name.encode("utf-8", "surrogateescape"): indices[0]
        for name, indices in by_stem.items()
        if len(indices) <= 2 and len(name) > 3
    }
    pairs: list[tuple[bool, int, int]] = []
    for index, file in enumerate(files):
        named = {
            unique[word]
            for hunk in file.hunks
            for word in {match.lower() for match in _WORD.findall(hunk.body)} & unique.keys()
        }
        pairs.extend((dirname(files[other].path) != dirname(file.path), index, other) for other in named - {index})
    for _, index, other in sorted(pairs):
        groups.join(index, other)


class _Groups:
    """Disjoint sets of indices, each with a weight that may not pass the limit."""

    def __init__(self, weights: Sequence[int], limit: int) -> None:
        self._leader = list(range(len(weights)))
        self._weight = list(weights)
        self._limit = limit

    def _find(self, index: int) -> int:
        while self._leader[index] != index:
            self._leader[index] = self._leader[self._leader[index]]
            index = self._leader[index]
        return index

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self._find(one), self._find(other)))
        if first != second and self._weight[first] + self._weight[second] <= self._limit:
            self._leader[second] = first
            self._weight[first] += self._weight[second]

    def listed(self) -> list[list[int]]:
        lists: dict[int, list[int]] = {}
        for index in range(len(self._leader)):
            lists.setdefault(self._find(index), []).append(index)
        return list(lists.values())
