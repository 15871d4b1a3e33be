"""Analyse a plan: each chunk → one request → an answer that is saved as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from worker.core.answers import read_findings
from worker.core.errors import (
    AnswerCutOff,
    BudgetReached,
    ContentFiltered,
    RequestTooLong,
    Transient,
)
from worker.core.exchange import Answer, Prompt
from worker.core.finding import Claim
from worker.core.planning.plan import Chunk
from worker.core.report import Usage
from worker.review.asking import Asking
from worker.review.records import UNIT, SavedAnswer

log = structlog.get_logger()

UNREADABLE = "the model's answer could not be read"
FILTERED = "declined by the provider's content filter"
TOO_LONG = "longer than the model's window"
CUT_OFF = "the model's answer did not fit its limit"
UNANSWERED = "the model did not answer"
BUDGET = "budget"


@dataclass(frozen=True, slots=True)
class Workshop:
    """What planning offers for one chunk; bound to one plan by whoever made it."""

    render: Callable[[Chunk], Awaitable[Prompt]]
    """The request for a chunk, made late."""
    split: Callable[[Chunk], tuple[Chunk, ...]]
    """Smaller chunks that carry the same lines; empty when the chunk cannot be divided."""
    raise_cap: Callable[[Chunk], Chunk | None]
    """The same chunk with the whole answer's share; None when it has that already."""
    learn: Callable[[Prompt, Answer], Awaitable[None]]
    """Told what a request was billed, to estimate the next ones better."""


@dataclass(slots=True)
class Analysis:
    """What came of a plan: an entry for every chunk that was sent, those made by splitting included."""

    claims: list[tuple[Chunk, Claim]] = field(default_factory=list)
    outcomes: dict[str, tuple[Chunk, str | None]] = field(default_factory=dict)
    """Chunk id → the chunk, and None when it was answered or the reason in words why it was not."""
    usage: Usage = field(default_factory=Usage)
    models: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    transient: Transient | None = None
    """The last failure that might go away by itself."""
    is_out_of_budget: bool = False
    """Whether our own hard stop was reached: nothing more may be sent for this review."""

    def answered(self, chunk: Chunk, claims: tuple[Claim, ...], answer: Answer) -> None:
        self.outcomes[chunk.id] = (chunk, None)
        self.claims.extend((chunk, claim) for claim in claims)
        self.credit(answer)

    def credit(self, answer: Answer) -> None:
        """Count an answer that was paid for, whether it was of use or not."""
        self.pay(answer.usage)
        self.models.extend(name for name in [answer.model] if name not in self.models)
        self.notes.extend(note for note in answer.notes if note not in self.notes)

    def pay(self, usage: Usage | None) -> None:
        self.usage += usage or Usage()

    def failed(self, chunk: Chunk, reason: str, claims: tuple[Claim, ...] = ()) -> None:
        """Nobody can say what was looked at, so the lines are not reviewed; complete claims are worth telling."""
        self.outcomes[chunk.id] = (chunk, reason)
        self.claims.extend((chunk, claim) for claim in claims)


async def analyse(
    chunks: tuple[Chunk, ...],
    *,
    workshop: Workshop,
    asking: Asking,
    at_once: int,
) -> Analysis:
    """Send every chunk that has no saved answer, at most `at_once` waiting or in flight.

    A chunk that fails is named in `outcomes`; the others go on. Raises `Superseded` and `LeaseLost`, and
    `Refused` and `NotNow` as they come (what was answered stays saved); `BudgetReached` ends the sending alone.
    """
    run = _Run(Analysis(), workshop, asking, asyncio.Semaphore(at_once))
    try:
        async with asyncio.TaskGroup() as group:
            for chunk in chunks:
                group.create_task(run.one(chunk))
    except BaseExceptionGroup as several:
        # Every task died of its own error or of the first one's cancellation; the first says what to do.
        raise several.exceptions[0] from None
    return run.analysis


@dataclass(slots=True)
class _Run:
    analysis: Analysis
    workshop: Workshop
    asking: Asking
    gate: asyncio.Semaphore

    async def one(self, chunk: Chunk) -> None:
        async with self.gate:
            pending = [chunk]
            while pending:
                pending = list(await self.step(pending.pop(0))) + pending

    async def step(self, chunk: Chunk) -> tuple[Chunk, ...]:
        """Settle one chunk, or return the smaller ones that take its place."""
        name = f"{UNIT}{chunk.id}"
        if (record := self.asking.saved.get(name)) is not None:
            return self.replay(chunk, SavedAnswer.load(record))
        if self.analysis.is_out_of_budget:
            self.analysis.failed(chunk, BUDGET)
            return ()
        await self.asking.check_current()
        try:
            return await self.ask(chunk, name)
        except AnswerCutOff as error:
            return await self.divide(chunk, name, CUT_OFF, keeping=read_findings(error.text).claims)
        except RequestTooLong:
            return await self.divide(chunk, name, TOO_LONG)
        except ContentFiltered:
            return await self.divide(chunk, name, FILTERED)
        except BudgetReached as error:
            self.analysis.is_out_of_budget = True
            self.analysis.notes.append(str(error))
            self.analysis.failed(chunk, BUDGET)
        except Transient as error:
            log.warning("chunk.failed", chunk=chunk.id, error=str(error))
            self.analysis.transient = error
            self.analysis.failed(chunk, UNANSWERED)
        return ()

    async def ask(self, chunk: Chunk, name: str) -> tuple[Chunk, ...]:
        """Two tries for an answer that can be read to its end; of a second bad one the complete items are kept."""
        saved: tuple[Claim, ...] = ()
        for is_last in (False, True):
            answer = await self.complete(chunk)
            read = await asyncio.to_thread(read_findings, answer.text)
            if read.is_whole and not read.is_cut:
                await self.asking.save(name, SavedAnswer.of(answer).dump())
                self.analysis.answered(chunk, read.claims, answer)
                return ()
            self.analysis.credit(answer)
            saved = read.claims or saved
            log.warning("answer.unreadable", chunk=chunk.id, problems=list(read.problems[:3]), is_last=is_last)
        self.analysis.failed(chunk, UNREADABLE, saved)
        return ()

    async def complete(self, chunk: Chunk) -> Answer:
        try:
            prompt = await self.workshop.render(chunk)
            answer = await self.asking.model.complete(prompt, flow=self.asking.flow)
            await self.workshop.learn(prompt, answer)
            return answer
        except AnswerCutOff as error:
            self.analysis.pay(error.usage)
            roomier = self.workshop.raise_cap(chunk)
            if roomier is None:
                raise
            log.info("chunk.cap_raised", chunk=chunk.id, max_output_tokens=roomier.max_output_tokens)
        try:
            return await self.asking.model.complete(await self.workshop.render(roomier), flow=self.asking.flow)
        except AnswerCutOff as error:
            self.analysis.pay(error.usage)
            raise

    async def divide(
        self, chunk: Chunk, name: str, reason: str, *, keeping: tuple[Claim, ...] = ()
    ) -> tuple[Chunk, ...]:
        """Smaller chunks in place of `chunk`; one that is indivisible fails, and keeps the claims `keeping`."""
        parts = self.workshop.split(chunk)
        if not parts:
            log.warning("chunk.failed", chunk=chunk.id, error=reason)
            self.analysis.failed(chunk, reason, keeping)
            return ()
        log.info("chunk.split", chunk=chunk.id, reason=reason, parts=len(parts))
        await self.asking.save(name, SavedAnswer.split().dump())
        return parts

    def replay(self, chunk: Chunk, saved: SavedAnswer) -> tuple[Chunk, ...]:
        """Take a chunk's answer from an earlier attempt; nothing is bought twice."""
        if saved.was_split:
            return self.workshop.split(chunk)
        answer = saved.answer()
        self.analysis.answered(chunk, read_findings(answer.text).claims, answer)
        return ()
