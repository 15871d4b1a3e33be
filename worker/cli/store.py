"""The job records, for commands that only ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from worker.ports import Jobs
from worker.settings import Settings
from worker.storage import embedded
from worker.storage.connection import connect
from worker.storage.jobs import RedisJobs

ANSWER_TIMEOUT_S = 5.0


@asynccontextmanager
async def opened_jobs(settings: Settings) -> AsyncIterator[Jobs]:
    """The records at REDIS_URL, or in the embedded Redis of KIMI_REVIEW_HOME. Raises `Unreachable`."""
    with ExitStack() as held:
        if settings.redis_dsn is not None:
            url = settings.redis_dsn.get_secret_value()
        else:
            url = held.enter_context(embedded.start(settings.kimi_review_home)).url
        client = connect(url, timeout_s=ANSWER_TIMEOUT_S)
        try:
            yield RedisJobs(client, lease_s=settings.job_lease_s)
        finally:
            await client.aclose()
