"""Gather evidence for a chunk: what a reviewer would look up in the repository at the head."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from worker.core.change import Snapshot
from worker.core.diff.model import Hunk
from worker.core.errors import ReviewError
from worker.core.evidence.blocks import Evidence, render
from worker.core.evidence.choose import Excerpt, Rank, choose
from worker.core.evidence.exports import DefaultExports, default_imports
from worker.core.evidence.languages import language_of
from worker.core.evidence.names import identifiers, imported_words, likely_sites
from worker.core.evidence.outline import MAX_BYTES, Definition, Outline
from worker.core.evidence.sites import DEFAULT, PATTERN, Site, index_sites, names_defined
from worker.core.masking import mask
from worker.core.planning.places import is_aside, is_prose
from worker.core.planning.plan import Chunk, ChunkFile
from worker.core.planning.spending import Importance, importance
from worker.core.showing import shown
from worker.ports import Tree
from worker.review.outlines import OutlineProcess

log = structlog.get_logger()

AROUND_LINES: Final = 10
BODY_LINES: Final = 25
"""A definition of up to so many lines is worth showing whole."""
SCOPE_LINES: Final = 80
_MAX_NAMES: Final = 400
_MAX_FILES: Final = 150
"""Read for one chunk, besides its own."""
_KEPT_FILES: Final = 2_000
"""Kept from one chunk to the next."""
_MAX_SIGNATURES: Final = 8
_CALLERS: Final = 6
_MATCHES: Final = 200
"""Looked through for callers: they come by their paths, and what comes first need not be source."""
_GATHER_S: Final = 30.0
_REGULAR_MODES: Final = frozenset({"100644", "100755"})


@dataclass(frozen=True, slots=True)
class _Source:
    """A file at the head, as it may be shown and as it is laid out."""

    rows: Sequence[str]
    outline: Outline
    imported: frozenset[str]
    modules: Mapping[str, str]
    """Names that stand for a whole module, and the module as the file writes it."""


@dataclass(frozen=True, slots=True)
class _Index:
    """Lines of the whole repository that look like definitions."""

    sites: Mapping[str, tuple[Site, ...]] = field(default_factory=dict)
    defaults: DefaultExports = field(default_factory=DefaultExports)

    @classmethod
    def of(cls, rows: Iterable[tuple[str, int, str]]) -> _Index:
        sites = index_sites(rows)
        return cls(sites, DefaultExports(sites.get(DEFAULT, ())))


@dataclass(frozen=True, slots=True)
class _Part:
    """What a chunk shows of one file. `touched` are lines at the head that changed, or where lines went away."""

    file: ChunkFile
    visible: frozenset[int]
    touched: Sequence[int]
    rows: Sequence[str]
    """Added and removed lines."""


@dataclass(slots=True)
class EvidenceSource:
    """Evidence for the chunks of one job; what was read for one chunk is kept for the next, until `close`.

    `count` is the plan's token counter.
    """

    tree: Tree
    snapshot: Snapshot
    count: Callable[[str], int]
    _found: _Index | None = None
    _sources: dict[str, _Source | None] = field(default_factory=dict)
    _outlines: OutlineProcess = field(default_factory=OutlineProcess)
    _indexing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _loading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def gather(self, chunk: Chunk, *, budget_tokens: int) -> str:
        """Evidence for `chunk` as text of at most `budget_tokens`, empty when there is none.

        It is an addition to the request, so what cannot be read is left out and logged; it never raises for the
        repository's sake.
        """
        return render((await self.find(chunk, budget_tokens=budget_tokens)).blocks)

    async def find(self, chunk: Chunk, *, budget_tokens: int) -> Evidence:
        """`gather`, as blocks."""
        if budget_tokens <= 0:
            return Evidence()
        if len(self._sources) > _KEPT_FILES:
            self._sources.clear()
        parts = [_part(file) for file in chunk.files if not is_prose(file.path)]
        excerpts: list[Excerpt] = []
        try:
            async with asyncio.timeout(_GATHER_S):
                await self._propose(parts, excerpts)
        except TimeoutError:
            log.warning("evidence.cut_short", chunk=chunk.id, wait_s=_GATHER_S)
        except ReviewError as error:
            log.warning("evidence.incomplete", chunk=chunk.id, error=str(error))
        return await asyncio.to_thread(self._chosen, parts, excerpts, budget_tokens)

    def close(self) -> None:
        """End the process that reads files; without it their lines are read by their shapes alone."""
        self._outlines.close()

    def _chosen(self, parts: Sequence[_Part], excerpts: Sequence[Excerpt], budget_tokens: int) -> Evidence:
        visible: dict[str, frozenset[int]] = {}
        for part in parts:
            visible[part.file.path] = visible.get(part.file.path, frozenset()) | part.visible
        return choose(
            excerpts,
            sources={path: source.rows for path, source in self._sources.items() if source is not None},
            visible=visible,
            budget_tokens=budget_tokens,
            count=self.count,
        )

    async def _propose(self, parts: Sequence[_Part], excerpts: list[Excerpt]) -> None:
        """Add excerpts as they are found, so that running out of time loses only the rest."""
        await self._load(part.file.path for part in parts if _has_source(part.file))
        for part in parts:
            source = self._sources.get(part.file.path)
            if source is not None:
                excerpts.extend(_scopes(part, source))
        await self._propose_definitions(parts, excerpts)
        for name, part in _changed_signatures(parts, self._sources)[:_MAX_SIGNATURES]:
            await self._propose_callers(name, part, excerpts)

    async def _propose_definitions(self, parts: Sequence[_Part], excerpts: list[Excerpt]) -> None:
        index = await self._index()
        wanted: dict[tuple[str, str, Site], None] = {}
        for part in parts:
            near = _Near.of(part.file.path, self._sources.get(part.file.path))
            for name in identifiers(part.rows)[:_MAX_NAMES]:
                wanted.update(dict.fromkeys((name, *meant) for meant in _meant(name, near, index)))
        await self._load(itertools.islice(dict.fromkeys(site.path for _, _, site in wanted), _MAX_FILES))
        for name, called, site in wanted:
            source = self._sources.get(site.path)
            if source is None:
                continue
            kind = f"definition of {name}"
            found = source.outline.named(called, site.line)
            if found is None and source.outline.definitions and language_of(site.path) is not None:
                # Parsed, and no definition: a local variable, or words in a comment that look like one.
                continue
            found = found or Definition(name, site.line, site.line, site.line)
            excerpts.append(Excerpt(site.path, found.start, found.signature_end, kind, Rank.DEFINITION))
            if found.lines <= BODY_LINES:
                excerpts.append(Excerpt(site.path, found.start, found.end, kind, Rank.BODY))

    async def _propose_callers(self, name: str, part: _Part, excerpts: list[Excerpt]) -> None:
        matches = await self.tree.search(f"{name}(", revision=self.snapshot.head, limit=_MATCHES)
        called = re.compile(rf"(?<![\w$]){re.escape(name)}\(")
        callers = [
            match
            for match in matches
            if called.search(match.text)
            and name not in names_defined(match.text)
            and not is_prose(match.path)
            and not (match.path == part.file.path and match.line in part.visible)
        ]
        if not is_aside(part.file.path):
            callers = [match for match in callers if not is_aside(match.path)] or callers
        # A test that calls it says less than the code that relies on it.
        callers.sort(key=lambda match: importance(match.path) is Importance.TEST)
        proposed = [
            Excerpt(match.path, match.line - 1, match.line + 1, f"caller of {name}", Rank.CALLER)
            for match in callers[:_CALLERS]
        ]
        await self._load(excerpt.path for excerpt in proposed)
        excerpts.extend(proposed)

    async def _index(self) -> _Index:
        """Names of the whole repository at the head, made once for a job."""
        async with self._indexing:
            if self._found is None:
                # Where it fails or time runs out, nothing was found: it is not tried again for every chunk.
                self._found = _Index()
                matches = await self.tree.grep(PATTERN, revision=self.snapshot.head)
                rows = [(match.path, match.line, match.text) for match in matches]
                self._found = await asyncio.to_thread(_Index.of, rows)
        return self._found

    async def _load(self, paths: Iterable[str]) -> None:
        """Read and outline what was not read before. None stands for what is no text, too large, or not there."""
        async with self._loading:
            texts: dict[str, bytes] = {}
            absent: list[str] = []
            for path in dict.fromkeys(paths):
                if path not in self._sources:
                    data = await self.tree.read(path, revision=self.snapshot.head, limit_bytes=MAX_BYTES)
                    if data is None or b"\0" in data:
                        absent.append(path)
                    else:
                        texts[path] = data
            if texts:
                self._sources.update(await asyncio.to_thread(_outlined, texts, self._outlines))
            self._sources.update(dict.fromkeys(absent))


def _outlined(texts: Mapping[str, bytes], process: OutlineProcess) -> dict[str, _Source | None]:
    outlines = process.outlines(texts)
    found: dict[str, _Source | None] = {}
    for path, data in texts.items():
        text = shown(data)
        rows = [row.removesuffix("\r") for row in mask(text).split("\n")]
        found[path] = _Source(rows, outlines[path], imported_words(text), default_imports(text))
    return found


def _has_source(file: ChunkFile) -> bool:
    return file.diff.new_path is not None and (file.diff.new_mode or "100644") in _REGULAR_MODES


def _part(file: ChunkFile) -> _Part:
    visible: set[int] = set()
    touched: list[int] = []
    rows: list[str] = []
    for hunk in file.hunks:
        number = hunk.new_start
        for line in hunk.lines():
            if line.new_number is not None:
                visible.add(line.new_number)
                number = line.new_number + 1
            if line.sign != " ":
                rows.append(line.text.decode("utf-8", "replace"))
                # Where a line went away, the one that took its place is the place.
                touched.append(line.new_number if line.new_number is not None else number)
    return _Part(file, frozenset(visible), touched, rows)


@dataclass(frozen=True, slots=True)
class _Near:
    """What a file says itself of the names in it; of one that could not be read, nothing."""

    path: str
    defined: Mapping[str, Sequence[Site]] = field(default_factory=dict)
    imported: frozenset[str] = frozenset()
    modules: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, path: str, source: _Source | None) -> _Near:
        if source is None:
            return cls(path)
        defined: dict[str, list[Site]] = {}
        for definition in source.outline.definitions:
            defined.setdefault(definition.name, []).append(Site(path, definition.start))
        return cls(path, defined, source.imported, source.modules)


def _meant(name: str, near: _Near, index: _Index) -> list[tuple[str, Site]]:
    """Where `name` on a changed line is most likely defined, and what it is called there."""
    if (module := near.modules.get(name)) and (exported := index.defaults.imported(module, used_in=near.path)):
        return [(DEFAULT, exported[0])]
    # What its own file defines is known better than any search tells: a class's attributes, say.
    called, places = name, (*near.defined.get(name, ()), *index.sites.get(name, ()))
    if not places and name in near.imported:
        # Exported once more, under a name, by a module that is the door to others.
        called, places = DEFAULT, tuple(index.defaults.named_like(name))
    likely = likely_sites(name, places, used_in=near.path, imported=near.imported)
    return [(called, site) for site in likely]


def _scopes(part: _Part, source: _Source) -> Iterator[Excerpt]:
    """The signatures of what holds each change, the lines around it, and the whole of what is short."""
    seen: set[tuple[int, int]] = set()
    for line in part.touched:
        holders = source.outline.enclosing(line)
        for found in holders[-3:]:
            if (found.start, found.end) not in seen:
                seen.add((found.start, found.end))
                kind = f"{found.name}, which holds a change of {part.file.id}"
                yield Excerpt(part.file.path, found.start, found.signature_end, kind, Rank.SCOPE)
        if holders and holders[-1].lines <= SCOPE_LINES:
            inner = holders[-1]
            kind = f"{inner.name}, which holds a change of {part.file.id}"
            yield Excerpt(part.file.path, inner.start, inner.end, kind, Rank.WHOLE_SCOPE)
    for hunk in part.file.hunks:
        kind = f"around a change of {part.file.id}"
        first, last = _edges(hunk)
        yield Excerpt(part.file.path, first - AROUND_LINES, first - 1, kind, Rank.AROUND)
        yield Excerpt(part.file.path, last + 1, last + AROUND_LINES, kind, Rank.AROUND)


def _edges(hunk: Hunk) -> tuple[int, int]:
    """First and last changed line of a hunk at the head: context that git gave counts as around it."""
    numbers = [line.new_number for line in hunk.lines() if line.sign == "+" and line.new_number is not None]
    if numbers:
        return numbers[0], numbers[-1]
    middle = hunk.new_start + hunk.new_lines // 2
    return middle, middle


_CALLABLE: Final = re.compile(r"\(|\b(?:class|struct|record)\b|=>")
_TEST_NAME: Final = re.compile(r"test", re.IGNORECASE)


def _is_called(definition: Definition, path: str, rows: Sequence[str]) -> bool:
    """Whether code may call it by its name: a constant is not called, and a test only by what runs tests."""
    if _TEST_NAME.match(definition.name) and importance(path) is Importance.TEST:
        return False
    return any(_CALLABLE.search(row) for row in rows[definition.start - 1 : definition.signature_end])


def _changed_signatures(parts: Sequence[_Part], sources: Mapping[str, _Source | None]) -> list[tuple[str, _Part]]:
    """Names that may be called, whose signature has a changed line."""
    found: dict[str, _Part] = {}
    for part in parts:
        source = sources.get(part.file.path)
        if source is None or part.file.diff.old_path is None:
            # What is new has no callers that could break.
            continue
        touched = set(part.touched)
        for definition in source.outline.definitions:
            signature = range(definition.start, definition.signature_end + 1)
            if touched.intersection(signature) and _is_called(definition, part.file.path, source.rows):
                found.setdefault(definition.name, part)
    # What has no name is called by as many as import it.
    found.pop(DEFAULT, None)
    return list(found.items())
