"""Verify: ask a second time, to refute; what is refuted is not posted and is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from worker.core.answers import read_verdicts
from worker.core.diff.model import FileDiff
from worker.core.errors import AnswerCutOff, BudgetReached, ContentFiltered, NotNow, RequestTooLong, Transient
from worker.core.exchange import Answer, Prompt
from worker.core.finding import Finding
from worker.core.planning.identity import name_of
from worker.core.verdict import Candidate, candidates, standing
from worker.review.asking import Asking
from worker.review.records import VERDICTS

log = structlog.get_logger()

UNVERIFIED = "The second look at the findings did not come about; some of them may be wrong."

AT_ONCE = 12
"""Candidates of one request: few enough that each gets its share of attention."""


@dataclass(slots=True)
class Verified:
    """`notes` says so when a second look did not come about: the findings then stand as they are."""

    kept: list[Finding] = field(default_factory=list)
    refuted: list[Finding] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


async def verify(
    findings: Sequence[Finding],
    files: Mapping[str, FileDiff],
    *,
    render: Callable[[Sequence[Candidate]], Prompt],
    asking: Asking,
) -> Verified:
    """Have each finding judged once; a failed second look refutes nothing and is said in `notes`.

    Raises as `analyse` does.
    """
    looks = [
        _look(candidates(findings[start : start + AT_ONCE], files), render, asking)
        for start in range(0, len(findings), AT_ONCE)
    ]
    try:
        async with asyncio.TaskGroup() as group:
            seen = [group.create_task(look) for look in looks]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    verified, is_unverified = Verified(), False
    for task in seen:
        look = task.result()
        verified.kept += look.kept
        verified.refuted += look.refuted
        verified.answers += look.answers
        is_unverified |= look.is_missing
    if is_unverified:
        verified.notes.append(UNVERIFIED)
    return verified


@dataclass(frozen=True, slots=True)
class _Look:
    kept: Sequence[Finding]
    refuted: Sequence[Finding] = ()
    answers: Sequence[Answer] = ()
    is_missing: bool = False


async def _look(
    numbered: Sequence[Candidate], render: Callable[[Sequence[Candidate]], Prompt], asking: Asking
) -> _Look:
    prompt = await asyncio.to_thread(render, numbered)
    # Named by all that is shown, so that a later head does not pay for the same look again.
    name = f"{VERDICTS}{name_of(prompt.user)}"
    try:
        answer = await asking.once(name, lambda: prompt)
    except (Transient, NotNow, BudgetReached, AnswerCutOff, RequestTooLong, ContentFiltered) as error:
        log.warning("verdicts.missing", candidates=len(numbered), error=str(error))
        return _Look([each.finding for each in numbered], is_missing=True)
    read = read_verdicts(answer.text)
    if not read.is_whole:
        log.warning("verdicts.missing", candidates=len(numbered), error="the answer could not be read")
    kept, refuted = standing(numbered, read.verdicts)
    return _Look(kept, refuted, (answer,), is_missing=not read.is_whole)
