"""Publish one job: the stored report → what the forge lacks of it → posted. Safe to run again after any death."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import structlog

from worker.core import marker
from worker.core.change import Change
from worker.core.comments import Comment, Marking, Voice, comments, continued_text, note_text, summary_text
from worker.core.counting import counted
from worker.core.errors import NotFound, OutcomeUnknown, Refused, Unreachable
from worker.core.job import Claim, Job, State
from worker.core.marker import LAST, MORE, SUMMARY, Mark, Told
from worker.ports import Clock, Forge, Jobs, Posted
from worker.review.freshness import Freshness, reason_unpostable
from worker.review.lease import Lease
from worker.review.records import REPORT, dump_posted, load_posted, load_report

log = structlog.get_logger()

POSTED = "posted"
"""The checkpoint that names what the forge confirmed; its own lists may lag behind."""
NOTE = "note"
"""The fingerprint of the plain comment that says why there is no review."""
LOOKS_S = (2.0, 5.0, 10.0)
"""Waits before each look for a post whose outcome is unknown: the forge may still be at it."""


@dataclass(frozen=True, slots=True)
class Publishing:
    """The ports and settings of publishing, the same for all jobs of a forge."""

    jobs: Jobs
    clock: Clock
    marker_key: bytes = field(repr=False)
    voice: Voice = field(default_factory=Voice)
    settle_s: float = 0.0
    settings_hash: str = ""
    reviews_drafts: bool = True

    def freshness(self, forge: Forge) -> Freshness:
        return Freshness(forge, self.jobs, self.clock, settle_s=self.settle_s, settings_hash=self.settings_hash)


@dataclass(frozen=True, slots=True)
class Published:
    """What one run did. `comments` were posted now, `already` before; `skipped` says why nothing was posted."""

    comments: int = 0
    already: int = 0
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one POST carries."""

    text: str
    fingerprint: str
    """Of the review's own body: `SUMMARY`, or of a continuation."""
    comments: tuple[Comment, ...]
    says: tuple[str, ...] = ()
    """`MORE` or `LAST`: a look from outside can then tell a review of several posts from the first of them alone."""

    def is_on(self, posted: Posted) -> bool:
        if self.fingerprint == SUMMARY:
            return posted.has_summary
        return any(comment.fingerprint in posted.fingerprints for comment in self.comments)


async def publish_job(lease: Lease, *, forge: Forge, publishing: Publishing) -> Published:
    """Post the review of a job that was claimed for publishing, and move the job to its end.

    Before each POST the lease is renewed and a newer head is looked for; an unknown outcome is looked
    up before anything is posted again. Raises `Superseded`, `LeaseLost`, `Transient`, `OutcomeUnknown`
    and `Refused` for the caller to answer; running again goes on where this ended.
    """
    jobs, claim, job = publishing.jobs, lease.claim, lease.job
    records = await jobs.load(job.id)
    if REPORT not in records:
        raise NotFound(f"Job {job.id} has no stored report. Review the change again: kimi-review dead retry {job.id}")
    report = load_report(records[REPORT])
    freshness = publishing.freshness(forge)
    change = await freshness.change_at(job, report.head)
    if reason := reason_unpostable(change, reviews_drafts=publishing.reviews_drafts):
        return await _skipped(claim, reason, jobs)

    record = records.get(POSTED)
    has_summary, fingerprints = load_posted(record)
    known = Posted(has_summary=has_summary, fingerprints=fingerprints)
    run = _Run(lease, change, forge, publishing, known, record)
    posted = await run.look()
    wanted = comments(report, publishing.voice, raised=posted.earlier, counted_before=posted.counted)
    missing = [comment for comment in wanted if comment.fingerprint not in posted.fingerprints]
    summary = ""
    if not posted.has_summary:
        summary = summary_text(
            report,
            publishing.voice,
            raised=posted.earlier,
            counted_before=posted.counted,
            marking=run.marking(),
        )
    try:
        for batch in _batches(summary, missing, total=len(wanted), size=forge.comments_per_post):
            await run.post(batch)
    except Refused:
        # A push, a closing or a lock between the look and the POST shows as a refusal, and is no failure.
        if reason := reason_unpostable(await freshness.change_at(job, report.head)):
            return await _skipped(claim, reason, jobs)
        raise
    done = f"posted {counted(len(missing), 'comment')}" + ("" if posted.has_summary else " and the summary")
    if posted.has_summary and not missing:
        done = "everything was posted before"
    await jobs.advance(claim, State.DONE, reason=done)
    log.info("review.published", comments=len(missing), already_posted=len(wanted) - len(missing))
    return Published(comments=len(missing), already=len(wanted) - len(missing))


async def _skipped(claim: Claim, reason: str, jobs: Jobs) -> Published:
    await jobs.advance(claim, State.SKIPPED, reason=reason)
    log.info("review.not_posted", reason=reason)
    return Published(skipped=reason)


async def post_note(job: Job, reason: str, *, forge: Forge, publishing: Publishing) -> bool:
    """Say once on the change why it got no review. Whether something was posted now."""
    change = await forge.change(job.ref)
    if reason_unpostable(change) or (job.head and change.head != job.head):
        return False
    # A job can die after its review was seen: to deny that review would be untrue.
    if NOTE in await forge.noted(change) or (await forge.posted(change)).has_summary:
        return False
    text = note_text(reason, mask=publishing.voice.mask)
    await forge.note(change, f"{_mark(job, change, NOTE, publishing.marker_key)}\n{text}")
    log.info("review.noted", reason=reason)
    return True


@dataclass(slots=True)
class _Run:
    """One run of publishing; `known`, and its checkpoint `record`, grow with every POST that the forge confirmed."""

    lease: Lease
    change: Change
    forge: Forge
    publishing: Publishing
    known: Posted
    record: bytes | None

    async def look(self) -> Posted:
        """What is on the change: by the forge's lists, and by what it confirmed to an earlier run of this job."""
        seen = await self.forge.posted(self.change)
        return Posted(
            has_summary=seen.has_summary or self.known.has_summary,
            fingerprints=seen.fingerprints | self.known.fingerprints,
            earlier=seen.earlier - self.known.fingerprints,
            counted=seen.counted - self.known.fingerprints,
        )

    def marking(self) -> Marking:
        """For the summary: what stands in front of it at most is taken off its room."""
        job, change, key = self.lease.job, self.change, self.publishing.marker_key

        def write(fingerprints: Sequence[str], is_counted: bool) -> str:
            told = Told(job.id, change.head, tuple(fingerprints), is_counted=is_counted)
            return marker.write_told(told, key=key, ref=change.ref, repository_id=change.repository_id)

        return Marking(write, limit=self.forge.body_limit - len(self._marked("", SUMMARY, MORE)))

    async def post(self, batch: _Batch) -> None:
        await self._check()
        with self.lease.unbroken():
            try:
                await self._send(batch)
            except OutcomeUnknown as error:
                log.warning("forge.outcome_unknown", error=str(error))
                # To come back in a second, because the store is away, would be to post beside what still arrives.
                with suppress(Unreachable):
                    await self.publishing.jobs.decided(self.lease.job.id, "post.outcome_unknown", str(error))
                if not await self._arrived(batch):
                    # So long after the last look somebody may have pushed, and no delivery have told it yet.
                    await self.publishing.freshness(self.forge).change_at(self.lease.job, self.change.head)
                    await self._check()
                    await self._send(batch)
            await self._confirmed(batch)

    async def _send(self, batch: _Batch) -> None:
        await self.forge.post(
            self.change,
            summary=self._marked(batch.text, batch.fingerprint, *batch.says),
            comments=[
                replace(comment, body=self._marked(comment.body, comment.fingerprint)) for comment in batch.comments
            ],
        )

    async def _arrived(self, batch: _Batch) -> bool:
        for wait_s in LOOKS_S:
            await self.publishing.clock.sleep(wait_s)
            if batch.is_on(await self.forge.posted(self.change)):
                return True
        return False

    async def _check(self) -> None:
        """Raise `Superseded` or `LeaseLost` unless this run may still post. The lease then outlasts the POST."""
        await self.lease.renew()
        await self.lease.check()
        self.lease.check_clock()

    async def _confirmed(self, batch: _Batch) -> None:
        self.known = Posted(
            has_summary=self.known.has_summary or batch.fingerprint == SUMMARY,
            fingerprints=self.known.fingerprints | {comment.fingerprint for comment in batch.comments},
        )
        self.record = dump_posted(
            has_summary=self.known.has_summary, fingerprints=self.known.fingerprints, over=self.record
        )
        await self.publishing.jobs.save(self.lease.claim, POSTED, self.record)
        await self.publishing.jobs.decided(
            self.lease.job.id, "review.posted", f"{batch.fingerprint}, {counted(len(batch.comments), 'comment')}"
        )

    def _marked(self, text: str, *fingerprints: str) -> str:
        marks = (_mark(self.lease.job, self.change, said, self.publishing.marker_key) for said in fingerprints)
        return f"{''.join(marks)}\n{text}"


def _batches(summary: str, missing: Sequence[Comment], *, total: int, size: int) -> Iterator[_Batch]:
    """The POSTs in order: the summary with the worst findings first, then continuations."""
    slices = [tuple(missing[at : at + size]) for at in range(0, len(missing), size)]
    if summary:
        first_slice = slices.pop(0) if slices else ()
        yield _Batch(summary, SUMMARY, first_slice, says=(MORE,) if slices else ())
    last = total - sum(len(part) for part in slices)
    for part in slices:
        first, last = last + 1, last + len(part)
        text = continued_text(first=first, last=last, total=total)
        yield _Batch(text, f"continued-{first}", part, says=(LAST,) if part is slices[-1] else ())


def _mark(job: Job, change: Change, fingerprint: str, key: bytes) -> str:
    mark = Mark(job=job.id, head=change.head, fingerprint=fingerprint)
    return marker.write(mark, key=key, ref=change.ref, repository_id=change.repository_id)
