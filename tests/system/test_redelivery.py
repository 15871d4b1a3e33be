"""Celery's own safety net delivers a message again while its review still runs; the lease decides, not the message."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.fakes.pipeline import BOUGHT, POSTED
from worker.core.change import ChangeRef
from worker.core.job import Intent, Priority, State
from worker.storage.connection import connect
from worker.storage.jobs import RedisJobs
from worker.storage.queue import CeleryWake, celery_app

UNITS = 20


def test_a_message_that_comes_again_while_its_review_runs_starts_no_second_one(redis_url: str, tmp_path: Path) -> None:
    # The review takes eight seconds; after one second its message counts as lost.
    settings = {"PIPELINE_VISIBILITY_S": "1", "PIPELINE_UNITS": str(UNITS), "PIPELINE_UNIT_S": "0.4"}
    environment = {**os.environ, "PIPELINE_REDIS_URL": redis_url, "PYTHONPATH": str(Path.cwd()), **settings}
    command = [sys.executable, "-m", "celery", "-q", "-A", "tests.fakes.pipeline_worker", "worker"]

    async def story() -> None:
        client = connect(redis_url)
        try:
            jobs = RedisJobs(client, lease_s=2.0)
            job = (await jobs.accept(Intent(ChangeRef("github", "octo/cat", 1), "a" * 40))).job
            await CeleryWake(celery_app(redis_url), client).review(job, Priority.INTERACTIVE)
            deadline = time.monotonic() + 30
            while (await jobs.counts())[State.DONE] < 1:
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                await asyncio.sleep(0.1)
            bought = await client.lrange(BOUGHT, 0, -1)
            assert len(bought) == len(set(bought)) == UNITS
            assert await client.llen(POSTED) == 1
            record = await jobs.get(job)
            assert record is not None
            assert record.attempt == 1, "publishing was begun once, and so was the review before it"
        finally:
            await client.aclose()

    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, env=environment, stderr=log) as worker:
        try:
            asyncio.run(story())
        finally:
            worker.terminate()
            worker.wait(20)
    assert "leased by" in (tmp_path / "log").read_text(), "the message did come again"
