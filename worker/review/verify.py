"""Verify: ask a second time, to refute; what is refuted is not posted and is counted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from worker.core.answers import read_verdicts
from worker.core.diff.model import FileDiff
from worker.core.errors import AnswerCutOff, BudgetReached, ContentFiltered, NotNow, RequestTooLong, Transient
from worker.core.exchange import Answer, Prompt
from worker.core.finding import Finding
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
    """Have each finding judged once; a failed second look refutes nothing and is said in `notes`."""
    verified, is_unverified = Verified(), False
    for start in range(0, len(findings), AT_ONCE):
        numbered = candidates(findings[start : start + AT_ONCE], files)
        name = f"{VERDICTS}{_names(numbered)}"
        try:
            answer = await asking.once(name, functools.partial(render, numbered))
        except (Transient, NotNow, BudgetReached, AnswerCutOff, RequestTooLong, ContentFiltered) as error:
            log.warning("verdicts.missing", candidates=len(numbered), error=str(error))
            verified.kept += [each.finding for each in numbered]
            is_unverified = True
            continue
        verified.answers.append(answer)
        read = read_verdicts(answer.text)
        if not read.is_whole:
            log.warning("verdicts.missing", candidates=len(numbered), error="the answer could not be read")
            is_unverified = True
        kept, refuted = standing(numbered, read.verdicts)
        verified.kept += kept
        verified.refuted += refuted
    if is_unverified:
        verified.notes.append(UNVERIFIED)
    return verified


def _names(numbered: Sequence[Candidate]) -> str:
    """The same candidates have the same name, so a restart does not ask twice."""
    return "-".join(each.finding.fingerprint[:8] for each in numbered)
