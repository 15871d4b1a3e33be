"""What Redis and its Sentinels answer when they do not serve us, in our words and as our errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import redis
import redis.asyncio.sentinel
import redis.sentinel

from worker.core.errors import ConfigurationError, Unreachable
from worker.storage.address import NO_CLUSTER

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
CERTIFICATE_REFUSED = re.compile(r"CERTIFICATE_VERIFY_FAILED\] certificate verify failed:? ?(.*?)\.? ?\(_ssl\.c:")


@contextmanager
def answering() -> Iterator[None]:
    """Turn what redis-py raises into `Unreachable` or `ConfigurationError`; the address and its password stay out."""
    try:
        yield
    except redis.RedisError as error:
        ours = in_our_words(error)
        if ours is None:
            raise
        raise ours from error


def in_our_words(error: redis.RedisError) -> Unreachable | ConfigurationError | None:
    """What `error` means to the operator; None when it is a fault of the program."""
    said = str(error)
    if isinstance(error, (redis.exceptions.MovedError, redis.exceptions.ClusterCrossSlotError)):
        return ConfigurationError([NO_CLUSTER])
    if (refused := CERTIFICATE_REFUSED.search(said)) is not None:
        return ConfigurationError(
            [
                f"REDIS_URL: the server's certificate is refused: {refused[1].strip()}. Write the host as the"
                " certificate names it, and ?ssl_ca_certs=/PATH/ca.pem where an authority of your own has signed it."
            ]
        )
    if "[SSL" in said:
        return Unreachable(
            "Redis and REDIS_URL do not agree about TLS. Check the port; where the server wants a certificate of ours,"
            " name it as ssl_certfile and its key as ssl_keyfile."
        )
    if isinstance(error, redis.AuthenticationError) or any(word in said for word in DECLINED):
        if _is_of_sentinels(error):
            return ConfigurationError(
                ["REDIS_URL: the Sentinels decline us. Check sentinel_username, sentinel_password."]
            )
        return ConfigurationError(
            ["REDIS_URL: Redis declines us. Check the user and the password, and that the user may run scripts."]
        )
    if _takes_no_writes(error):
        return Unreachable(f"Redis takes no writes: {said}. Check its memory, its disk and its role.")
    if _is_of_sentinels(error):
        return Unreachable(
            "No Sentinel names a master that works. A failover may be under way;"
            " else check the hosts and master_name in REDIS_URL, and that the Sentinels run."
        )
    if isinstance(error, (redis.ConnectionError, redis.TimeoutError, redis.exceptions.BusyLoadingError)):
        return Unreachable(
            f"Redis does not answer ({type(error).__name__})."
            " Check REDIS_URL (host, port, rediss:// for TLS alone) and that the server runs."
        )
    return None


def _takes_no_writes(error: redis.RedisError) -> bool:
    """Whether the server declined for a state that passes, or that its operator must end."""
    # redis-py takes the first word off the errors that it has a class for.
    if isinstance(error, (redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError)):
        return True
    return isinstance(error, redis.ResponseError) and any(word in str(error) for word in TAKES_NO_WRITES)


def _is_of_sentinels(error: redis.RedisError) -> bool:
    return isinstance(error, (redis.sentinel.MasterNotFoundError, redis.asyncio.sentinel.MasterNotFoundError))
