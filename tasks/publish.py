"""The task `review.publish`: a stored report is posted."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from tasks.doorway import work_on
from worker.core.job import Stage


@shared_task(name="review.publish", bind=True, typing=False)  # type: ignore[untyped-decorator]  # Celery ships no types
def publish(self: Any, *arguments: object, **_: object) -> None:
    """`arguments` is one job id."""
    work_on(self.app, arguments, Stage.PUBLISH)
