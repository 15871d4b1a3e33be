"""One repository's objects, read only: the diff of a change, blobs by path, literals in a revision."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from worker.checkout.failures import last_words, tells_damage
from worker.checkout.limits import CheckoutLimits
from worker.checkout.process import COMPARED_BYTES, Bounds, Finished, GitRunner, OutputTooLong, TimedOut
from worker.core.change import Snapshot
from worker.core.diff.model import FileDiff
from worker.core.diff.parse import parse_diff
from worker.core.errors import BadInput, NotFound, ReviewError, Stalled, Transient, Unprocessable
from worker.core.sources import Kind, kind_of, may_be_source
from worker.ports import Match

_FULL_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")

# Everything that configuration, attributes or a version could change about the text is said. Myers is what
# the forges draw their diffs with, so that a line we call added is one they take a comment on.
DIFF_FORM: Sequence[str] = (
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--full-index",
    "--diff-algorithm=myers",
    "--indent-heuristic",
    "--find-renames=50%",
    "-l1000",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    "--no-relative",
    "--ignore-submodules=none",
    "--submodule=short",
    "--inter-hunk-context=0",
    "-O/dev/null",
)


_LIST_BYTES = 256_000_000
_LISTING_BYTES = 30_000_000
"""Of a revision's files, some 300,000 of them; in a larger one each path is looked up by itself."""
_BATCH_ROW_BYTES = 100
"""What `cat-file --batch` writes around a blob, at most."""
_MAX_LEFT_OUT = 500
_TOLD_BY_BYTES = 8_000
"""Of a file's beginning, in which git looks for the NUL that tells a binary file."""
_MAX_CALLED_BINARY = 200
"""Files that git calls binary though they may be sources, and that are looked into."""
_AS_TEXT_BYTES = 500_000
"""Of one of those, on either side; people write none that is larger."""
_CALLED_BINARY = "source file that git calls binary, and that cannot be shown as text"
_BINARY_ROW = re.compile(rb"^Binary files [^\n]* differ$", re.MULTILINE)
# Fewer blobs than this are asked for one by one; more, and the whole tree is cheaper to name.
_MANY_BLOBS = 2_000


@dataclass(frozen=True, slots=True)
class Changed:
    """A path that differs between base and head, and the ids of its blobs."""

    path: str
    blobs: tuple[str, ...]


class Supply(Protocol):
    """Brings objects that a partial mirror lacks."""

    def blobs(self, oids: Sequence[str]) -> None:
        """Fetch these blobs in one request. Raises `Unprocessable` when they are too much together."""

    def below(self, tree: str, *, blob_limit_bytes: int, limit_bytes: int) -> None:
        """Fetch the blobs below a tree (by object id) that are small enough. Raises `Unprocessable`."""

    def known_large(self) -> set[str]:
        """Blobs that a search did without before."""

    def damaged(self, reason: str) -> ReviewError:
        """The error to raise where what is here cannot be read, for git's `reason`."""

    def note_large(self, oids: Sequence[str]) -> None:
        """Remember blobs that were too large for searching, so that they are not asked for again."""


_CURE = "If it is a partial clone, run git fetch --refetch --no-filter there; else git fsck tells what is damaged."


class Nothing:
    """The supply of a repository on this machine: what is not there, stays away."""

    def blobs(self, oids: Sequence[str]) -> None:
        """Raises `BadInput`: nobody fetches by the configuration of a repository that is not ours."""
        if oids:
            raise BadInput(f"The repository lacks {len(oids)} blobs of this range. {_CURE}")

    def below(self, tree: str, *, blob_limit_bytes: int, limit_bytes: int) -> None:
        """A search finds what is there."""

    def known_large(self) -> set[str]:
        return set()

    def damaged(self, reason: str) -> ReviewError:
        return BadInput(f"The repository cannot be read: {reason}. {_CURE}")

    def note_large(self, oids: Sequence[str]) -> None:
        """What is absent here stays absent."""


@dataclass(slots=True)
class ObjectTree:
    """`worker.ports.Tree` over the object database that `git` reads. `base` is the merge base."""

    git: GitRunner
    head: str
    base: str
    limits: CheckoutLimits
    supply: Supply = field(default_factory=Nothing)
    _diff: Snapshot | None = None
    _searchable: dict[str, Unprocessable | None] = field(default_factory=dict)
    """Revisions that were made searchable, or why they cannot be."""
    _listings: dict[str, Mapping[bytes, str] | None] = field(default_factory=dict)
    _listing_once: threading.Lock = field(default_factory=threading.Lock)
    _once: threading.Lock = field(default_factory=threading.Lock)

    async def snapshot(self) -> Snapshot:
        """The diff from merge base to head.

        Raises `Unprocessable` when not even its list of files fits the limits, `Stalled` when git takes too long.
        """
        return await asyncio.to_thread(self._snapshot)

    async def read(self, path: str, *, revision: str, limit_bytes: int = 1_000_000) -> bytes | None:
        """The blob at `path` in `revision`; None when there is none or it is larger than `limit_bytes`."""
        return await asyncio.to_thread(self._read, path, revision, limit_bytes)

    async def search(self, literal: str, *, revision: str, limit: int = 20) -> Sequence[Match]:
        """Lines of `revision` that hold `literal`, in path order. Binary and very large blobs are not searched."""
        return await asyncio.to_thread(self._search, literal, revision, limit)

    async def grep(self, pattern: str, *, revision: str) -> Sequence[Match]:
        """Lines that match a POSIX extended expression of ours, in path order.

        At most 4,000 of one file and 24 MB in all: each takes several times its length in memory.
        """
        command = ["-E", "--max-count=4000", "-e", pattern]
        return await asyncio.to_thread(lambda: tuple(self._grep(command, revision, 24_000_000)))

    # ------------------------------------------------------------------------------------ diff

    def _snapshot(self) -> Snapshot:
        with self._once:
            if self._diff is None:
                left_out = self._left_out()
                self._diff = self._with_sources(self._read_diff(left_out), left_out)
            return self._diff

    def _left_out(self) -> dict[str, str]:
        """Make the blobs of the change present; path → reason of what the diff leaves out for its size."""
        changed = self._changed()
        not_here = self._too_large(changed)
        vast = f"text of more than {COMPARED_BYTES:,} bytes, which is not compared by lines"
        absent = f"larger than {self.limits.blob_bytes:,} bytes, not fetched"
        left_out = {file.path: vast for file in self._uncompared(changed)} | {file.path: absent for file in not_here}
        # A pathspec takes what is below its path along: a folder that took the file's place, or had it before.
        below = {
            file.path: reason
            for path, reason in left_out.items()
            for file in changed
            if file.path.startswith(f"{path}/")
        }
        return left_out | below

    def _uncompared(self, changed: Sequence[Changed]) -> list[Changed]:
        """Files that git would call binary for their size alone: they have lines, and nobody would miss them."""
        # Where both sides are one blob, only the mode differs.
        files = [file for file in changed if len(file.blobs) == len(set(file.blobs))]
        rows = self._batch("%(objectsize) %(objectname)", [oid for file in files for oid in file.blobs])
        sizes = (row.split(" ") for row in rows if row and not row.endswith(" missing"))
        vast = {oid for size, oid in sizes if int(size) > COMPARED_BYTES}
        return [file for file in files if vast.intersection(file.blobs) and all(map(self._is_text, file.blobs))]

    def _is_text(self, oid: str) -> bool:
        return b"\0" not in self._beginning(oid, _TOLD_BY_BYTES)

    def _beginning(self, oid: str, limit_bytes: int) -> bytes:
        try:
            done = self._run(["cat-file", "blob", oid], limit_bytes)
        except OutputTooLong as error:
            return error.output
        self._expect(done, "a blob")
        return done.output

    def _too_large(self, changed: Sequence[Changed]) -> list[Changed]:
        """Make the blobs of the change present; the files of which that was not possible."""
        missing = self._missing([oid for file in changed for oid in file.blobs])
        if not missing:
            return []
        try:
            self.supply.blobs(missing)
        except Unprocessable:
            # Their sizes cannot be asked for; a filter on whole trees is how to get the small ones alone.
            for revision in (self.head, self.base):
                self.supply.below(
                    self._tree_of(revision),
                    blob_limit_bytes=self.limits.blob_bytes,
                    limit_bytes=self.limits.fetch_bytes,
                )
        else:
            if absent := self._missing(missing):
                # git takes a blob for present, and fetches none, where the pack that held it can no longer be read.
                raise self.supply.damaged(f"{len(absent)} blobs cannot be read although they were fetched.")
            return []
        left_out = set(self._missing(missing))
        return [file for file in changed if left_out.intersection(file.blobs)]

    def _read_diff(
        self, left_out: Mapping[str, str], apart: Sequence[str] = (), lines_of_apart: bytes = b""
    ) -> Snapshot:
        """The diff without the paths in `left_out`, each of which is named with its reason.

        That of the paths in `apart` is there already, and stands at its beginning.
        """
        if len(left_out) > _MAX_LEFT_OUT:
            raise Unprocessable(
                f"{len(left_out)} files of the change are too large, the first {next(iter(left_out.values()))}."
            )
        pathspecs = [f":(top,exclude,literal){path}" for path in (*left_out, *apart)]
        range_ = ["--end-of-options", self.base, self.head, "--", *pathspecs]
        cut = tuple((path, reason, 0) for path, reason in left_out.items())
        try:
            done = self._run(["diff", *self._form(), *range_], self.limits.diff_bytes - len(lines_of_apart))
        except OutputTooLong as error:
            diff, beyond = self._cut_short(error.output, range_)
            return Snapshot(head=self.head, base=self.base, diff=lines_of_apart + diff, cut=cut + beyond)
        self._expect(done, "the diff")
        return Snapshot(head=self.head, base=self.base, diff=lines_of_apart + done.output, cut=cut)

    def _with_sources(self, snapshot: Snapshot, left_out: Mapping[str, str]) -> Snapshot:
        """`snapshot` with the lines of sources that git calls binary; one that has none to show is named."""
        # Within a hunk every line has a sign, so a line that begins so is git's.
        if not _BINARY_ROW.search(snapshot.diff):
            return snapshot
        called = [file for file in parse_diff(snapshot.diff) if file.is_binary and may_be_source(file.path)]
        kinds = [self._kind(file) for file in called[:_MAX_CALLED_BINARY]]
        kinds += [Kind.DOUBTFUL] * (len(called) - len(kinds))
        as_text = [file for file, kind in zip(called, kinds, strict=True) if kind is Kind.TEXT]
        doubtful = [file for file, kind in zip(called, kinds, strict=True) if kind is Kind.DOUBTFUL]
        if as_text:
            sides = (raw for file in as_text for raw in (file.old_path, file.new_path) if raw is not None)
            paths = [raw.decode("utf-8", "surrogateescape") for raw in dict.fromkeys(sides)]
            pathspecs = [f":(top,literal){path}" for path in paths]
            command = ["diff", *self._form(), "--text", "--end-of-options", self.base, self.head, "--", *pathspecs]
            try:
                done = self._run(command, self.limits.diff_bytes)
            except OutputTooLong:
                doubtful += as_text
            else:
                self._expect(done, "the lines of sources that git calls binary")
                snapshot = self._read_diff(left_out, paths, done.output)
        told = tuple((file.path, _CALLED_BINARY, 0) for file in doubtful)
        return replace(snapshot, cut=snapshot.cut + told)

    def _kind(self, file: FileDiff) -> Kind:
        """By the head's bytes: they are what will run. By the base's where the file is deleted."""
        blobs = [oid for oid in (file.new_blob, file.old_blob) if oid and oid.strip("0")]
        sides = [self._beginning(oid, _AS_TEXT_BYTES + 1) for oid in blobs]
        kind = kind_of(file.path, sides[0]) if sides else Kind.DOUBTFUL
        is_whole = all(len(side) <= _AS_TEXT_BYTES for side in sides)
        return Kind.DOUBTFUL if kind is Kind.TEXT and not is_whole else kind

    def _form(self) -> list[str]:
        return [*DIFF_FORM, f"--unified={self.limits.context_lines}"]

    def _cut_short(self, diff: bytes, range_: Sequence[str]) -> tuple[bytes, tuple[tuple[str, str, int], ...]]:
        """Whole files only, and the rest by name with their lines."""
        # Within a hunk every line has a sign, so a line that begins so is a header.
        kept = diff[: diff.rfind(b"\ndiff --git ") + 1]
        shown = len(re.findall(rb"^diff --git ", kept, re.MULTILINE))
        done = self._run(["diff", *DIFF_FORM, "--numstat", "-z", *range_], _LIST_BYTES)
        self._expect(done, "the list of changed files")
        reason = f"beyond the first {self.limits.diff_bytes:,} bytes of the diff"
        return kept, tuple((path, reason, lines) for path, lines in _numstat(done.output)[shown:])

    def _changed(self) -> list[Changed]:
        """Every changed file with the object ids of both sides."""
        command = ["diff", "--raw", "-z", "--no-abbrev", "--no-renames", "--ignore-submodules=none", "-O/dev/null"]
        done = self._run([*command, "--end-of-options", self.base, self.head, "--"], _LIST_BYTES)
        self._expect(done, "the list of changed files")
        files: list[Changed] = []
        fields = iter(done.output.split(b"\0"))
        for row in fields:
            if not row:
                continue
            old_mode, new_mode, old, new, _ = row.removeprefix(b":").split(b" ")
            # A submodule's id names a commit of another repository; zeros name nothing.
            sides = ((old_mode, old), (new_mode, new))
            blobs = tuple(oid.decode("ascii") for mode, oid in sides if mode != b"160000" and oid.strip(b"0"))
            files.append(Changed(next(fields).decode("utf-8", "surrogateescape"), blobs))
        return files

    def _missing(self, oids: Sequence[str]) -> list[str]:
        rows = self._batch("%(objectname)", oids)
        return [row.removesuffix(" missing") for row in rows if row.endswith(" missing")]

    def _batch(self, form: str, oids: Sequence[str]) -> list[str]:
        """A row of `form` for each object, `<id> missing` for one that is not here."""
        if not oids:
            return []
        asked = "\n".join(dict.fromkeys(oids)).encode() + b"\n"
        done = self._run(["cat-file", f"--batch-check={form}"], _LIST_BYTES, stdin=asked)
        self._expect(done, "the list of objects")
        return done.output.decode("ascii", "replace").split("\n")

    def _tree_of(self, revision: str) -> str:
        done = self._run(["rev-parse", "--verify", "--end-of-options", f"{revision}^{{tree}}"], 1_000)
        self._expect(done, "a tree")
        return done.output.decode("ascii").strip()

    # ----------------------------------------------------------------------------------- blobs

    def _read(self, path: str, revision: str, limit_bytes: int) -> bytes | None:
        oid = self._entry(path, revision)
        if oid is None:
            return None
        is_here, data = self._blob(oid, limit_bytes)
        if not is_here:
            self.supply.blobs([oid])
            _, data = self._blob(oid, limit_bytes)
        return data

    def _blob(self, oid: str, limit_bytes: int) -> tuple[bool, bytes | None]:
        """Whether a blob is here, and its bytes unless they are more than `limit_bytes`."""
        command = ["cat-file", "--batch=%(objectsize)"]
        try:
            done = self._run(command, limit_bytes + _BATCH_ROW_BYTES, stdin=oid.encode("ascii") + b"\n")
        except OutputTooLong:
            return True, None
        self._expect(done, "a blob")
        size, _, rest = done.output.partition(b"\n")
        if not size.isdigit():
            return False, None
        return True, rest[: int(size)] if int(size) <= limit_bytes else None

    def _entry(self, path: str, revision: str) -> str | None:
        """The id of the blob at `path`, found in tree objects: no path ever reaches the file system."""
        raw = path.encode("utf-8", "surrogateescape")
        # git would normalise or refuse these; no tree holds them as one entry.
        if not raw or b"\0" in raw or raw.startswith(b"/") or b".." in raw.split(b"/"):
            return None
        listed = self._listing(_sha(revision))
        return listed.get(raw) if listed is not None else self._entry_alone(path, raw, revision)

    def _listing(self, sha: str) -> Mapping[bytes, str] | None:
        """Path → id of all blobs of a revision, listed once: a review reads hundreds. None when they are too many."""
        with self._listing_once:
            if sha not in self._listings:
                self._listings[sha] = self._listed(sha)
            return self._listings[sha]

    def _listed(self, sha: str) -> Mapping[bytes, str] | None:
        try:
            done = self._run(["ls-tree", "-r", "-z", "--full-tree", "--end-of-options", sha], _LISTING_BYTES)
        except OutputTooLong:
            return None
        if done.code != 0:
            # A clone may lack trees that nobody asks for.
            return None
        rows = (row.partition(b"\t") for row in done.output.split(b"\0") if row)
        return {name: meta[12:].decode("ascii") for meta, _, name in rows if meta[7:12] == b"blob "}

    def _entry_alone(self, path: str, raw: bytes, revision: str) -> str | None:
        command = [
            "--literal-pathspecs",
            "ls-tree",
            "-z",
            "--full-tree",
            "--end-of-options",
            _sha(revision),
            "--",
            path,
        ]
        done = self._run(command, 1_000_000)
        self._expect(done, "a tree")
        for row in done.output.split(b"\0"):
            meta, _, name = row.partition(b"\t")
            if name == raw:
                _, kind, oid = meta.split(b" ")
                return oid.decode("ascii") if kind == b"blob" else None
        return None

    def _search(self, literal: str, revision: str, limit: int) -> Sequence[Match]:
        if not literal or "\n" in literal or "\0" in literal:
            return ()
        found = self._grep(["-F", "--max-count=5", "-e", literal], revision, 4_000_000)
        return tuple(itertools.islice(found, limit))

    def _grep(self, pattern: Sequence[str], revision: str, output_bytes: int) -> Iterator[Match]:
        sha = _sha(revision)
        with self._once:
            if sha not in self._searchable:
                self._searchable[sha] = self._make_searchable(sha)
            if (refusal := self._searchable[sha]) is not None:
                # What was too large once is not fetched again for every search.
                raise refusal
        form = [
            "-z",
            "-n",
            "-I",
            "--no-color",
            "--full-name",
            "--no-textconv",
            "--no-recurse-submodules",
            "--threads=2",
        ]
        try:
            done = self._run(["grep", *form, *pattern, sha, "--"], output_bytes, total_s=self.limits.search_total_s)
            # 1 is "nothing found", and a blob that is not here for its size is not searched.
            if done.code != 1:
                self._expect(done, "a search")
            output = done.output
        except OutputTooLong as error:
            # Enough was found: what lies behind the last whole line is left.
            output = error.output[: error.output.rfind(b"\n") + 1]
        return _matches(output, sha)

    def _make_searchable(self, sha: str) -> Unprocessable | None:
        """Bring the blobs of a whole revision, but for large ones; why not, when they are too much."""
        try:
            self._bring_sources(sha)
        except Unprocessable as error:
            return error
        return None

    def _bring_sources(self, sha: str) -> None:
        listed = self._run(
            ["ls-tree", "-r", "-z", "--full-tree", "--format=%(objecttype) %(objectname)", sha], _LIST_BYTES
        )
        self._expect(listed, "the list of files")
        rows = [row.split(b" ") for row in listed.output.split(b"\0") if row]
        known = self.supply.known_large()
        blobs = [oid.decode("ascii") for kind, oid in rows if kind == b"blob"]
        missing = [oid for oid in self._missing(blobs) if oid not in known]
        if not missing or isinstance(self.supply, Nothing):
            return
        if len(missing) <= _MANY_BLOBS and len(missing) < len(blobs) // 2:
            # Reviewed before: what is new since then is little.
            self.supply.blobs(missing)
        else:
            self.supply.below(
                self._tree_of(sha),
                blob_limit_bytes=self.limits.search_blob_bytes,
                limit_bytes=self.limits.search_bytes,
            )
            self.supply.note_large(self._missing(missing))

    # ------------------------------------------------------------------------------------- git

    def _run(
        self, command: Sequence[str], output_bytes: int, *, stdin: bytes = b"", total_s: float | None = None
    ) -> Finished:
        bounds = Bounds(total_s=total_s or self.limits.read_total_s, output_bytes=output_bytes)
        try:
            return self.git.run(command, bounds=bounds, stdin=stdin)
        except TimedOut as error:
            name = next(word for word in command if not word.startswith("-"))
            raise Stalled(f"git {name} took longer than {bounds.total_s:g} s; it was ended.") from error

    def _expect(self, done: Finished, what: str) -> None:
        if done.code == 0:
            return
        if "No space left on device" in done.errors:
            raise Transient("The disk is full. Free space where KIMI_REVIEW_HOME lies.")
        if isinstance(self.supply, Nothing) and "unable to read" in done.errors:
            raise BadInput(f"The repository lacks objects for {what}: {last_words(done.errors)}. {_CURE}")
        if tells_damage(done.errors):
            raise self.supply.damaged(last_words(done.errors))
        if "bad object" in done.errors or "Not a valid object name" in done.errors:
            raise NotFound(f"git lacks the objects for {what}: {last_words(done.errors)}")
        raise Unprocessable(f"git could not give {what}: {last_words(done.errors)}")


def _sha(revision: str) -> str:
    if not _FULL_SHA.fullmatch(revision):
        raise ValueError("a revision is a full object id here")
    return revision


def _numstat(output: bytes) -> list[tuple[str, int]]:
    """(path, changed lines) in git's order, from `--numstat -z`."""
    rows: list[tuple[str, int]] = []
    fields = iter(output.split(b"\0"))
    for row in fields:
        if not row:
            continue
        added, removed, path = row.split(b"\t", 2)
        if not path:  # a rename: old and new path follow as fields of their own
            next(fields)
            path = next(fields)
        lines = 0 if added == b"-" else int(added) + int(removed)
        rows.append((path.decode("utf-8", "surrogateescape"), lines))
    return rows


def _matches(output: bytes, sha: str) -> Iterator[Match]:
    prefix = sha.encode("ascii") + b":"
    # `-z` ends the name and the number with NUL each; a name may hold a line feed, a line cannot.
    position = 0
    last_name, path = b"", ""
    while output.startswith(prefix, position):
        name_end = output.find(b"\0", position)
        number_end = output.find(b"\0", name_end + 1)
        line_end = output.find(b"\n", number_end + 1)
        if name_end < 0 or number_end < 0 or line_end < 0:
            return
        name = output[position + len(prefix) : name_end]
        if name != last_name:
            last_name, path = name, name.decode("utf-8", "surrogateescape")
        text = output[number_end + 1 : line_end].decode("utf-8", "replace")
        yield Match(path, int(output[name_end + 1 : number_end]), text[:500])
        position = line_end + 1
