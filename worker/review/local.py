"""Review a range or a diff file now: the same examination as a job's, with nothing stored and nothing posted."""

from __future__ import annotations

import secrets
from dataclasses import replace

from worker.core.change import Snapshot
from worker.core.report import Report
from worker.ports import Flow, Tree
from worker.review.examine import Examiner
from worker.review.lease import Unlimited
from worker.review.planning import Subject


def local_subject(name: str) -> Subject:
    """`name` is what the reader knows it by: the range, or the file. Fair sharing counts it as a change of its own."""
    return Subject(name=name, flow=Flow(change=f"local:{name}", repository="local"))


async def review_local(subject: Subject, snapshot: Snapshot, *, examiner: Examiner, tree: Tree | None = None) -> Report:
    """Review `snapshot`; a chunk that the model would not answer is named in the ledger.

    Each call is a review of its own in the books, so that LLM_REVIEW_BUDGET_USD stops it. Raises as `Examiner.examine`
    does.
    """
    flow = replace(subject.flow, job=f"local-{secrets.token_hex(8)}")
    subject = replace(subject, flow=flow, is_local=True)
    return await examiner.examine(
        subject, snapshot, tree=tree, saved={}, save=_forget, permit=Unlimited(), names_failures=True
    )


async def _forget(name: str, value: bytes) -> None:
    """A local review is not resumed."""
