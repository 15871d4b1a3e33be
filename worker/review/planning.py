"""Plan one snapshot, and make each chunk's request with its evidence. `kimi-review plan` uses it without a model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from worker.core.change import Snapshot
from worker.core.diff.model import FileDiff
from worker.core.diff.parse import parse_diff
from worker.core.exchange import Prompt
from worker.core.model_info import Budget
from worker.core.planning.evidence import evidence_allowance, with_evidence, with_evidence_reserved, with_images
from worker.core.planning.plan import Chunk, Plan
from worker.core.planning.planner import make_plan
from worker.core.planning.rendering import render
from worker.core.planning.rules import Scope
from worker.core.planning.secret_lines import SecretLine, secret_lines
from worker.core.planning.spending import within_requests
from worker.core.planning.tokens import Counter
from worker.core.words import Words
from worker.ports import Flow, Tree
from worker.review.attributes import attributes_of_base
from worker.review.built import built_at_base
from worker.review.evidence import EvidenceSource
from worker.review.images import read_images


@dataclass(frozen=True, slots=True)
class Subject:
    """What is under review, besides the diff. Title and description were written by a stranger."""

    name: str
    """`str(ChangeRef)`, or the range or file of a local review."""
    flow: Flow
    title: str = ""
    description: str = ""
    is_local: bool = False
    """By command: its requests share a prefix with those of the next run, which is another job in the books."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, where the change holds secrets, and how the plan's chunks become requests."""

    plan: Plan
    at_most: Plan
    """The same with the bounds that its requests keep whatever evidence is found for them; for showing."""
    secrets: tuple[SecretLine, ...]
    prompt: Callable[[Chunk], Awaitable[Prompt]]
    """The request for a chunk, evidence included; made late, since only what is in flight is held as text."""
    evidence: EvidenceSource | None = None
    """What `prompt` reads from."""

    def close(self) -> None:
        """Called when no more requests are made: a process that reads sources ends then, and no later than this."""
        if self.evidence is not None:
            self.evidence.close()


@dataclass(frozen=True, slots=True)
class Planning:
    """The settings of planning, the same for all changes."""

    budget: Budget
    words: Words
    count: Counter
    has_own_vocabulary: bool = False
    """Whether `count` is by the model's vocabulary: its factor is then another one than over o200k."""
    scope: Scope = field(default_factory=Scope)
    guidance: str = ""
    """The operator's own words to the model: the language of the answer."""
    thinks: bool = True
    thinks_from_lines: int = 0
    """Changed lines from which thinking is worth its tokens; 0 is always."""
    evidence_ratio: float = 0.0
    """Tokens of evidence for each token of diff, at most; 0 is none."""
    shows_images: bool = False
    """Whether changed images are shown besides: a model that takes none would refuse the request."""
    max_requests: int | None = None

    async def plan(self, subject: Subject, snapshot: Snapshot, *, tree: Tree | None = None) -> Planned:
        """Parse and plan in threads: a huge diff takes a second or two, and the heartbeat must go on.

        Raises `BadInput` for bytes that are no diff.
        """
        files = await asyncio.to_thread(parse_diff, snapshot.diff)
        attributes = await attributes_of_base(tree, snapshot.base, [file.path for file in files])
        built = await built_at_base(tree, snapshot.base, files)
        scope = replace(self.scope, attributes=attributes, built=built)
        plan, secrets = await asyncio.to_thread(self._plan, subject, snapshot, files, scope)
        if self.shows_images:
            plan = with_images(plan, await read_images(tree, snapshot.head, files))
        whole = {chunk.id for chunk in plan.chunks}
        evidence = EvidenceSource(tree, snapshot, self.count) if tree is not None and self.evidence_ratio > 0 else None

        async def prompt(chunk: Chunk) -> Prompt:
            # Parts of a chunk go without: it was split because it was too long, or held what a filter declines.
            source = evidence if chunk.id in whole else None
            shown = await self._with_evidence(plan, chunk, source) if source is not None else chunk
            key = plan.nonce if subject.is_local else subject.flow.job or plan.nonce
            return await asyncio.to_thread(render, plan, shown, words=self.words, cache_key=key)

        at_most = with_evidence_reserved(plan, self.evidence_ratio) if evidence is not None else plan
        return Planned(plan, at_most, secrets, prompt, evidence)

    def _plan(
        self, subject: Subject, snapshot: Snapshot, files: Sequence[FileDiff], scope: Scope
    ) -> tuple[Plan, tuple[SecretLine, ...]]:
        is_small = sum(file.changed for file in files) < self.thinks_from_lines
        plan = make_plan(
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
        return within_requests(plan, self.max_requests), secret_lines(files)

    async def _with_evidence(self, plan: Plan, chunk: Chunk, source: EvidenceSource) -> Chunk:
        found = await source.gather(chunk, budget_tokens=evidence_allowance(plan, chunk, self.evidence_ratio))
        return with_evidence(plan, chunk, found, self.count) if found else chunk
