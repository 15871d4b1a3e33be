"""A Celery application over the pipeline without forge and model: `celery -A tests.fakes.pipeline_worker worker`.

Reads its few values from variables named `PIPELINE_…`, since it is started as a process of its own.
"""

from __future__ import annotations

import os

from tests.fakes.pipeline import pipeline
from worker import logs
from worker.lifecycle import attach
from worker.process import WorkerProcess
from worker.storage.queue import celery_app

logs.configure("json", "info")

_URL = os.environ["PIPELINE_REDIS_URL"]

app = celery_app(
    _URL,
    threads=int(os.environ.get("PIPELINE_THREADS", "4")),
    visibility_timeout_s=int(os.environ.get("PIPELINE_VISIBILITY_S", "900")),
)
process = WorkerProcess(
    lambda: pipeline(
        _URL,
        app,
        lease_s=float(os.environ.get("PIPELINE_LEASE_S", "2")),
        units=int(os.environ.get("PIPELINE_UNITS", "2")),
        unit_s=float(os.environ.get("PIPELINE_UNIT_S", "0.05")),
        leak_mb=int(os.environ.get("PIPELINE_LEAK_MB", "0")),
    ),
    grace_s=5.0,
    memory_mb=int(os.environ.get("PIPELINE_MEMORY_MB", "0")),
)
attach(app, process)
