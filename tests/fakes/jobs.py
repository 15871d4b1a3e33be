"""Job records in memory: the same answers as Redis gives, held to it by `tests/contracts/test_job_*.py`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from worker.core.change import ChangeRef
from worker.core.errors import LeaseLost, NotFound, Superseded
from worker.core.job import Accepted, Claim, Decision, Due, Intent, Job, NotClaimed, Priority, Stage, State

MAX_DEATHS = 3
WAKE_GRACE_S = 2.0
CROWD = 10
LEFT_WAIT_S = 5.0


@dataclass
class _Record:
    job: Job
    digest: str
    stage: Stage = Stage.REVIEW
    deaths: int = 0
    token: int = 0
    worker: str = ""
    lease_until: float | None = None
    left_to_newer: bool = False
    """Whether workers of this version are refused it."""
    woken_until: float = 0.0
    due_at: float = 0.0
    waits_since: float = 0.0
    saved: dict[str, bytes] = field(default_factory=dict)
    log: list[Decision] = field(default_factory=list)


@dataclass
class _Line:
    """What is known of one change: its newest head and the jobs for each of its heads."""

    generation: int = 0
    head: str = ""
    current: str = ""
    by_digest: dict[str, str] = field(default_factory=dict)
    rounds: dict[str, int] = field(default_factory=dict)


class FakeJobs:
    """Implements `ports.Jobs`. `now` is the store's clock, in Unix seconds."""

    def __init__(self, *, lease_s: float = 20.0, now: Callable[[], float] = time.time) -> None:
        self._lease_s = lease_s
        self._now = now
        self._records: dict[str, _Record] = {}
        self._lines: dict[ChangeRef, _Line] = {}
        self._deliveries: dict[tuple[str, str], str] = {}
        self._notes: dict[str, float] = {}
        self._token = 0
        self._paused = ""
        self._ignored: list[tuple[ChangeRef, Decision]] = []
        self._leader: tuple[str, float] = ("", 0.0)

    async def accept(self, intent: Intent) -> Accepted:
        seen = self._deliveries.get((intent.ref.forge, intent.delivery)) if intent.delivery else None
        if seen is not None and seen in self._records:
            record = self._records[seen]
            if record.job.state is State.FAILED:
                self._queue_again(record, self._now() + intent.settle_s, "delivered again after a failure")
            return Accepted(seen, record.job.state, is_new=False)
        accepted = self._accept(intent)
        if intent.delivery:
            self._deliveries[intent.ref.forge, intent.delivery] = accepted.job
        return accepted

    def _accept(self, intent: Intent) -> Accepted:
        line = self._lines.setdefault(intent.ref, _Line())
        digest = _digest(intent.ref, intent.head, intent.settings_hash)
        known = self._records.get(line.by_digest.get(digest, ""))
        if known is not None:
            job = known.job
            is_same = job.state is State.QUEUED and not job.head and job.attempt == 0
            if intent.head and not job.state.is_final:
                if line.current != job.id:
                    self._make_current(line, known, intent.head)
                self._hurry(known, intent.priority)
                return Accepted(job.id, job.state, is_new=False)
            if not intent.head and is_same:
                self._hurry(known, intent.priority)
                return Accepted(job.id, job.state, is_new=False)
            if intent.head and job.state is State.DONE and not intent.force:
                if line.current != job.id:
                    self._make_current(line, known, intent.head)
                return Accepted(job.id, job.state, is_new=False)
            if intent.head and job.state is not State.DONE:
                self._make_current(line, known, intent.head)
                known.job = replace(known.job, is_forced=known.job.is_forced or intent.force)
                self._queue_again(known, self._now() + intent.settle_s, f"accepted again, it was {job.state}")
                return Accepted(job.id, known.job.state, is_new=False)
        return self._make(intent, line, digest)

    def _make(self, intent: Intent, line: _Line, digest: str) -> Accepted:
        now = self._now()
        line.rounds[digest] = line.rounds.get(digest, 0) + 1
        job_id = hashlib.sha256(f"{digest}:{line.rounds[digest]}".encode()).hexdigest()[:20]
        job = Job(
            id=job_id,
            ref=intent.ref,
            head=intent.head,
            priority=self._priority_of(intent),
            state=State.QUEUED,
            generation=line.generation,
            not_before=now + intent.settle_s,
            created_at=now,
            updated_at=now,
            is_forced=intent.force,
        )
        record = _Record(job, digest)
        record.due_at, record.waits_since = max(job.not_before, now + WAKE_GRACE_S), job.not_before
        self._records[job_id] = record
        line.by_digest[digest] = job_id
        if intent.head:
            self._make_current(line, record, intent.head)
        self._note(record, "job.queued", "accepted")
        record.job = replace(record.job, reason="accepted")
        return Accepted(job_id, State.QUEUED, is_new=True, priority=job.priority)

    def _priority_of(self, intent: Intent) -> Priority:
        """A repository with many open jobs lets others pass with its further ones."""
        name = (intent.ref.forge, intent.ref.repository)
        jobs = [record.job for record in self._records.values()]
        open_jobs = [
            job
            for job in jobs
            if (job.ref.forge, job.ref.repository) == name
            and not job.state.is_final
            and job.priority is not Priority.BATCH
        ]
        is_crowd = intent.priority is Priority.INTERACTIVE and len(open_jobs) >= CROWD
        return Priority.CROWD if is_crowd else intent.priority

    def _make_current(self, line: _Line, record: _Record, head: str) -> None:
        old = self._records.get(line.current)
        if old is not None and old is not record and not old.job.state.is_final:
            old.job = replace(old.job, superseded_by=head)
            if self._is_leased(old):
                self._note(old, "job.outdated", f"a newer head was accepted: {head}")
            else:
                self._move(old, State.SUPERSEDED, f"a newer head was accepted: {head}")
        line.generation += 1
        line.current, line.head = record.job.id, head
        record.job = replace(record.job, generation=line.generation, superseded_by="")

    def _hurry(self, record: _Record, priority: Priority) -> None:
        if priority is Priority.INTERACTIVE:
            record.job = replace(record.job, priority=priority)

    async def claim(self, job_id: str, *, worker: str, states: Sequence[State]) -> Claim | NotClaimed:
        record = self._records.get(job_id)
        if record is None:
            return NotClaimed("there is no such job")
        if record.job.state.is_final:
            return NotClaimed(f"already {record.job.state}")
        if self._paused:
            return NotClaimed(f"the fleet is paused: {self._paused}")
        if self._is_leased(record):
            return NotClaimed(f"leased by {record.worker}")
        line = self._lines[record.job.ref]
        if record.job.generation < line.generation:
            newer = record.job.superseded_by or line.head
            record.job = replace(record.job, superseded_by=newer)
            self._move(record, State.SUPERSEDED, f"a newer head was accepted: {newer}")
            return NotClaimed(f"superseded by {newer}")
        if record.job.not_before > self._now():
            return NotClaimed(f"not before {record.job.not_before:.6f}")
        if record.left_to_newer:
            return NotClaimed(record.job.reason)
        publishes = record.stage is Stage.PUBLISH
        state = record.job.state
        if state is State.DEFERRED:
            state = State.REVIEWED if publishes else State.QUEUED
        if state not in states:
            return NotClaimed(f"it is {record.job.state}")
        words = f"attempt {record.job.attempt} by {record.worker} ended without a word"
        if record.lease_until is not None and self._died(record, words):
            return NotClaimed(f"failed: {record.job.reason}")
        self._token += 1
        record.token, record.worker = self._token, worker
        record.lease_until = record.due_at = record.waits_since = self._now() + self._lease_s
        record.job = replace(record.job, attempt=record.job.attempt + 1)
        self._move(
            record, State.PUBLISHING if publishes else State.RUNNING, f"attempt {record.job.attempt} by {worker}"
        )
        return Claim(record.job, record.token, self._lease_s)

    async def renew(self, claim: Claim) -> None:
        record = self._owned(claim)
        record.lease_until = record.due_at = record.waits_since = self._now() + self._lease_s

    async def save(self, claim: Claim, name: str, value: bytes) -> None:
        self._owned(claim).saved[name] = value

    async def load(self, job_id: str) -> Mapping[str, bytes]:
        return dict(self._records[job_id].saved) if job_id in self._records else {}

    async def advance(self, claim: Claim, state: State, *, reason: str = "") -> None:
        record = self._owned(claim)
        self._stage(record, state)
        self._move(record, state, reason)

    async def release(self, claim: Claim, state: State, *, reason: str, wait_s: float = 0.0) -> None:
        record = self._records.get(claim.job.id)
        is_settled = record is not None and record.token == claim.token and record.lease_until is None
        if record is not None and is_settled and record.job.state is state:
            return
        self._give_back(self._owned(claim), state, reason, wait_s, grace_s=WAKE_GRACE_S)

    async def hand_back(self, claim: Claim, *, reason: str) -> None:
        record = self._owned(claim)
        record.job = replace(record.job, attempt=max(0, record.job.attempt - 1))
        self._give_back(record, claim.job.waiting_state, reason, 0.0)

    async def died(self, claim: Claim, *, reason: str, wait_s: float = 0.0) -> None:
        record = self._owned(claim)
        if not self._died(record, reason):
            self._give_back(record, claim.job.waiting_state, reason, wait_s)

    async def leave(self, claim: Claim, *, reason: str) -> None:
        record = self._owned(claim)
        record.job = replace(record.job, attempt=max(0, record.job.attempt - 1))
        self._give_back(record, claim.job.waiting_state, "left to a newer version of this program", LEFT_WAIT_S)
        record.left_to_newer = True
        self._pass_over(record, record.worker, reason)

    async def pass_over(self, job_id: str, *, worker: str, reason: str) -> None:
        record = self._records.get(job_id)
        if record is not None and not record.job.state.is_final and not self._is_leased(record):
            self._pass_over(record, worker, reason)

    async def left(self) -> int:
        return sum(record.job.is_left for record in self._records.values())

    async def note_head(self, claim: Claim, head: str) -> None:
        record = self._owned(claim)
        if record.job.head == head:
            return
        line = self._lines[record.job.ref]
        digest = _digest(record.job.ref, head, record.digest.split(":")[0])
        other = self._records.get(line.by_digest.get(digest, ""))
        gone = (State.FAILED, State.SUPERSEDED, State.SKIPPED)
        if other is not None and other.job.state not in gone and not record.job.is_forced:
            self._move(
                record, State.SKIPPED, f"the head {head} already has job {other.job.id}, which is {other.job.state}"
            )
            raise Superseded(f"The head {head[:12]} already has job {other.job.id}.", by=head)
        if record.job.generation < line.generation:
            record.job = replace(record.job, superseded_by=line.head)
            self._move(record, State.SUPERSEDED, f"a newer head was accepted: {line.head}")
            raise Superseded(f"The head {line.head[:12]} was accepted meanwhile.", by=line.head)
        self._make_current(line, record, head)
        line.by_digest[digest] = record.job.id
        record.job = replace(record.job, head=head)
        self._note(record, "head.noted", head)

    async def is_current(self, claim: Claim) -> bool:
        record = self._records.get(claim.job.id)
        if record is None or record.token != claim.token or not self._is_leased(record):
            return False
        return record.job.generation >= self._lines[record.job.ref].generation

    async def decided(self, job_id: str, event: str, detail: str = "") -> None:
        if job_id in self._records:
            self._note(self._records[job_id], event, detail)

    async def decisions(self, job_id: str) -> Sequence[Decision]:
        return list(self._records[job_id].log) if job_id in self._records else []

    async def get(self, job_id: str) -> Job | None:
        record = self._records.get(job_id)
        return record.job if record else None

    async def find(self, ref: ChangeRef) -> Sequence[Job]:
        return [job for job in await self.list() if job.ref == ref]

    async def list(self, *, states: Sequence[State] = (), limit: int = 100) -> Sequence[Job]:
        newest = [record.job for record in reversed(self._records.values())]
        return [job for job in newest if not states or job.state in states][:limit]

    async def counts(self) -> Mapping[State, int]:
        states = [record.job.state for record in self._records.values()]
        return {state: states.count(state) for state in State}

    async def longest_waits(self) -> Mapping[tuple[Stage, Priority], float]:
        waits = {(stage, priority): 0.0 for stage in Stage for priority in Priority}
        for record in self._records.values():
            if not record.job.state.is_final:
                kind = record.stage, record.job.priority
                waits[kind] = max(waits[kind], self._now() - record.waits_since)
        return waits

    async def hasten(self, reason: str) -> int:
        now = self._now()
        deferred = [
            record
            for record in self._records.values()
            if record.job.state is State.DEFERRED and record.job.not_before > now
        ]
        for record in deferred:
            record.job = replace(record.job, not_before=now)
            record.due_at = record.waits_since = now
            self._note(record, "job.hastened", reason)
        return len(deferred)

    async def retry(self, job_id: str) -> Job:
        record = self._dead(job_id)
        self._queue_again(record, self._now(), "retried by hand")
        return record.job

    async def drop(self, job_id: str) -> None:
        self._dead(job_id)
        del self._records[job_id]
        self._notes.pop(job_id, None)

    async def due(self, priority: Priority, *, limit: int, again_s: float) -> Sequence[Due]:
        if self._paused:
            return []
        waiting = [
            record
            for record in self._records.values()
            if not record.job.state.is_final and record.job.priority is priority and record.due_at <= self._now()
        ]
        waiting.sort(key=lambda record: record.due_at)
        for record in waiting[:limit]:
            record.due_at = self._now() + again_s
        return [Due(record.job.id, record.stage, priority) for record in waiting[:limit]]

    async def urgent(self, *, limit: int, again_s: float) -> Sequence[Due]:
        if self._paused:
            return []
        begun = [
            record
            for record in self._records.values()
            if not record.job.state.is_final and (record.lease_until is not None or record.stage is Stage.PUBLISH)
        ]
        urgent = [
            record for record in begun if max(record.lease_until or record.due_at, record.woken_until) <= self._now()
        ][:limit]
        for record in urgent:
            record.woken_until = self._now() + again_s
        return [Due(record.job.id, record.stage, record.job.priority) for record in urgent]

    async def untold(self, *, limit: int, again_s: float) -> Sequence[Job]:
        ids = [job_id for job_id, at in self._notes.items() if at <= self._now()][:limit]
        for job_id in ids:
            self._notes[job_id] = self._now() + again_s
        return [self._records[job_id].job for job_id in ids]

    async def told(self, job_id: str) -> None:
        self._notes.pop(job_id, None)

    async def leads(self, who: str, *, for_s: float) -> bool:
        leader, until = self._leader
        if leader != who and until > self._now():
            return False
        self._leader = (who, self._now() + for_s)
        return True

    async def trim(self) -> None:
        """Nothing expires here."""

    async def note_ignored(self, ref: ChangeRef, reason: str) -> None:
        self._ignored.append((ref, Decision(self._now(), "delivery.ignored", reason)))

    async def ignored(self, ref: ChangeRef) -> Sequence[Decision]:
        return [noted for of, noted in self._ignored if of == ref]

    async def pause(self, reason: str) -> None:
        self._paused = reason or "by command"

    async def resume(self) -> None:
        self._paused = ""

    async def paused(self) -> str:
        return self._paused

    # ----------------------------------------------------------------------------------------------

    def _is_leased(self, record: _Record) -> bool:
        return record.lease_until is not None and record.lease_until > self._now()

    def _owned(self, claim: Claim) -> _Record:
        record = self._records.get(claim.job.id)
        if record is None or record.lease_until is None or record.token != claim.token:
            raise LeaseLost(f"Job {claim.job.id} is no longer attempt {claim.job.attempt}'s: stop, write nothing.")
        return record

    def _dead(self, job_id: str) -> _Record:
        record = self._records.get(job_id)
        if record is None or record.job.state is not State.FAILED:
            raise NotFound(f"There is no dead letter {job_id}.")
        return record

    def _pass_over(self, record: _Record, worker: str, reason: str) -> None:
        self._note(record, "job.left", f"by {worker}: {reason}")
        record.job = replace(record.job, reason=reason, not_before=0.0, is_left=True)
        record.due_at = self._now() + LEFT_WAIT_S

    def _note(self, record: _Record, event: str, detail: str) -> None:
        record.log.append(Decision(self._now(), event, detail))
        del record.log[:-200]

    def _stage(self, record: _Record, state: State) -> None:
        if state is State.REVIEWED and record.stage is Stage.REVIEW:
            record.stage, record.deaths = Stage.PUBLISH, 0
            record.job = replace(record.job, attempt=0)

    def _move(self, record: _Record, state: State, reason: str) -> None:
        if record.job.state is not state:
            self._note(record, f"job.{state}", reason)
        superseded_by = record.job.superseded_by
        if state is State.SUPERSEDED and not superseded_by:
            superseded_by = self._lines[record.job.ref].head
        record.job = replace(
            record.job, state=state, reason=reason, updated_at=self._now(), superseded_by=superseded_by, is_left=False
        )
        record.left_to_newer = False
        if state.is_final:
            record.lease_until = None
        if state is State.FAILED:
            self._notes[record.job.id] = self._now()

    def _give_back(self, record: _Record, state: State, reason: str, wait_s: float, *, grace_s: float = 0.0) -> None:
        self._stage(record, state)
        self._move(record, state, reason)
        if not state.is_final:
            record.lease_until = None
            record.job = replace(record.job, not_before=self._now() + wait_s)
            record.due_at = self._now() + max(wait_s, grace_s)
            record.waits_since = record.job.not_before

    def _died(self, record: _Record, reason: str) -> bool:
        record.deaths += 1
        record.lease_until = None
        self._note(record, "attempt.died", reason)
        if record.deaths < MAX_DEATHS:
            return False
        self._move(record, State.FAILED, f"died {record.deaths} times, the last time: {reason}")
        return True

    def _queue_again(self, record: _Record, when: float, reason: str) -> None:
        self._notes.pop(record.job.id, None)
        record.deaths, record.lease_until = 0, None
        record.job = replace(record.job, attempt=0, not_before=when, superseded_by="")
        self._move(record, State.REVIEWED if record.stage is Stage.PUBLISH else State.QUEUED, reason)
        record.due_at, record.waits_since = max(when, self._now() + WAKE_GRACE_S), when


def _digest(ref: ChangeRef, head: str, settings_hash: str) -> str:
    return f"{settings_hash}:{ref}:{head}"
