"""Celery's consumer, quieter: a message that is not ours is put aside unread, and no worker looks for others."""

from __future__ import annotations

import warnings
from typing import Any

import structlog
from celery.exceptions import CPendingDeprecationWarning
from celery.worker.consumer import Consumer as CeleryConsumer

from worker.core.errors import Unreachable
from worker.core.job import job_named_in
from worker.storage.foreign import keep_foreign

log = structlog.get_logger()

OUR_TASKS = "review."
"""What the names of this program's tasks begin with, in every version."""


class Consumer(CeleryConsumer):  # type: ignore[misc]  # Celery ships no types
    """Celery's own answers write the arguments of a foreign message to the log."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # Workers need not know of each other: both steps cost a second at start, and messages all the time.
        super().__init__(*arguments, **(options | {"without_mingle": True, "without_gossip": True}))
        # Celery warns at each loss of the connection that reviews go on through it, which is what we want: the lease
        # decides. Its own set-up of the log, which is done by now, shows such warnings always.
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)

    def update_strategies(self) -> None:
        super().update_strategies()
        # Celery brings tasks of its own (celery.map, celery.group, …). Nobody here sends one; run, they would call
        # what a stranger's arguments say, and log them.
        for name in [name for name in self.strategies if not name.startswith(OUR_TASKS)]:
            del self.strategies[name]

    def on_unknown_message(self, body: Any, message: Any) -> None:
        self._put_aside(message, "no task message")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._put_aside(message, "unknown task")
        # A step that only a newer program knows: the job is not lost with its message.
        if str(message.headers.get("task", "")).startswith(OUR_TASKS) and (job_id := _job_in(message)):
            self.app.worker_process.pass_over(job_id)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._put_aside(message, "malformed task message")

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._put_aside(message, "not JSON")

    def _put_aside(self, message: Any, reason: str) -> None:
        headers = message.headers if isinstance(message.headers, dict) else {}
        size = len(message.body) if isinstance(message.body, (bytes, str)) else 0
        try:
            keep_foreign(self.app.redis_url, task=str(headers.get("task", "")), reason=reason, size=size)
        except Unreachable as error:
            # Not acknowledged: it comes again, and ends no worker.
            log.warning("message.not_put_aside", reason=reason, error=str(error))
            return
        message.ack_log_error(log, self.connection_errors)


def _job_in(message: Any) -> str:
    """The job that a call of a task names first. The body was seen to be such a call as it was taken off its list."""
    arguments, *_ = message.payload
    return job_named_in(arguments)
