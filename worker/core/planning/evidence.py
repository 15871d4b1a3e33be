"""Room for what is shown besides the change's lines, and never displaces one: images, and code from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from math import ceil
from typing import Final

from worker.core.images import TOKENS as IMAGE_TOKENS
from worker.core.images import Image, within_limits
from worker.core.planning.identity import name_of
from worker.core.planning.plan import Chunk, Plan
from worker.core.planning.tokens import MESSAGE_TOKENS, MESSAGES, SAFETY, Counter, text_size

SLACK_TOKENS: Final = 64
"""Kept free of evidence: counts of parts add up to a little more than the count of the whole."""
# What a reader of the request would take for a line under review.
_UNDER_REVIEW: Final = re.compile(r"^(?:F\d+ |\d+\|\+\||\|-\|)", re.MULTILINE)


def evidence_room(plan: Plan, chunk: Chunk) -> int:
    """o200k tokens that evidence may take in this chunk's request before it reaches into the answer's share."""
    if plan.budget is None:
        return 0
    room = plan.budget.input_tokens - MESSAGE_TOKENS * MESSAGES
    room -= IMAGE_TOKENS * len(chunk.images)
    return max(0, int(room / (plan.budget.token_factor * SAFETY)) - plan.fixed.tokens - chunk.size.tokens - 1)


def evidence_allowance(plan: Plan, chunk: Chunk, ratio: float) -> int:
    """o200k tokens that evidence for `chunk` may take, at `ratio` of it for each token of diff; 0 is none."""
    return max(0, min(int(chunk.size.tokens * ratio), evidence_room(plan, chunk) - SLACK_TOKENS))


def with_evidence_reserved(plan: Plan, ratio: float) -> Plan:
    """The plan with bounds as if every chunk's evidence took all that it may: what is known before any is gathered."""
    return replace(plan, chunks=tuple(_reserved(plan, chunk, ratio) for chunk in plan.chunks))


def _reserved(plan: Plan, chunk: Chunk, ratio: float) -> Chunk:
    allowance = evidence_allowance(plan, chunk, ratio)
    if not allowance or plan.budget is None:
        return chunk
    # Of code that nobody has seen the bytes are not known, so the tokens alone bound it.
    tokens = plan.fixed.tokens + chunk.size.tokens + allowance
    bound = ceil(tokens * plan.budget.token_factor * SAFETY) + MESSAGE_TOKENS * MESSAGES
    bound += IMAGE_TOKENS * len(chunk.images)
    return replace(chunk, input_tokens=max(bound, chunk.input_tokens))


def with_images(plan: Plan, images: Sequence[Image]) -> Plan:
    """The plan with those of `images` that fit in its first chunk, which gets an id of its own by them."""
    if not plan.chunks or plan.budget is None:
        return plan
    first, *others = plan.chunks
    fitting = list(within_limits(images))
    while fitting and first.input_tokens + IMAGE_TOKENS * len(fitting) > plan.budget.input_tokens:
        fitting.pop()
    if not fitting:
        return plan
    shown = replace(
        first,
        id=name_of(first.id, *(sha256(image.data).hexdigest() for image in fitting)),
        images=tuple(fitting),
        input_tokens=first.input_tokens + IMAGE_TOKENS * len(fitting),
    )
    return replace(plan, chunks=(shown, *others))


def with_evidence(plan: Plan, chunk: Chunk, evidence: str, count: Counter) -> Chunk:
    """`chunk` with `evidence` in place of what it had, under the same id.

    The text stands between marks of its own. Raises `ValueError` when it does not fit the room or holds
    a line that looks like one under review: evidence shows `<number>| |<text>` at most.
    """
    if _UNDER_REVIEW.search(evidence):
        raise ValueError("Evidence must not look like lines under review: use a blank sign and no file ids.")
    size = text_size(evidence, count)
    if size.tokens > (room := evidence_room(plan, chunk)) or plan.budget is None:
        raise ValueError(f"Evidence of {size.tokens:,} tokens does not fit the room of {room:,}.")
    bound = (plan.fixed + chunk.size + size).bound(plan.budget.token_factor) + IMAGE_TOKENS * len(chunk.images)
    return replace(chunk, evidence=evidence, evidence_size=size, input_tokens=bound)
