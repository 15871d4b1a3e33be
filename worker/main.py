"""The Celery worker: `celery -A worker.main worker`. The only module that acts when it is imported."""

from __future__ import annotations

import asyncio
import warnings

import structlog
from celery.platforms import SecurityWarning

from worker import logs, settings
from worker.bootstrap import Installation, with_model_chosen
from worker.clock import SystemClock
from worker.core.errors import ConfigurationError
from worker.exits import told_clearly
from worker.lifecycle import attach
from worker.process import WorkerProcess

log = structlog.get_logger()


def _install() -> Installation:
    chosen = settings.load(role=settings.Role.WORKER)
    logs.configure(chosen.log_format, chosen.log_level, secrets=chosen.secrets())
    chosen = asyncio.run(with_model_chosen(chosen, clock=SystemClock()))
    if chosen.redis_dsn is None:
        raise ConfigurationError(["REDIS_URL: a worker needs it; `kimi-review serve` runs everything with its own."])
    return Installation(chosen, chosen.redis_dsn.get_secret_value())


with told_clearly():
    _installation = _install()

# Celery warns of root since a message may hold a pickle that executes; ours hold ids as JSON, and no other is read.
warnings.filterwarnings("ignore", category=SecurityWarning)
log.info("worker.configured", **_installation.endpoint.described())
app = _installation.celery
attach(
    app,
    WorkerProcess(
        _installation.services,
        deadline_s=_installation.settings.job_deadline_s,
        memory_mb=_installation.settings.worker_memory_mb,
    ),
)
