"""Our side of the comparison: parse and plan one diff, then render it all; prints one JSON line."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from meter import Meter

from worker.core.diff.model import FileDiff
from worker.core.diff.parse import parse_diff
from worker.core.exchange import Kind
from worker.core.model_info import budget_for
from worker.core.planning.plan import Plan
from worker.core.planning.planner import make_plan
from worker.core.planning.rendering import render
from worker.providers.catalogue import lookup
from worker.providers.tokens import o200k_counter
from worker.review.prompts import words


def main(diff_file: str) -> None:
    budget = budget_for(lookup("kimi-k2.6"))
    count = o200k_counter()
    prompt_words = words(Kind.FINDINGS)
    meter = Meter()
    diff = Path(diff_file).read_bytes()
    meter.lap("read")
    files = parse_diff(diff)
    meter.lap("parse")
    plan = make_plan(files, words=prompt_words, budget=budget, count=count)
    meter.lap("plan")
    figures = meter.figures()

    shown: Counter[str] = Counter()
    sizes = []
    overflows = 0
    for chunk in plan.chunks:
        # One at a time, as a review does it: a request is text only while it is in flight.
        prompt = render(plan, chunk, words=prompt_words)
        _tally(prompt.user, shown)
        size = count(prompt.system + prompt.user + json.dumps(prompt.schema))
        sizes.append(size - plan.fixed.tokens)
        overflows += size > chunk.input_tokens or chunk.input_tokens + chunk.max_output_tokens > plan.window_tokens
    print(json.dumps({
        **figures,
        "added": shown["+"],
        "removed": shown["-"],
        "disclosed": _disclosed(files, plan),
        "chunks": len(plan.chunks),
        "fill": sum(sizes[:-1]) / max(1, len(sizes) - 1) / budget.chunk_tokens,
        "overflows": overflows,
        "ledger": plan.ledger.reviewed_lines + sum(row.lines for row in plan.ledger.not_reviewed)
        == plan.ledger.changed_lines,
    }))  # fmt: skip


def _tally(user: str, shown: Counter[str]) -> None:
    for row in user.split("\n"):
        if row.startswith("|-|"):
            shown["-"] += 1
        elif "|+|" in row[:12] and row.split("|", 1)[0].isdigit():
            shown["+"] += 1


def _disclosed(files: tuple[FileDiff, ...], plan: Plan) -> dict[str, int]:
    """Added and removed lines of files that the ledger names as left out whole."""
    rows = {(row.path, row.lines) for row in plan.ledger.not_reviewed}
    named = [file for file in files if (file.path, file.changed) in rows]
    return {"added": sum(file.added for file in named), "removed": sum(file.removed for file in named)}


if __name__ == "__main__":
    main(sys.argv[1])
