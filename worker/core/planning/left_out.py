"""What the review's budget does not reach → a request that asks what it seems to contain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from worker.core.diff.model import FileDiff
from worker.core.exchange import Prompt
from worker.core.model_info import Budget
from worker.core.planning.identity import name_of
from worker.core.planning.overview import MAP_TOKENS, map_rows
from worker.core.planning.plan import Chunk, Plan
from worker.core.planning.rendering import between, opening
from worker.core.planning.tokens import Counter, text_size
from worker.core.words import Words

CAP_TOKENS: Final = 4_096
"""A few sentences, asked for without thinking; a model that thinks all the same has room to."""
SUMMARY_CHARACTERS: Final = 340
"""What a note of the report has room for besides its own words."""


def render_left_out(plan: Plan, *, words: Words, count: Counter, budget: Budget, cache_key: str = "") -> Prompt:
    """The request for a summary of `plan.unpaid`: its map alone, as every request shows that of the whole change."""
    files = _files(plan.unpaid)
    limit = min(MAP_TOKENS, budget.input_tokens // 12)
    content = "\n".join(map_rows(files, {}, count, limit))
    user = opening(words.kind) + between("left out", name_of(plan.nonce, content), content) + words.reminder
    return Prompt(
        kind=words.kind,
        system=words.system,
        user=user,
        schema=words.schema,
        input_tokens=text_size(f"{words.system}{user}{words.schema}", count).bound(budget.token_factor),
        max_output_tokens=min(CAP_TOKENS, budget.output_tokens),
        cache_key=cache_key,
        without_thinking=True,
    )


def _files(chunks: Iterable[Chunk]) -> list[FileDiff]:
    """Each file once, with those of its hunks that `chunks` carry."""
    files: dict[bytes, FileDiff] = {}
    for file in (file for chunk in chunks for file in chunk.files):
        known = files.get(file.diff.raw_path)
        hunks = file.hunks if known is None else known.hunks + file.hunks
        files[file.diff.raw_path] = replace(file.diff, hunks=hunks)
    return list(files.values())
