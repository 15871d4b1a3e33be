"""Examine one snapshot: bytes → plan → answers → a second look → report. The same for jobs and for local reviews."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from worker.core.change import Snapshot
from worker.core.compose import compose
from worker.core.diff.parse import parse_diff
from worker.core.exchange import Answer, Prompt
from worker.core.ledger import Ledger
from worker.core.model_info import Budget
from worker.core.planning.coverage import answered
from worker.core.planning.globs import Attributes
from worker.core.planning.plan import Chunk, Plan
from worker.core.planning.planner import make_plan, split_chunk, with_raised_cap
from worker.core.planning.rendering import render
from worker.core.planning.rules import Scope
from worker.core.planning.tokens import Counter
from worker.core.report import Report, Usage
from worker.core.verdict import Candidate, render_candidates
from worker.core.words import Words
from worker.ports import Flow, Model, Tree
from worker.review.analyse import Analysis, Workshop, analyse
from worker.review.records import PLANNED, dump_factor, load_factor
from worker.review.verify import Verified, verify

log = structlog.get_logger()

VERDICT_CAP_TOKENS = 16_384
"""Room for a dozen verdicts and the reasoning behind them."""
ATTRIBUTES_LIMIT_BYTES = 200_000

Save = Callable[[str, bytes], Awaitable[None]]
Check = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is under review, besides the diff. Title and description were written by a stranger."""

    name: str
    """`str(ChangeRef)`, or the range or file of a local review."""
    flow: Flow
    title: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Planning:
    """What planning needs and a model does not: it works without any."""

    budget: Budget
    words: Words
    count: Counter
    scope: Scope = field(default_factory=Scope)
    guidance: str = ""
    """The operator's own words to the model: the language of the answer."""
    thinks: bool = True
    thinks_from_lines: int = 0
    """Changed lines from which thinking is worth its tokens; 0 is always."""

    async def plan(self, subject: Subject, snapshot: Snapshot, *, tree: Tree | None = None) -> Plan:
        """Parse and plan in a thread: a huge diff takes a second or two, and the heartbeat must go on.

        Raises `BadInput` for bytes that are no diff.
        """
        scope = replace(self.scope, attributes=await _attributes(tree, snapshot))
        return await asyncio.to_thread(self._plan, subject, snapshot, scope)

    def _plan(self, subject: Subject, snapshot: Snapshot, scope: Scope) -> Plan:
        files = parse_diff(snapshot.diff)
        is_small = sum(file.changed for file in files) < self.thinks_from_lines
        return make_plan(
            files,
            words=self.words,
            budget=self.budget,
            count=self.count,
            scope=scope,
            title=subject.title,
            description=subject.description,
            guidance=self.guidance,
            thinks=self.thinks and not is_small,
            cut=snapshot.cut,
        )


class Lessons(Protocol):
    """What usage taught about a model's tokens."""

    async def get(self, model: str) -> float | None:
        """The factor over o200k, None when nothing was learned."""

    async def learned(self, model: str, *, planned_with: float, estimated: int, actual: int) -> None:
        """`estimated` o200k tokens were billed as `actual` input tokens."""


@dataclass(frozen=True, slots=True)
class Examiner:
    """The ports and settings of examining, the same for all changes."""

    model: Model
    planning: Planning
    lessons: Lessons
    verdict_words: Words | None = None
    """None: findings are not looked at a second time."""
    at_once: int = 32
    """Requests of one review that may wait or be in flight; how many are sent is the throttle's business."""

    async def examine(
        self,
        subject: Subject,
        snapshot: Snapshot,
        *,
        tree: Tree | None,
        saved: Mapping[str, bytes],
        save: Save,
        check_current: Check,
        names_failures: bool,
    ) -> Report:
        """Review `snapshot`. `saved` holds what an earlier attempt bought; `save` stores what this one buys.

        With `names_failures` a chunk that the model would not answer is named in the ledger; else it raises
        what made it fail, so that the caller may come back. Nothing answered at all always raises. Raises
        `BadInput`, `NotNow`, `Refused`, `Transient`, and whatever `check_current` raises.
        """
        planning = await self._planning(saved, save)
        plan = await planning.plan(subject, snapshot, tree=tree)
        log.info(
            "change.planned",
            chunks=len(plan.chunks),
            changed_lines=plan.ledger.changed_lines,
            planned_lines=plan.ledger.reviewed_lines,
        )
        analysis = await analyse(
            plan.chunks,
            workshop=self._workshop(plan, planning, subject),
            model=self.model,
            flow=subject.flow,
            saved=saved,
            save=save,
            check_current=check_current,
            at_once=self.at_once,
        )
        nothing_answered = not any(reason is None for _, reason in analysis.outcomes.values())
        if analysis.transient is not None and (nothing_answered or not names_failures):
            raise analysis.transient
        anchored, unanchored = await asyncio.to_thread(compose, analysis.claims)
        verified = Verified(kept=list(anchored))
        if self.verdict_words is not None and anchored:
            files = {file.path: file.diff for chunk in plan.chunks for file in chunk.files}
            verified = await verify(
                anchored,
                files,
                render=functools.partial(self._render_candidates, subject=subject, words=self.verdict_words),
                model=self.model,
                flow=subject.flow,
                saved=saved,
                save=save,
                check_current=check_current,
            )
        return replace(
            self._report(subject, snapshot, analysis, answered(plan, analysis.outcomes)),
            findings=tuple(verified.kept),
            unanchored=unanchored,
            usage=sum((answer.usage for answer in verified.answers), analysis.usage),
            notes=(*analysis.notes, *_said(verified)),
        )

    def _report(self, subject: Subject, snapshot: Snapshot, analysis: Analysis, ledger: Ledger) -> Report:
        return Report(
            change=subject.name,
            head=snapshot.head,
            base=snapshot.base,
            model=", ".join(analysis.models) or self.model.name,
            findings=(),
            unanchored=(),
            ledger=ledger,
            usage=Usage(),
            is_standin=self.model.is_standin,
        )

    async def _planning(self, saved: Mapping[str, bytes], save: Save) -> Planning:
        """Plan as the first attempt did, whatever was learned since: other chunks would be bought anew."""
        if (record := saved.get(PLANNED)) is not None:
            factor = load_factor(record)
        else:
            factor = await self.lessons.get(self.model.name) or self.planning.budget.token_factor
            await save(PLANNED, dump_factor(factor))
        return replace(self.planning, budget=replace(self.planning.budget, token_factor=factor))

    def _workshop(self, plan: Plan, planning: Planning, subject: Subject) -> Workshop:

        async def rendered(chunk: Chunk) -> Prompt:
            return await asyncio.to_thread(
                render, plan, chunk, words=planning.words, cache_key=subject.flow.job or plan.nonce
            )

        async def learn(chunk: Chunk, answer: Answer) -> None:
            if answer.usage.is_estimated or answer.model != self.model.name:
                return
            await self.lessons.learned(
                answer.model,
                planned_with=planning.budget.token_factor,
                estimated=(plan.fixed + chunk.size).tokens,
                actual=answer.usage.input_tokens,
            )

        return Workshop(
            render=rendered,
            learn=learn,
            split=lambda chunk: split_chunk(plan, chunk, planning.count),
            raise_cap=lambda chunk: with_raised_cap(chunk, planning.budget),
        )

    def _render_candidates(self, numbered: tuple[Candidate, ...], *, subject: Subject, words: Words) -> Prompt:
        return render_candidates(
            numbered,
            words=words,
            count=self.planning.count,
            factor=self.planning.budget.token_factor,
            max_output_tokens=min(VERDICT_CAP_TOKENS, self.planning.budget.output_tokens),
            cache_key=subject.flow.job,
        )


def _said(verified: Verified) -> list[str]:
    refuted = len(verified.refuted)
    if not refuted:
        return verified.notes
    what = "1 finding was" if refuted == 1 else f"{refuted} findings were"
    return [*verified.notes, f"{what} refuted by a second look and left out."]


async def _attributes(tree: Tree | None, snapshot: Snapshot) -> Attributes:
    """The marks that the base gives to files; the head's would let a change excuse itself."""
    if tree is None or not snapshot.base:
        return Attributes()
    text = await tree.read(".gitattributes", revision=snapshot.base, limit_bytes=ATTRIBUTES_LIMIT_BYTES)
    return Attributes.parse(text) if text else Attributes()
