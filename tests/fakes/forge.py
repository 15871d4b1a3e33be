"""A forge in memory, held to the same contract as the real clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tests.fakes.clock import FakeClock
from worker.core import marker
from worker.core.change import Change, ChangeRef, Snapshot
from worker.core.comments import with_misplaced
from worker.core.errors import NotFound, ReviewError, Unprocessable
from worker.core.markdown import fit
from worker.patience import patiently
from worker.ports import Clock, Comment, Posted, Remote

MARKER_KEY = marker.key_from("a false webhook secret")
CUT = "The rest is left out."


@dataclass(frozen=True, slots=True)
class Review:
    """One visible review."""

    head: str
    body: str
    comments: tuple[Comment, ...]


@dataclass(slots=True)
class Fault:
    """Raised by the next post; with `acts` the post is made all the same, as when the answer got lost."""

    error: ReviewError
    acts: bool = False


@dataclass
class MemoryForge:
    """`lines` tells where comments may stand: change → (path, side) → the line numbers of each hunk."""

    marker_key: bytes = MARKER_KEY
    name: str = "github"
    comments_per_post: int = 25
    body_limit: int = 65_536
    changes: dict[ChangeRef, Change] = field(default_factory=dict)
    lines: dict[ChangeRef, Mapping[tuple[str, str], Sequence[frozenset[int]]]] = field(default_factory=dict)
    diffs: dict[ChangeRef, Snapshot] = field(default_factory=dict)
    reviews: dict[ChangeRef, list[Review]] = field(default_factory=dict)
    notes: dict[ChangeRef, list[str]] = field(default_factory=dict)
    post_faults: list[Fault] = field(default_factory=list)
    read_faults: list[ReviewError] = field(default_factory=list)
    """Met by the next readings, one by each try; brief ones are waited out, as the real clients do."""
    clock: Clock = field(default_factory=FakeClock)
    posts: int = 0
    """Posts that were tried, whatever came of them."""

    def open(self, change: Change, lines: Mapping[tuple[str, str], Sequence[frozenset[int]]] | None = None) -> Change:
        """Add a change; without `lines` a comment may stand anywhere."""
        self.changes[change.ref] = change
        if lines is not None:
            self.lines[change.ref] = lines
        return change

    def push(self, ref: ChangeRef, head: str) -> Change:
        self.changes[ref] = replace(self.changes[ref], head=head)
        return self.changes[ref]

    def rename(self, old: str, new: str) -> None:
        """Give a repository another name; what stands on its changes stays."""
        for ref in [ref for ref in self.changes if ref.repository == old]:
            now = replace(ref, repository=new)
            self.changes[now] = replace(self.changes.pop(ref), ref=now)
            for kept in (self.lines, self.diffs, self.reviews, self.notes):
                if ref in kept:
                    kept[now] = kept.pop(ref)

    async def change(self, ref: ChangeRef) -> Change:
        await self._reached("a change")
        if ref not in self.changes:
            raise NotFound(f"The forge knows nothing of {ref}.")
        return self.changes[ref]

    def remote(self, change: Change) -> Remote:
        return Remote(url=f"https://forge.example/{change.ref.repository}.git")

    async def remote_ready(self, change: Change) -> Remote:
        return self.remote(change)

    async def diff(self, change: Change) -> Snapshot:
        await self._reached("a diff")
        return self.diffs[change.ref]

    async def posted(self, change: Change) -> Posted:
        await self._reached("what was posted")
        texts = [
            text
            for review in self.reviews.get(change.ref, [])
            for text in (review.body, *(comment.body for comment in review.comments))
        ]
        marks = [mark for text in texts for mark in self._marks(change, text)]
        here = {mark.fingerprint for mark in marks if mark.head == change.head}
        earlier = {mark.fingerprint for mark in marks if mark.head != change.head}
        counted: set[str] = set()
        for text in texts:
            for told in marker.read_told(text, key=self.marker_key, ref=change.ref, repository_id=change.repository_id):
                if told.head != change.head:
                    (counted if told.is_counted else earlier).update(told.fingerprints)
        return Posted(
            has_summary=marker.SUMMARY in here,
            fingerprints=frozenset(here - marker.OWN),
            earlier=frozenset(earlier - here - marker.OWN),
            counted=frozenset(counted - earlier - here),
            is_unfinished=marker.MORE in here and marker.LAST not in here,
        )

    async def post(self, change: Change, *, summary: str, comments: Sequence[Comment]) -> None:
        self.posts += 1
        fault = self.post_faults.pop(0) if self.post_faults else None
        if fault is not None and not fault.acts:
            raise fault.error
        if len(comments) > self.comments_per_post:
            raise Unprocessable(f"The forge takes {self.comments_per_post} comments a review.")
        placed = tuple(comment for comment in comments if self._takes(change.ref, comment))
        misplaced = [comment for comment in comments if comment not in placed]
        body = with_misplaced(summary, misplaced, forge="the forge", limit=self.body_limit, ending=CUT)
        review = Review(change.head, fit(body, self.body_limit, ending=CUT), placed)
        self.reviews.setdefault(change.ref, []).append(review)
        if fault is not None:
            raise fault.error

    async def note(self, change: Change, body: str) -> None:
        self.notes.setdefault(change.ref, []).append(body)

    async def noted(self, change: Change) -> frozenset[str]:
        await self._reached("what was noted")
        return frozenset(
            mark.fingerprint
            for text in self.notes.get(change.ref, [])
            for mark in self._marks(change, text)
            if mark.head == change.head
        )

    async def open_changes(self, repository: str) -> AsyncIterator[Change]:
        await self._reached("open changes")
        for change in list(self.changes.values()):
            if change.ref.repository == repository and change.state == "open":
                yield change

    async def repositories(self) -> AsyncIterator[str]:
        await self._reached("repositories")
        for name in sorted({ref.repository for ref in self.changes}):
            yield name

    def _marks(self, change: Change, text: str) -> Iterator[marker.Mark]:
        return marker.read(text, key=self.marker_key, ref=change.ref, repository_id=change.repository_id)

    async def _reached(self, what: str) -> None:
        async def ask() -> None:
            if self.read_faults:
                raise self.read_faults.pop(0)

        await patiently(ask, clock=self.clock, forge=self.name, what=what)

    def _takes(self, ref: ChangeRef, comment: Comment) -> bool:
        if ref not in self.lines:
            return True
        hunks = self.lines[ref].get((comment.path, comment.side), ())
        return any(comment.line in hunk and comment.start_line in hunk for hunk in hunks)
