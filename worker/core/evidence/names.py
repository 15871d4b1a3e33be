"""Identifiers on changed lines, and which of several definitions a file most likely means by one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Final

from worker.core.evidence.languages import is_foreign
from worker.core.evidence.sites import Site
from worker.core.planning.places import is_aside, is_prose

_STRING: Final = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'")
_COMMENT: Final = re.compile(r"(?:^|\s)(?:#(?!\s*(?:define|if|include)\b)|//|--\s).*$|^\s*\*.*$")
_IDENTIFIER: Final = re.compile(r"[A-Za-z_$][\w$]*")
_IMPORT: Final = re.compile(
    r"^\s*(?:import|from|use|using|require|require_relative|include|#\s*include|export\b.*\bfrom)\b|require\("
)
_MIN_LENGTH: Final = 2
_MAX_ROW: Final = 2_000
# Words that are nobody's definition in any of the languages, and names that everything has.
_COMMON_WORDS: Final = """
self this cls super None True False null undefined nil true false if else elif for while return import from def class
func function fn const let var new in is not and or try except finally catch throw raise with as async await yield pass
break continue switch case default public private protected static final void int str float bool char string object
list dict set tuple type struct enum interface extends implements package use mod pub impl match lambda del global
nonlocal assert end do then begin unsigned long short double auto typename template namespace using virtual override
sizeof range len print
"""
_COMMON: Final = frozenset(_COMMON_WORDS.split())
_MANY: Final = 24


def identifiers(rows: Iterable[str]) -> list[str]:
    """Names in code, without strings and comments, the most frequent first, then in order of appearance."""
    seen: Counter[str] = Counter()
    for row in rows:
        code = _COMMENT.sub("", _STRING.sub('""', row[:_MAX_ROW]))
        seen.update(word for word in _IDENTIFIER.findall(code) if len(word) >= _MIN_LENGTH and word not in _COMMON)
    # A stable sort: ties stay in the order of their first appearance.
    return sorted(seen, key=lambda name: -seen[name])


def imported_words(source: str) -> frozenset[str]:
    """Every word on lines that import something: names of modules and of what is taken from them."""
    words: set[str] = set()
    inside = False
    for row in source.split("\n")[:2_000]:
        if inside or _IMPORT.search(row[:_MAX_ROW]):
            words.update(_IDENTIFIER.findall(row[:_MAX_ROW]))
            # A list of names in brackets goes on over several lines.
            inside = (inside or "(" in row or "{" in row) and not (")" in row or "}" in row)
    return frozenset(words)


def likely_sites(name: str, sites: Sequence[Site], *, used_in: str, imported: frozenset[str]) -> list[Site]:
    """The definitions of `name` that code in `used_in` most likely means, best first; none when it could be any.

    Prose defines nothing. What stands aside (others' code, pages, built copies) counts only where no source defines it,
    or for code that stands aside too.
    """
    sites = [site for site in sites if not is_foreign(used_in, site.path) and not is_prose(site.path)]
    if not is_aside(used_in):
        sites = [site for site in sites if not is_aside(site.path)] or sites
    if not sites:
        return []
    ranked = sorted((_distance(name, site, used_in, imported), order) for order, site in enumerate(sites))
    best = ranked[0][0]
    if len(sites) > _MANY and best >= _ANYWHERE:
        return []
    alike = [sites[order] for distance, order in ranked if distance <= best + 1]
    return alike[: 2 if best < _ANYWHERE else 1 if len(sites) > 4 else 2]


_ANYWHERE: Final = 6


def _distance(name: str, site: Site, used_in: str, imported: frozenset[str]) -> int:
    here, there = PurePosixPath(used_in), PurePosixPath(site.path)
    if here == there:
        return 0
    is_test = "test" in site.path.lower() and "test" not in used_in.lower()
    penalty = 4 if is_test else 0
    if here.suffix != there.suffix:
        penalty += 2
    module = there.parent.name if there.stem in ("__init__", "index", "mod", "lib", "main") else there.stem
    if module in imported:
        return (1 if name in imported else 2) + penalty
    if here.parent == there.parent:
        return 3 + penalty
    shared = sum(1 for one, other in zip(here.parts, there.parts, strict=False) if one == other)
    return (4 if name in imported else _ANYWHERE + 1) + penalty - min(shared, 1)
