"""A review by command with a real Redis, throttle and HTTP: the same hard stops as for a job."""

from __future__ import annotations

import asyncio

from tests.fakes.kimi import KEY, KimiServer
from worker.bootstrap import Installation
from worker.core.change import Snapshot
from worker.core.report import Report
from worker.review.local import local_subject, review_local
from worker.settings import Role, load


def test_a_review_by_command_stops_at_its_budget_and_the_next_one_has_its_own(redis_url: str) -> None:
    with KimiServer() as kimi:
        settings = load(
            {
                "API_OPENAI_FORCE_BASE_URL": kimi.base_url,
                "API_OPEN_AI_API_KEY": KEY,
                "LLM_REVIEW_BUDGET_USD": "0.0001",
                "LLM_MAX_CONCURRENT_REQUESTS": "1",
                "REVIEW_CHUNK_TOKENS": "1000",
            },
            role=Role.REVIEW,
            dotenv=None,
        )
        first, second = (asyncio.run(reviewed(Installation(settings, redis_url))) for _ in range(2))
        keys = {request.body["prompt_cache_key"] for request in kimi.requests}
    for report in (first, second):
        assert 0 < report.ledger.reviewed_lines < report.ledger.changed_lines
        assert {row.reason for row in report.ledger.not_reviewed} == {"budget"}
    assert len(keys) == 1, "both runs share the provider's prefix cache"


async def reviewed(installation: Installation) -> Report:
    rows = "".join(f"+total_{number} = price[{number}] * amount[{number}]\n" for number in range(120))
    body = f"new file mode 100644\n--- /dev/null\n+++ b/NAME.py\n@@ -0,0 +1,120 @@\n{rows}"
    names = ("one", "two", "three")
    diff = "".join(f"diff --git a/{name}.py b/{name}.py\n{body.replace('NAME', name)}" for name in names)
    async with installation.services() as services:
        snapshot = Snapshot("a" * 40, "b" * 40, diff.encode())
        return await review_local(local_subject("A..B"), snapshot, examiner=await services.examiner())
