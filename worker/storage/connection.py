"""Connections to Redis with deadlines, and its errors in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from worker.core.errors import ConfigurationError, Unreachable

PREFIX = "{kimi-review}"
"""What every key of ours starts with. The braces are a hash tag: in a cluster all keys lie in one slot, so that one
script may touch several of them."""

DECLINED = (
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "Authentication required",
    "invalid username-password",
    "already authenticated",
)
TAKES_NO_WRITES = ("OOM", "READONLY", "MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN")
"""Words of the server's own errors: out of memory, a replica, a full disk, a cluster that is not whole."""


def connect(url: str, *, timeout_s: float = 5.0, max_connections: int = 32) -> redis.asyncio.Redis:
    """A client for one event loop; `timeout_s` bounds each step: waiting for a connection, connecting, the answer.

    A call is sent once more when the connection turns out to be dead, as it is after a restart of the server;
    each of our scripts may be sent twice. A call that got no answer in time is not.
    """
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        redis_url(url),
        max_connections=max_connections,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        # No health checks: where a password is missing, redis-py 8 recurses in them without end. A dead connection is
        # noticed by the call itself.
        health_check_interval=0,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )
    return redis.asyncio.Redis.from_pool(pool)


def redis_url(url: str) -> str:
    """The address as redis-py spells it; kombu writes a Unix socket as `redis+socket:///path?virtual_host=0`."""
    if not url.startswith("redis+socket://"):
        return url
    return "unix://" + url.removeprefix("redis+socket://").replace("virtual_host=", "db=")


def broker_url(url: str) -> str:
    """The address as kombu spells it."""
    if not url.startswith("unix://"):
        return url
    parts = urlsplit(url)
    login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return f"redis+socket://{login}{parts.path}?{parts.query.replace('db=', 'virtual_host=')}"


@contextmanager
def answering() -> Iterator[None]:
    """Turn what redis-py raises into `Unreachable` or `ConfigurationError`; the address and its password stay out."""
    try:
        yield
    except redis.RedisError as error:
        said = str(error)
        if isinstance(error, redis.AuthenticationError) or any(word in said for word in DECLINED):
            raise ConfigurationError(
                ["REDIS_URL: Redis declines us. Check the user and the password, and that the user may run scripts."]
            ) from error
        # redis-py takes the first word off the errors that it has a class for.
        is_full_or_replica = isinstance(error, (redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError))
        if is_full_or_replica or (isinstance(error, redis.ResponseError) and any(w in said for w in TAKES_NO_WRITES)):
            raise Unreachable(f"Redis takes no writes: {said}. Check its memory, its disk and its role.") from error
        if isinstance(error, (redis.ConnectionError, redis.TimeoutError, redis.exceptions.BusyLoadingError)):
            name = type(error).__name__
            raise Unreachable(f"Redis does not answer ({name}). Check REDIS_URL and that the server runs.") from error
        raise
