"""Analyse a plan: each chunk → one request → an answer that is saved as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
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
from worker.core.planning.spending import BUDGET
from worker.core.usage import Usage
from worker.review.asking import Asking
from worker.review.records import UNIT, SavedAnswer

log = structlog.get_logger()

UNREADABLE = "the model's answer could not be read"
FILTERED = "declined by the provider's content filter"
TOO_LONG = "longer than the model's window"
CUT_OFF = "the model's answer did not fit its limit"
UNANSWERED = "the model did not answer"


@dataclass(frozen=True, slots=True)
class Patience:
    """How much is spent on finding the lines that a refusal is about, before all that is left is named."""

    refusals: int
    """Requests for a chunk of the plan and its parts that may fail one after the other, with no answer between them."""
    levels: int = 24
    """Times that it may be halved."""


PATIENCE: Mapping[str, Patience] = {
    # Each refusal is free. A chunk has some two thousand lines at most, so the eleventh halving is down to one.
    TOO_LONG: Patience(refusals=24),
    FILTERED: Patience(refusals=16),
    # Each of these is paid to its last token, and where a quarter of a chunk is not answered the code is not why.
    CUT_OFF: Patience(refusals=6, levels=3),
}


@dataclass(frozen=True, slots=True)
class Workshop:
    """What planning offers for one chunk; bound to one plan by whoever made it."""

    render: Callable[[Chunk], Awaitable[Prompt]]
    """The request for a chunk, made late."""
    split: Callable[[Chunk], tuple[Chunk, ...]]
    """Smaller chunks that carry the same lines; empty when the chunk cannot be divided."""
    shorten: Callable[[Chunk, int | None], tuple[Chunk, ...]]
    """For a request that is too long, the window as the refusal named it: the chunk itself with a smaller cap where
    that is enough, else as `split`."""
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
    """Send every chunk that has no saved answer, in this order, at most `at_once` waiting or in flight.

    A chunk that fails is named in `outcomes`; the others go on. Raises `Superseded` and `LeaseLost`, and
    `Refused` and `NotNow` as they come (what was answered stays saved); `BudgetReached` ends the sending alone.
    """
    run = _Run(Analysis(), workshop, asking, asyncio.Semaphore(at_once))
    try:
        async with asyncio.TaskGroup() as group:
            before: asyncio.Event | None = None
            for chunk in chunks:
                walk = _Walk(before)
                group.create_task(run.one(chunk, walk))
                before = walk.is_handed_over
    except BaseExceptionGroup as several:
        # Every task died of its own error or of the first one's cancellation; the first says what to do.
        raise several.exceptions[0] from None
    return run.analysis


@dataclass(slots=True)
class _Walk:
    """One chunk of the plan, divided as far as its refusals ask for and `PATIENCE` allows."""

    before: asyncio.Event | None
    """Set when the chunk before this one waits for the model, or needs it no more."""
    is_handed_over: asyncio.Event = field(default_factory=asyncio.Event)
    refusals: int = 0
    given_up: str = ""
    """The reason for which the parts that are left are not sent."""

    async def turn(self) -> None:
        """Wait until the chunks before have been handed to the model, and let the next one follow.

        Documents need no evidence, so their requests are made first; a budget would go to them.
        """
        if self.before is not None:
            await self.before.wait()
        self.is_handed_over.set()


@dataclass(slots=True)
class _Run:
    analysis: Analysis
    workshop: Workshop
    asking: Asking
    gate: asyncio.Semaphore

    async def one(self, chunk: Chunk, walk: _Walk) -> None:
        async with self.gate:
            pending = [(chunk, 0)]
            while pending:
                part, level = pending.pop(0)
                parts = await self.step(part, level, walk)
                pending = [(smaller, level + 1) for smaller in parts] + pending
            # One that was answered before, or cannot be sent, holds up nobody.
            await walk.turn()

    async def step(self, chunk: Chunk, level: int, walk: _Walk) -> tuple[Chunk, ...]:
        """Settle one chunk, or return the smaller ones that take its place."""
        name = f"{UNIT}{chunk.id}"
        if (record := self.asking.saved.get(name)) is not None:
            return self.replay(chunk, SavedAnswer.load(record))
        if walk.given_up or self.analysis.is_out_of_budget:
            self.analysis.failed(chunk, walk.given_up or BUDGET)
            return ()
        await self.asking.permit.check()
        try:
            await self.ask(chunk, name, walk)
        except (AnswerCutOff, RequestTooLong, ContentFiltered) as error:
            return await self.refused(chunk, error, level, walk)
        except BudgetReached as error:
            self.analysis.is_out_of_budget = True
            self.analysis.notes.append(str(error))
            self.analysis.failed(chunk, BUDGET)
        except Transient as error:
            log.warning("chunk.failed", chunk=chunk.id, error=str(error))
            self.analysis.transient = error
            self.analysis.failed(chunk, UNANSWERED)
        walk.refusals = 0
        return ()

    async def ask(self, chunk: Chunk, name: str, walk: _Walk) -> None:
        """Two tries for an answer that can be read to its end; of a second bad one the complete items are kept."""
        saved: tuple[Claim, ...] = ()
        for is_last in (False, True):
            answer = await self.complete(chunk, walk)
            read = await asyncio.to_thread(read_findings, answer.text)
            if read.is_whole and not read.is_cut:
                await self.asking.save(name, SavedAnswer.of(answer).dump())
                self.analysis.answered(chunk, read.claims, answer)
                return
            self.analysis.credit(answer)
            saved = read.claims or saved
            log.warning("answer.unreadable", chunk=chunk.id, problems=list(read.problems[:3]), is_last=is_last)
        self.analysis.failed(chunk, UNREADABLE, saved)

    async def complete(self, chunk: Chunk, walk: _Walk) -> Answer:
        try:
            prompt = await self.workshop.render(chunk)
            await walk.turn()
            answer = await self.asking.complete(prompt)
            await self.workshop.learn(prompt, answer)
            return answer
        except AnswerCutOff as error:
            self.analysis.pay(error.usage)
            roomier = self.workshop.raise_cap(chunk)
            if roomier is None:
                raise
            log.info("chunk.cap_raised", chunk=chunk.id, max_output_tokens=roomier.max_output_tokens)
        try:
            return await self.asking.complete(await self.workshop.render(roomier))
        except AnswerCutOff as error:
            self.analysis.pay(error.usage)
            raise

    async def refused(
        self, chunk: Chunk, error: AnswerCutOff | RequestTooLong | ContentFiltered, level: int, walk: _Walk
    ) -> tuple[Chunk, ...]:
        """Smaller chunks in place of `chunk`; one that is not divided fails, and keeps its complete claims."""
        reason, keeping = _refusal(error)
        patience = PATIENCE[reason]
        walk.refusals += 1
        parts: tuple[Chunk, ...] = ()
        if walk.refusals >= patience.refusals:
            walk.given_up = reason
        elif isinstance(error, RequestTooLong):
            parts = self.workshop.shorten(chunk, error.limit_tokens)
        elif level < patience.levels:
            parts = self.workshop.split(chunk)
        if not parts:
            log.warning("chunk.failed", chunk=chunk.id, error=str(error), gives_up_the_rest=bool(walk.given_up))
            self.analysis.failed(chunk, reason, keeping)
            return ()
        log.info("chunk.split", chunk=chunk.id, reason=reason, parts=len(parts))
        if [part.id for part in parts] != [chunk.id]:
            await self.asking.save(f"{UNIT}{chunk.id}", SavedAnswer.split().dump())
        return parts

    def replay(self, chunk: Chunk, saved: SavedAnswer) -> tuple[Chunk, ...]:
        """Take a chunk's answer from an earlier attempt; nothing is bought twice."""
        if saved.was_split:
            return self.workshop.split(chunk)
        answer = saved.answer()
        self.analysis.answered(chunk, read_findings(answer.text).claims, answer)
        return ()


def _refusal(error: AnswerCutOff | RequestTooLong | ContentFiltered) -> tuple[str, tuple[Claim, ...]]:
    """The reason in words, and what had been claimed before the answer was cut off."""
    match error:
        case AnswerCutOff():
            return CUT_OFF, read_findings(error.text).claims
        case RequestTooLong():
            return TOO_LONG, ()
        case ContentFiltered():
            return FILTERED, ()
