"""Describe what the review's budget did not reach: one request for a few sentences, which nothing depends on."""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from worker.core import markdown
from worker.core.answers import read_summary
from worker.core.errors import AnswerCutOff, LeaseLost, ReviewError, Superseded
from worker.core.exchange import Prompt
from worker.core.planning.identity import name_of
from worker.core.planning.left_out import SUMMARY_CHARACTERS
from worker.core.usage import Usage
from worker.review.asking import Asking
from worker.review.records import SUMMARY

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Described:
    """`notes` is empty when no description came about; its words are the model's, and rendered where they are shown."""

    notes: tuple[str, ...] = ()
    usage: Usage = field(default_factory=Usage)


async def describe(prompt: Prompt, *, asking: Asking) -> Described:
    """Ask once what was left out; an answer that does not come is logged and missed by nobody.

    Raises only what says that the review is no longer ours: `Superseded`, `LeaseLost`.
    """
    name = f"{SUMMARY}{name_of(prompt.user)}"
    try:
        answer = await asking.once(name, lambda: prompt)
    except (Superseded, LeaseLost):
        raise
    except ReviewError as error:
        log.warning("summary.missing", error=str(error))
        paid = error.usage if isinstance(error, AnswerCutOff) else None
        return Described(usage=paid or Usage())
    # On one line, and without what would hide or reorder the words around it.
    summary = " ".join(markdown.visible(read_summary(answer.text).summary).split())
    if not summary:
        log.warning("summary.missing", error="the answer holds no summary")
        return Described(usage=answer.usage)
    said = markdown.cut(summary, SUMMARY_CHARACTERS)
    return Described((f"What was not reviewed seems to contain: {said}",), answer.usage)
