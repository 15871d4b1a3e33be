"""The job records in Redis: each step of a job's life is one script, so that it happens whole or not at all."""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import redis.asyncio

from worker import __version__
from worker.core.change import ChangeRef
from worker.core.errors import LeaseLost, NotFound, Superseded
from worker.core.job import (
    RECORD_VERSION,
    Accepted,
    Claim,
    Decision,
    Due,
    Intent,
    Job,
    NotClaimed,
    Priority,
    Stage,
    State,
)
from worker.storage.connection import PREFIX
from worker.storage.faults import answering

LEASE_S = 15.0
"""A heartbeat comes every quarter of it; a job whose worker was killed is taken over within this plus two seconds."""

SPREAD = 0.1
"""Deferred jobs wake spread over this share of their wait, so that a fleet does not come back as one."""
LONGEST_SPREAD_S = 300.0

HASTENED_AT_ONCE = 1_000
"""Deferred jobs that one step looks through, so that heartbeats come between two of them."""

KEPT_IGNORED = 10_000
"""Reasons why deliveries became no job, of all changes together: about a megabyte."""
IGNORED = "delivery.ignored"

KNOWN_STATES = frozenset(State)
KNOWN_STAGES = frozenset(Stage)
KNOWN_PRIORITIES = frozenset(Priority)

KINDS_OF_WAIT = tuple((stage, priority) for stage in Stage for priority in Priority)
READ_ONLY = frozenset({"waits"})
"""Scripts that write nothing: a store that takes no writes answers them all the same."""


class RedisJobs:
    """Implements `ports.Jobs`. One instance per event loop; the caller closes the client."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        *,
        lease_s: float = LEASE_S,
        prefix: str = PREFIX,
        version: int = RECORD_VERSION,
        program: str = __version__,
    ) -> None:
        """`version` is of the records, `program` of the program: tests let two of them work on one store."""
        self._client = client
        self._lease_s = lease_s
        self._prefix = prefix
        self._version = version
        self._program = program

    # ---------------------------------------------------------------------------------- life of a job

    async def accept(self, intent: Intent) -> Accepted:
        ref = intent.ref
        job, state, is_new, *given = await self._run(
            "accept",
            ref.forge,
            ref.repository,
            ref.number,
            intent.head,
            intent.priority.value,
            intent.delivery,
            intent.settings_hash,
            intent.settle_s,
            "1" if intent.force else "",
        )
        priority = Priority(_text(given[0])) if given else intent.priority
        return Accepted(job=_text(job), state=_state(_text(state)), is_new=is_new == b"1", priority=priority)

    async def claim(self, job_id: str, *, worker: str, states: Sequence[State]) -> Claim | NotClaimed:
        names = ",".join(state.value for state in states)
        nonce = secrets.token_hex(8)
        token, *rest = await self._run(
            "claim",
            job_id,
            worker,
            self._lease_s,
            names,
            nonce,
            self._program,
            random.random(),  # noqa: S311 - no secret
        )
        if not token:
            return NotClaimed(_text(rest[0]))
        record = dict(zip(rest[::2], rest[1::2], strict=True))
        return Claim(job=_job(record), token=int(token), lease_s=self._lease_s)

    async def renew(self, claim: Claim) -> None:
        self._fenced(claim, await self._run("renew", claim.job.id, claim.token, self._lease_s))

    async def save(self, claim: Claim, name: str, value: bytes) -> None:
        self._fenced(claim, await self._run("save", claim.job.id, claim.token, name, value))

    async def load(self, job_id: str) -> Mapping[str, bytes]:
        with answering():
            saved = await self._client.hgetall(self._key("job", job_id, "saved"))
        return {_text(name): _bytes(value) for name, value in saved.items()}

    async def advance(self, claim: Claim, state: State, *, reason: str = "") -> None:
        await self._move(claim, state, reason, 0.0, "keep")

    async def release(self, claim: Claim, state: State, *, reason: str, wait_s: float = 0.0) -> None:
        if state is State.DEFERRED:
            wait_s += random.uniform(0.0, min(wait_s * SPREAD, LONGEST_SPREAD_S))  # noqa: S311 - no secret
        await self._move(claim, state, reason, wait_s, "release")

    async def hand_back(self, claim: Claim, *, reason: str) -> None:
        await self._move(claim, claim.job.waiting_state, reason, 0.0, "hand back")

    async def died(self, claim: Claim, *, reason: str, wait_s: float = 0.0) -> None:
        await self._move(claim, claim.job.waiting_state, reason, wait_s, "died")

    async def leave(self, claim: Claim, *, reason: str) -> None:
        self._fenced(claim, await self._left(claim.job.id, str(claim.token), "", reason))

    async def pass_over(self, job_id: str, *, worker: str, reason: str) -> None:
        await self._left(job_id, "", worker, reason)

    async def left(self) -> int:
        with answering():
            return int(await self._client.zcard(self._key("left")))

    async def note_head(self, claim: Claim, head: str) -> None:
        answer, *other = await self._run("head", claim.job.id, claim.token, head)
        self._fenced(claim, answer)
        if other:
            raise Superseded(f"Job {_text(other[0])} is already there for the head of {claim.job.ref}.", by=head)

    async def is_current(self, claim: Claim) -> bool:
        return bool(await self._run("current", claim.job.id, claim.token))

    # ----------------------------------------------------------------------------------- the record

    async def decided(self, job_id: str, event: str, detail: str = "") -> None:
        await self._run("decided", job_id, event, detail)

    async def decisions(self, job_id: str) -> Sequence[Decision]:
        with answering():
            rows = await self._client.lrange(self._key("job", job_id, "log"), 0, -1)
        lines = [json.loads(_text(row)) for row in rows]
        # A newer program may have added to a line's end.
        return [Decision(at=float(at), event=event, detail=detail) for at, event, detail, *_ in lines]

    async def get(self, job_id: str) -> Job | None:
        return next(iter(await self._read([job_id])), None)

    async def find(self, ref: ChangeRef) -> Sequence[Job]:
        with answering():
            ids = await self._client.zrevrange(self._key("change", str(ref), "jobs"), 0, -1)
        return await self._read([_text(job_id) for job_id in ids])

    async def list(self, *, states: Sequence[State] = (), limit: int = 100) -> Sequence[Job]:
        with answering():
            async with self._client.pipeline(transaction=False) as pipe:
                for state in states or State:
                    pipe.zrevrange(self._key("state", state.value), 0, limit - 1)
                found = await pipe.execute()
        jobs = await self._read([_text(job_id) for ids in found for job_id in ids])
        return sorted(jobs, key=lambda job: job.created_at, reverse=True)[:limit]

    async def counts(self) -> Mapping[State, int]:
        with answering():
            async with self._client.pipeline(transaction=False) as pipe:
                for state in State:
                    pipe.zcard(self._key("state", state.value))
                return dict(zip(State, await pipe.execute(), strict=True))

    async def longest_waits(self) -> Mapping[tuple[Stage, Priority], float]:
        waited = await self._run("waits", *_words(KINDS_OF_WAIT))
        return {kind: float(_text(seconds)) for kind, seconds in zip(KINDS_OF_WAIT, waited, strict=True)}

    async def hasten(self, reason: str) -> int:
        seen = hastened = 0
        looked_at = HASTENED_AT_ONCE
        while looked_at == HASTENED_AT_ONCE:
            looked_at, due_now = await self._run("hasten", reason, seen, HASTENED_AT_ONCE)
            seen += looked_at
            hastened += due_now
        return hastened

    async def retry(self, job_id: str) -> Job:
        if not await self._run("retry", job_id):
            raise NotFound(f"There is no dead letter {job_id}. `kimi-review dead list` shows them all.")
        job = await self.get(job_id)
        if job is None:
            raise NotFound(f"Job {job_id} was dropped meanwhile.")
        return job

    async def drop(self, job_id: str) -> None:
        if not await self._run("drop", job_id):
            raise NotFound(f"There is no dead letter {job_id}. `kimi-review dead list` shows them all.")

    # -------------------------------------------------------------------------------------- upkeep

    async def due(self, priority: Priority, *, limit: int, again_s: float) -> Sequence[Due]:
        flat = await self._run("due", priority.value, limit, again_s)
        return [
            Due(job=_text(job), stage=_stage(_text(stage)), priority=priority)
            for job, stage in zip(flat[::2], flat[1::2], strict=True)
        ]

    async def urgent(self, *, limit: int, again_s: float) -> Sequence[Due]:
        flat = [_text(word) for word in await self._run("urgent", limit, again_s)]
        return [
            Due(job=job, stage=_stage(stage), priority=_priority(priority))
            for job, stage, priority in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        ]

    async def untold(self, *, limit: int, again_s: float) -> Sequence[Job]:
        ids = await self._run("untold", limit, again_s)
        return await self._read([_text(job_id) for job_id in ids])

    async def told(self, job_id: str) -> None:
        with answering():
            await self._client.zrem(self._key("notes"), job_id)

    async def leads(self, who: str, *, for_s: float) -> bool:
        return bool(await self._run("lead", who, int(for_s * 1000)))

    async def trim(self) -> None:
        await self._run("trim", *_words(KINDS_OF_WAIT))

    async def note_ignored(self, ref: ChangeRef, reason: str) -> None:
        with answering():
            seconds, microseconds = await self._client.time()
            noted = json.dumps({"change": str(ref), "at": seconds + microseconds / 1e6, "reason": reason})
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.lpush(self._key("ignored"), noted)
                pipe.ltrim(self._key("ignored"), 0, KEPT_IGNORED - 1)
                await pipe.execute()

    async def ignored(self, ref: ChangeRef) -> Sequence[Decision]:
        with answering():
            rows = await self._client.lrange(self._key("ignored"), 0, -1)
        noted = [json.loads(row) for row in reversed(rows)]
        return [Decision(one["at"], IGNORED, one["reason"]) for one in noted if one["change"] == str(ref)]

    async def pause(self, reason: str) -> None:
        with answering():
            await self._client.set(self._key("paused"), reason or "by command")

    async def resume(self) -> None:
        with answering():
            await self._client.delete(self._key("paused"))

    async def paused(self) -> str:
        with answering():
            reason = await self._client.get(self._key("paused"))
        return _text(reason or "")

    # ----------------------------------------------------------------------------------------------

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))

    async def _run(self, name: str, *arguments: str | bytes | float) -> Any:  # Any: what a script answers
        encoded = [value.encode("utf-8", "replace") if isinstance(value, str) else value for value in arguments]
        script = self._client.register_script(_script(name, self._version))
        with answering():
            return await script(keys=[self._prefix], args=encoded)

    async def _move(self, claim: Claim, state: State, reason: str, wait_s: float, lease: str) -> None:
        self._fenced(claim, await self._run("move", claim.job.id, claim.token, state.value, reason, wait_s, lease))

    async def _left(self, job_id: str, token: str, worker: str, reason: str) -> bytes:
        spread = random.random()  # noqa: S311 - no secret
        answer: bytes = await self._run("leave", job_id, token, worker, reason, self._program, spread)
        return answer

    def _fenced(self, claim: Claim, answer: bytes) -> None:
        if not answer:
            raise LeaseLost(
                f"Job {claim.job.id} is no longer held by attempt {claim.job.attempt}: stop, write nothing."
            )

    async def _read(self, ids: Sequence[str]) -> Sequence[Job]:
        if not ids:
            return []
        with answering():
            async with self._client.pipeline(transaction=False) as pipe:
                for job_id in ids:
                    pipe.hgetall(self._key("job", job_id))
                records = await pipe.execute()
        return [_job(record) for record in records if record]


@cache
def _script(name: str, version: int) -> str:
    """The text of `job_<name>.lua` behind what all of them share."""
    folder = files("worker.storage")
    shared = folder.joinpath("job_record.lua").read_text("utf-8").replace("@VERSION@", str(version))
    if name in READ_ONLY:
        shared = shared.replace("#!lua", "#!lua flags=no-writes", 1)
    return shared + folder.joinpath(f"job_{name}.lua").read_text("utf-8")


def _words(kinds: Sequence[tuple[Stage, Priority]]) -> list[str]:
    return [word.value for kind in kinds for word in kind]


# redis-py's types allow both for every answer; a client that does not decode gives bytes.
def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _bytes(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8")


# While a fleet is being upgraded, a newer program may have written what is not known here. The claim leaves such a job
# to a newer worker; until then it is shown, and woken for, as what comes nearest.


def _state(told: str) -> State:
    """One that is not known waits, since nobody here may work on it."""
    return State(told) if told in KNOWN_STATES else State.DEFERRED


def _stage(told: str) -> Stage:
    return Stage(told) if told in KNOWN_STAGES else Stage.REVIEW


def _priority(told: str) -> Priority:
    return Priority(told) if told in KNOWN_PRIORITIES else Priority.INTERACTIVE


def _job(record: Mapping[bytes, bytes]) -> Job:
    """Build the value from what is stored; fields that a newer program wrote are left alone."""

    def text(name: bytes) -> str:
        return _text(record.get(name, b""))

    def number(name: bytes) -> float:
        return float(record.get(name) or 0)

    told, left = text(b"state"), text(b"left")
    unknown = "" if told in KNOWN_STATES else f"{told}: a newer version of this program knows what that is"
    return Job(
        id=text(b"id"),
        ref=ChangeRef(forge=text(b"forge"), repository=text(b"repository"), number=int(number(b"number"))),
        head=text(b"head"),
        priority=_priority(text(b"priority")),
        state=_state(told),
        reason=left or unknown or text(b"reason"),
        attempt=int(number(b"attempt")),
        generation=int(number(b"generation")),
        not_before=number(b"not_before"),
        created_at=number(b"created_at"),
        updated_at=number(b"updated_at"),
        superseded_by=text(b"superseded_by"),
        version=int(number(b"version")),
        is_forced=text(b"forced") == "1",
        is_left=bool(left),
    )
