"""The Celery queue: messages that wake a worker for a job and carry nothing but its id.

A message may be lost, late or there twice; the job records decide (`jobs.py`), and upkeep wakes what was forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import redis.asyncio
from celery import Celery

from worker.core.errors import Unreachable
from worker.core.job import Due, Priority, Stage
from worker.storage.address import address_of
from worker.storage.broker import Amqp, message_for, sentinel_transport_options
from worker.storage.connection import broker_url, tls_options
from worker.storage.faults import answering

TASKS: Mapping[Stage, str] = {Stage.REVIEW: "review.run", Stage.PUBLISH: "review.publish"}
"""Jobs are sent by name, so the program needs no import of its door to Celery."""

MESSAGE_PRIORITY: Mapping[Priority, int] = {Priority.INTERACTIVE: 0, Priority.CROWD: 3, Priority.BATCH: 9}
"""0 is taken first. The order of the queues alone would not do: kombu keeps their names in a set."""

SEND_TIMEOUT_S = 2.0


def celery_app(redis_url: str, *, visibility_timeout_s: int = 900, threads: int = 4) -> Celery:
    """The Celery application, for workers and for those who only send. Every setting has its reason beside it."""
    address = address_of(redis_url)
    app = Celery("kimi-review", broker=broker_url(redis_url), amqp=Amqp, set_as_current=False)
    # Whoever has the application alone finds the same Redis.
    app.redis_url = redis_url
    app.conf.update(
        # The job record holds the outcome; a result would be a second truth that nobody reads.
        task_ignore_result=True,
        result_backend=None,
        # Only ids travel, as JSON: a message can execute nothing.
        task_serializer="json",
        accept_content=["json"],
        # Nobody but us declares queues; a message for another one is an error at the sender.
        task_create_missing_queues=False,
        task_queues={priority.value: {"routing_key": priority.value} for priority in Priority},
        task_default_queue=Priority.INTERACTIVE.value,
        # A message is acknowledged once its task has returned. What failed is retried by the record, not by Celery.
        task_acks_late=True,
        task_acks_on_failure_or_timeout=True,
        task_reject_on_worker_lost=True,
        # A message waits in Redis, where another worker can take it, and not in the memory of a busy one.
        worker_prefetch_multiplier=1,
        # Threads: a review waits for the network nearly all the time; 30 at once take 76 MB instead of 1 GB, and
        # unlike with gevent a killed worker's messages come back.
        worker_pool="threads",
        worker_concurrency=threads,
        # One message at a time is what a worker fetches, after a lost connection as before it.
        worker_enable_prefetch_count_reduction=False,
        # A reset connection does not stop reviews: their leases are renewed over another one.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # Without it a worker gives up for good after 100 attempts.
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        # A server that takes no writes for a while, a master that became a replica: the worker waits, it does not end.
        broker_channel_error_retry=True,
        broker_connection_timeout=SEND_TIMEOUT_S,
        # Sending fails fast: the record is written already, and upkeep sends it again.
        task_publish_retry=False,
        # The log is ours (`worker/logs.py`).
        worker_hijack_root_logger=False,
        worker_log_color=False,
        # Nobody listens to events, and a worker that gossips costs the broker a message per second and worker.
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_consumer="worker.consumer:Consumer",
        # kombu would look at no certificate unless it is told to.
        broker_use_ssl=tls_options(address) or None,
        broker_transport_options={
            # A safety net below the lease, which recovers within seconds.
            "visibility_timeout": visibility_timeout_s,
            # By default these two come to a sweep every 100 s.
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "unacked_restore_limit": 500,
            # Without them a connection that was dropped without a word stalls the worker for good.
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "health_check_interval": 5,
            # Strictly in this order over all queues; the default steps would leave 9 among 6 to 9.
            "priority_steps": sorted(MESSAGE_PRIORITY.values()),
            "queue_order_strategy": "round_robin",
            # Connecting for a message to send is tried once: kombu would try for ever.
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0,
            "interval_max": 0,
            **sentinel_transport_options(address),
        },
    )
    return app


class CeleryWake:
    """Implements `ports.Wake`. `client` is of the same Redis as the broker.

    Messages are pushed by it and not by kombu's producer: that one blocks, takes a thread and a second connection,
    and does in five round trips what is one here.
    """

    def __init__(self, app: Celery, client: redis.asyncio.Redis) -> None:
        self._app = app
        self._client = client

    async def review(self, job_id: str, priority: Priority) -> None:
        await self._send(Stage.REVIEW, job_id, priority)

    async def publish(self, job_id: str, priority: Priority) -> None:
        # What is paid for and takes a second waits behind no reviews that nobody has begun.
        await self._send(Stage.PUBLISH, job_id, _night_or_day(priority), is_first=True)

    async def first(self, due: Due) -> None:
        await self._send(due.stage, due.job, _night_or_day(due.priority), is_first=True)

    async def waiting(self, priority: Priority) -> int:
        with answering():
            return int(await self._client.llen(queue_key(priority)))

    async def _send(self, stage: Stage, job_id: str, priority: Priority, *, is_first: bool = False) -> None:
        step = MESSAGE_PRIORITY[priority]
        message = message_for(self._app, TASKS[stage], job_id, queue=priority.value, priority=step)
        # Workers take from the right.
        push = self._client.rpush if is_first else self._client.lpush
        try:
            with answering():
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await push(queue_key(priority), message)
        except TimeoutError as error:
            raise Unreachable(f"The queue does not answer ({type(error).__name__}). Check REDIS_URL.") from error


def _night_or_day(priority: Priority) -> Priority:
    """Where a job goes on that has begun: whoever waited in a crowd has had his turn."""
    return Priority.BATCH if priority is Priority.BATCH else Priority.INTERACTIVE


def queue_key(priority: Priority) -> str:
    """The list in which kombu keeps the messages: those of priority 0 under the queue's own name."""
    step = MESSAGE_PRIORITY[priority]
    return f"{priority.value}\x06\x16{step}" if step else priority.value
