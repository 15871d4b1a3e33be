"""Examine one snapshot: bytes → plan → answers → a second look → report. The same for jobs and for local reviews."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from worker.core.change import Snapshot
from worker.core.compose import compose, with_disclosed
from worker.core.errors import EmptyAnswer, Unreachable
from worker.core.exchange import Answer, Prompt
from worker.core.ledger import Ledger
from worker.core.model_info import within
from worker.core.planning.coverage import answered
from worker.core.planning.left_out import render_left_out
from worker.core.planning.plan import Chunk, Plan
from worker.core.planning.planner import split_chunk, with_lowered_cap, with_raised_cap
from worker.core.planning.spending import by_importance
from worker.core.report import Report
from worker.core.usage import Usage
from worker.core.verdict import Candidate, render_candidates
from worker.core.words import Words
from worker.ports import Model, Tree
from worker.review.analyse import Analysis, Workshop, analyse
from worker.review.asking import Asking
from worker.review.describe import Described, describe
from worker.review.lease import Permit
from worker.review.planning import Planned, Planning, Subject
from worker.review.records import PLANNED, dump_budget, load_budget
from worker.review.verify import Verified, verify

log = structlog.get_logger()

VERDICT_CAP_TOKENS = 16_384
"""Room for a dozen verdicts and the reasoning behind them."""

SECOND_LOOKS = 120
"""Findings that are looked at again, the worst: more than a review shows. A dozen make a request, so a change that
talks the model into thousands would cost hundreds of them."""

Save = Callable[[str, bytes], Awaitable[None]]


class Lessons(Protocol):
    """What usage taught about a model's tokens."""

    async def get(self, model: str) -> float | None:
        """The factor over what planning counts, None when nothing was learned."""

    async def learned(self, model: str, *, planned_with: float, estimated: int, actual: int) -> None:
        """`estimated` tokens, as planning counts, were billed as `actual` input tokens."""


@dataclass(frozen=True, slots=True)
class Examiner:
    """The ports and settings of examining, the same for all changes."""

    model: Model
    planning: Planning
    lessons: Lessons
    verdict_words: Words | None = None
    """None: findings are not looked at a second time."""
    summary_words: Words | None = None
    """None: what the budget did not reach is named, and not described."""
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
        permit: Permit,
        names_failures: bool,
    ) -> Report:
        """Review `snapshot`. `saved` holds what an earlier attempt bought; `save` stores what this one buys.

        With `names_failures` a chunk that the model would not answer is named in the ledger; else it raises
        what made it fail, so that the caller may come back. Nothing answered at all always raises, except where
        the model did answer, and said nothing: each further try would be paid, and say as much. Raises
        `BadInput`, `NotNow`, `Refused`, `Transient`, and whatever `permit` raises.
        """
        planning = await self._planning(saved, save)
        planned = await planning.plan(subject, snapshot, tree=tree)
        plan = planned.plan
        log.info(
            "change.planned",
            chunks=len(plan.chunks),
            changed_lines=plan.ledger.changed_lines,
            planned_lines=plan.ledger.reviewed_lines,
        )
        asking = Asking(self.model, subject.flow, saved, save, permit)
        with closing(planned):
            analysis = await analyse(
                by_importance(plan.chunks),
                workshop=self._workshop(planned, planning),
                asking=asking,
                at_once=self.at_once,
            )
        nothing_answered = not any(reason is None for _, reason in analysis.outcomes.values())
        is_away = nothing_answered and not isinstance(analysis.transient, EmptyAnswer)
        if analysis.transient is not None and (is_away or not names_failures):
            raise analysis.transient
        anchored, unanchored = await asyncio.to_thread(compose, analysis.claims)
        verified = Verified(kept=list(anchored))
        if self.verdict_words is not None and anchored and not analysis.is_out_of_budget:
            files = {file.path: file.diff for chunk in plan.chunks for file in chunk.files}
            verified = await verify(
                anchored[:SECOND_LOOKS],
                files,
                render=functools.partial(self._render_candidates, subject=subject, words=self.verdict_words),
                asking=asking,
            )
            if unlooked := anchored[SECOND_LOOKS:]:
                verified.kept += unlooked
                verified.notes.append(
                    f"The second look was at the worst {SECOND_LOOKS} of {len(anchored):,} findings;"
                    " the others stand as they were claimed."
                )
        described = Described()
        if self.summary_words is not None and plan.unpaid and not analysis.is_out_of_budget:
            described = await describe(
                self._render_left_out(plan=plan, subject=subject, words=self.summary_words),
                asking=asking,
            )
        return replace(
            self._report(subject, snapshot, analysis, answered(plan, analysis.outcomes)),
            findings=with_disclosed(verified.kept, planned.secrets),
            unanchored=unanchored,
            usage=sum((answer.usage for answer in verified.answers), analysis.usage) + described.usage,
            notes=(*analysis.notes, *described.notes, *_said(verified), *_own_marks(plan)),
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
            budget = load_budget(record, self.planning.budget)
        else:
            learned = await self.lessons.get(self._lesson)
            budget = replace(self.planning.budget, token_factor=learned or self.planning.budget.token_factor)
            await save(PLANNED, dump_budget(budget))
        return replace(self.planning, budget=budget)

    @property
    def _lesson(self) -> str:
        """Under which name the factor is kept: what was learned over one vocabulary says nothing over another."""
        return f"{self.model.name}+own" if self.planning.has_own_vocabulary else self.model.name

    def _workshop(self, planned: Planned, planning: Planning) -> Workshop:
        plan, budget = planned.plan, planning.budget

        def shorten(chunk: Chunk, window_tokens: int | None) -> tuple[Chunk, ...]:
            nonlocal plan, budget
            if window_tokens is not None and window_tokens < budget.window_tokens:
                budget = within(budget, window_tokens)
                plan = replace(plan, budget=budget)
            lowered = with_lowered_cap(chunk, budget)
            return (lowered,) if lowered is not None else split_chunk(plan, chunk, planning.count)

        async def learn(prompt: Prompt, answer: Answer) -> None:
            if not prompt.counted_tokens or answer.usage.is_estimated or answer.model != self.model.name:
                return
            try:
                await self.lessons.learned(
                    self._lesson,
                    planned_with=planning.budget.token_factor,
                    estimated=prompt.counted_tokens,
                    actual=answer.usage.input_tokens,
                )
            except Unreachable as error:
                # The next answer brings another lesson; this one is paid for, and would be paid for again.
                log.info("factor.not_learned", error=str(error))

        return Workshop(
            render=planned.prompt,
            learn=learn,
            split=lambda chunk: split_chunk(plan, chunk, planning.count),
            shorten=shorten,
            raise_cap=lambda chunk: with_raised_cap(chunk, budget),
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

    def _render_left_out(self, *, plan: Plan, subject: Subject, words: Words) -> Prompt:
        return render_left_out(
            plan,
            words=words,
            count=self.planning.count,
            budget=self.planning.budget,
            cache_key=subject.flow.job,
        )


def _said(verified: Verified) -> list[str]:
    refuted = len(verified.refuted)
    if not refuted:
        return verified.notes
    what = "1 finding was" if refuted == 1 else f"{refuted} findings were"
    return [*verified.notes, f"{what} refuted by a second look and left out."]


def _own_marks(plan: Plan) -> list[str]:
    """A change that marks its own files as generated must not think, nor make its reader think, that it counted."""
    names = {file.path.rpartition("/")[2] for chunk in plan.chunks for file in chunk.files}
    if ".gitattributes" not in names:
        return []
    return ["This change edits .gitattributes. What was left out as generated or vendored follows its base branch."]
