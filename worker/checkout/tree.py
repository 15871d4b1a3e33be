"""One repository's objects, read only: the diff of a change, blobs by path, literals in a revision."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from worker.checkout.failures import last_words
from worker.checkout.limits import CheckoutLimits
from worker.checkout.process import Bounds, Finished, GitRunner, OutputTooLong, TimedOut
from worker.core.change import Snapshot
from worker.core.errors import NotFound, Stalled, Transient, Unprocessable
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


class Supply(Protocol):
    """Brings objects that a partial mirror lacks."""

    def blobs(self, oids: Sequence[str]) -> None:
        """Fetch these blobs in one request."""

    def snapshot_of(self, tree: str, *, blob_limit_bytes: int) -> None:
        """Fetch all blobs below `tree` that are not larger than the limit."""


class Everything:
    """The supply of a repository that is whole."""

    def blobs(self, oids: Sequence[str]) -> None:
        del oids

    def snapshot_of(self, tree: str, *, blob_limit_bytes: int) -> None:
        del tree, blob_limit_bytes


@dataclass(slots=True)
class ObjectTree:
    """`worker.ports.Tree` over the object database that `git` reads. `base` is the merge base."""

    git: GitRunner
    head: str
    base: str
    limits: CheckoutLimits
    supply: Supply = field(default_factory=Everything)
    _diff: Snapshot | None = None
    _searchable: set[str] = field(default_factory=set)
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

    # ------------------------------------------------------------------------------------ diff

    def _snapshot(self) -> Snapshot:
        with self._once:
            if self._diff is None:
                self.supply.blobs(self._missing(self._changed_blobs()))
                self._diff = self._read_diff()
            return self._diff

    def _read_diff(self) -> Snapshot:
        command = ["diff", *DIFF_FORM, f"--unified={self.limits.context_lines}", "--end-of-options"]
        try:
            done = self._run([*command, self.base, self.head], self.limits.diff_bytes)
        except OutputTooLong as error:
            return self._cut_short(error.output)
        self._expect(done, "the diff")
        return Snapshot(head=self.head, base=self.base, diff=done.output)

    def _cut_short(self, diff: bytes) -> Snapshot:
        """Whole files only, and the rest by name with their lines."""
        # Within a hunk every line has a sign, so a line that begins so is a header.
        end = diff.rfind(b"\ndiff --git ") + 1
        kept = diff[:end]
        shown = len(re.findall(rb"^diff --git ", kept, re.MULTILINE))
        done = self._run(["diff", *DIFF_FORM, "--numstat", "-z", "--end-of-options", self.base, self.head], 64_000_000)
        self._expect(done, "the list of changed files")
        reason = f"the diff is larger than {self.limits.diff_bytes:,} bytes"
        rest = tuple((path, reason, lines) for path, lines in _numstat(done.output)[shown:])
        return Snapshot(head=self.head, base=self.base, diff=kept, cut=rest)

    def _changed_blobs(self) -> list[str]:
        """Object ids of both sides of every changed file."""
        command = ["diff", "--raw", "-z", "--no-abbrev", "--no-renames", "--end-of-options", self.base, self.head]
        done = self._run(command, 256_000_000)
        self._expect(done, "the list of changed files")
        oids: dict[str, None] = {}
        for row in done.output.split(b"\0"):
            if not row.startswith(b":"):
                continue
            old_mode, new_mode, old, new, _ = row[1:].split(b" ")
            for mode, oid in ((old_mode, old), (new_mode, new)):
                # A submodule's id names a commit of another repository.
                if mode != b"160000" and oid.strip(b"0"):
                    oids[oid.decode("ascii")] = None
        return list(oids)

    def _missing(self, oids: Sequence[str]) -> list[str]:
        if not oids:
            return []
        done = self._run(["cat-file", "--batch-check"], 256_000_000, stdin="\n".join(oids).encode() + b"\n")
        rows = done.output.decode("ascii", "replace").split("\n")
        return [row.split(" ")[0] for row in rows if row.endswith(" missing")]

    # ----------------------------------------------------------------------------------- blobs

    def _read(self, path: str, revision: str, limit_bytes: int) -> bytes | None:
        entry = self._entry(path, revision)
        if entry is None:
            return None
        self.supply.blobs(self._missing([entry]))
        sized = self._run(["cat-file", "-s", entry], 1_000)
        self._expect(sized, "a blob's size")
        if int(sized.output) > limit_bytes:
            return None
        done = self._run(["cat-file", "blob", entry], limit_bytes)
        self._expect(done, "a blob")
        return done.output

    def _entry(self, path: str, revision: str) -> str | None:
        """The id of the blob at `path`, found in tree objects: no path ever reaches the file system."""
        raw = path.encode("utf-8", "surrogateescape")
        # git would normalise or refuse these; no tree holds them as one entry.
        if not raw or b"\0" in raw or raw.startswith(b"/") or b".." in raw.split(b"/"):
            return None
        command = ["ls-tree", "-z", "--full-tree", "--end-of-options", _sha(revision), "--", path]
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
        sha = _sha(revision)
        with self._once:
            if sha not in self._searchable:
                self.supply.snapshot_of(f"{sha}^{{tree}}", blob_limit_bytes=self.limits.search_blob_bytes)
                self._searchable.add(sha)
        command = ["grep", "-z", "-n", "-I", "-F", "--no-color", "--full-name", "--max-count=5"]
        command += ["--no-textconv", "--no-recurse-submodules", "--threads=2", "-e", literal, sha, "--"]
        try:
            output = self._run(command, 4_000_000).output
        except OutputTooLong as error:
            # What was found so far is enough: the caller asks for a few.
            output = error.output[: error.output.rfind(b"\n") + 1]
        return _matches(output, sha, limit)

    # ------------------------------------------------------------------------------------- git

    def _run(self, command: Sequence[str], output_bytes: int, *, stdin: bytes = b"") -> Finished:
        bounds = Bounds(total_s=self.limits.read_total_s, output_bytes=output_bytes)
        try:
            return self.git.run(command, bounds=bounds, stdin=stdin)
        except TimedOut as error:
            raise Stalled(f"git {command[0]} took longer than {self.limits.read_total_s:g} s; it was ended.") from error

    def _expect(self, done: Finished, what: str) -> None:
        if done.code == 0:
            return
        if "No space left on device" in done.errors:
            raise Transient("The disk is full. Free space where KIMI_REVIEW_HOME lies.")
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


def _matches(output: bytes, sha: str, limit: int) -> Sequence[Match]:
    found: list[Match] = []
    prefix = sha.encode("ascii") + b":"
    # `-z` ends the name and the number with NUL each; a name may hold a line feed, a line cannot.
    position = 0
    while len(found) < limit and output.startswith(prefix, position):
        name_end = output.find(b"\0", position)
        number_end = output.find(b"\0", name_end + 1)
        line_end = output.find(b"\n", number_end + 1)
        if name_end < 0 or number_end < 0 or line_end < 0:
            break
        path = output[position + len(prefix) : name_end].decode("utf-8", "surrogateescape")
        text = output[number_end + 1 : line_end].decode("utf-8", "replace")
        found.append(Match(path, int(output[name_end + 1 : number_end]), text[:500]))
        position = line_end + 1
    return tuple(found)
