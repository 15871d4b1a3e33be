"""Celery's consumer, with one change: a message that is not ours is put aside, and what is in it is not logged."""

from __future__ import annotations

from typing import Any

import structlog
from celery.worker.consumer import Consumer as CeleryConsumer

from worker.storage.foreign import keep_foreign

log = structlog.get_logger()


class Consumer(CeleryConsumer):  # type: ignore[misc]  # Celery ships no types
    """Celery's own answers write the arguments of a foreign message to the log."""

    class Blueprint(CeleryConsumer.Blueprint):  # type: ignore[misc]  # as above
        """Without the steps in which workers talk to each other: nobody listens, and each costs the broker messages."""

        default_steps = [  # noqa: RUF012 - Celery's own form
            step for step in CeleryConsumer.Blueprint.default_steps if not step.endswith((":Mingle", ":Gossip"))
        ]

    def on_unknown_message(self, body: Any, message: Any) -> None:
        self._put_aside(message, "no task message")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._put_aside(message, "unknown task")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._put_aside(message, "malformed task message")

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._put_aside(message, "not JSON")

    def _put_aside(self, message: Any, reason: str) -> None:
        headers = message.headers if isinstance(message.headers, dict) else {}
        size = len(message.body) if isinstance(message.body, (bytes, str)) else 0
        foreign = keep_foreign(self.app.conf.broker_url, task=str(headers.get("task", "")), reason=reason, size=size)
        log.error("message.put_aside", task=foreign.task, reason=reason, bytes=size)
        message.ack_log_error(log, self.connection_errors)
