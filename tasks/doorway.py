"""What each task does with its message: take the id out of it and hand it to this process."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from worker.core.job import Stage
from worker.storage.foreign import keep_foreign
from worker.storage.queue import TASKS

if TYPE_CHECKING:
    from worker.process import WorkerProcess

JOB_ID = re.compile(r"[0-9a-f]{20}")


def work_on(app: Any, arguments: tuple[object, ...], stage: Stage) -> None:
    """Work on the job that a message names; one that names none is put aside, what is in it is not logged."""
    process: WorkerProcess = app.worker_process
    match arguments:
        case [str() as job_id] if JOB_ID.fullmatch(job_id):
            process.run(job_id, stage)
        case _:
            # A newer program may send more than an id; it is its task, then, to send it under a new name.
            size = sum(len(repr(argument)) for argument in arguments)
            keep_foreign(app.conf.broker_url, task=TASKS[stage], reason="no job id", size=size)
