"""What each task does with its message: take the id out of it and hand it to this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.core.job import Stage, job_named_in
from worker.storage.foreign import keep_foreign
from worker.storage.queue import TASKS

if TYPE_CHECKING:
    from worker.process import WorkerProcess


def work_on(app: Any, arguments: tuple[object, ...], stage: Stage) -> None:
    """Work on the job that a message names; one that names none, or says more, is put aside, and logged without it."""
    process: WorkerProcess = app.worker_process
    job_id = job_named_in(arguments)
    if job_id and len(arguments) == 1:
        process.run(job_id, stage)
        return
    size = sum(len(repr(argument)) for argument in arguments)
    reason = "more than a job id" if job_id else "no job id"
    keep_foreign(app.redis_url, task=TASKS[stage], reason=reason, size=size)
    if job_id:
        # What a newer program says besides may matter. The job is not lost with its message.
        process.pass_over(job_id)
