"""The life of a Celery worker: which moments of it our process must hear of."""

from __future__ import annotations

from typing import Any

import celery.apps.worker as banners
import structlog
from celery import Celery, signals

from worker.process import WorkerProcess

log = structlog.get_logger()


def attach(app: Celery, process: WorkerProcess) -> None:
    """Let the tasks of `app` find `process`, and tell it when the worker is up, asked to end, and gone."""
    app.worker_process = process
    # Tasks are found by name when the worker starts; the program imports none of them.
    app.conf.include = ["tasks.review", "tasks.publish"]

    # Celery writes these past every log, straight to stdout; what they say is in our own lines.
    banners.safe_say = _say_nothing

    def up(**_: Any) -> None:
        log.info("worker.ready", who=process.name, threads=app.conf.worker_concurrency)
        process.start_beside()

    def asked_to_end(**_: Any) -> None:
        process.stop()

    def gone(**_: Any) -> None:
        process.join()
        log.info("worker.ended", who=process.name)

    def logging_is_ours(**_: Any) -> None:
        """Celery leaves the log alone when anybody listens to this."""

    # Without `weak=False` the functions would be collected with this call.
    signals.worker_ready.connect(up, weak=False)
    signals.worker_shutting_down.connect(asked_to_end, weak=False)
    signals.worker_shutdown.connect(gone, weak=False)
    signals.setup_logging.connect(logging_is_ours, weak=False)


def _say_nothing(*_: object) -> None:
    """Called in signal handlers, where a log must not be written either."""
