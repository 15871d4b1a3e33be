"""The real worker with job records that kill it: `celery -A tests.chaos.killing_worker worker`.

`CHAOS_POINTS` names where, separated by spaces.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from tests.chaos.killing import KillingJobs
from worker import logs, settings
from worker.bootstrap import Installation, Services
from worker.lifecycle import attach
from worker.process import WorkerProcess

_SETTINGS = settings.load(role=settings.Role.WORKER)
_POINTS = frozenset(os.environ["CHAOS_POINTS"].split())

logs.configure(_SETTINGS.log_format, _SETTINGS.log_level, secrets=_SETTINGS.secrets())
if _SETTINGS.redis_dsn is None:
    raise SystemExit("REDIS_URL is not set")
_installation = Installation(_SETTINGS, _SETTINGS.redis_dsn.get_secret_value())


@asynccontextmanager
async def _services() -> AsyncIterator[Services]:
    async with _installation.services() as services:
        jobs = KillingJobs(services.redis, lease_s=_SETTINGS.job_lease_s, points=_POINTS)
        yield replace(services, jobs=jobs)


app = _installation.celery
attach(app, WorkerProcess(_services))
