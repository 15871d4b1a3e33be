"""Connections to Redis with deadlines, whichever kind a URL names."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from urllib.parse import quote

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.storage.address import Address, Kind, Login, address_of, spelt_host, spelt_login

PREFIX = "{kimi-review}"
"""What every key of ours starts with. The braces are a hash tag: in a cluster all keys lie in one slot, so that one
script may touch several of them."""

SENTINEL_TIMEOUT_S = 0.5
ASK_AGAIN_S = 1.0
ASK_NOBODY_AGAIN_S = 10.0
"""Asking Sentinels who are all silent holds a call back for as many timeouts."""


def connect(url: str, *, timeout_s: float = 5.0, max_connections: int = 32) -> redis.asyncio.Redis:
    """A client for one event loop; `timeout_s` bounds each step: waiting for a connection, connecting, the answer.

    A call is sent once more when the connection turns out to be dead, as it is after a restart of the server or when
    another one is the master now; each of our scripts may be sent twice. A call that got no answer in time is not.
    """
    address = address_of(url)
    options = server_options(address) | {
        "max_connections": max_connections,
        "timeout": timeout_s,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        # No health checks: where a password is missing, redis-py 8 recurses in them without end. A dead connection is
        # noticed by the call itself.
        "health_check_interval": 0,
        "retry": AsyncRetry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    }
    if address.kind is Kind.SENTINEL:
        asking = sentinel_options(address) | {"retry": AsyncRetry(NoBackoff(), 0)}
        sentinels = _Sentinels(address.hosts, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
        pool = _MasterPool(address.master_name, sentinels, **options)  # type: ignore[no-untyped-call]
        return redis.asyncio.Redis.from_pool(pool)
    options["connection_class"] = _connection_class(address, redis.asyncio)
    return redis.asyncio.Redis.from_pool(redis.asyncio.BlockingConnectionPool(**options))


@contextmanager
def connected(url: str, *, timeout_s: float = 5.0) -> Iterator[redis.Redis]:
    """A client for a thread without an event loop."""
    address = address_of(url)
    options = server_options(address) | {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    }
    with ExitStack() as opened:
        if address.kind is Kind.SENTINEL:
            asking = sentinel_options(address) | {"retry": Retry(NoBackoff(), 0)}
            sentinels = redis.Sentinel(address.hosts, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
            opened.callback(sentinels.close)
            managed = redis.sentinel.SentinelConnectionPool
            pool: redis.ConnectionPool = managed(address.master_name, sentinels, **options)  # type: ignore[no-untyped-call]
        else:
            pool = redis.ConnectionPool(connection_class=_connection_class(address, redis), **options)
        yield opened.enter_context(redis.Redis.from_pool(pool))


def server_options(address: Address) -> dict[str, Any]:
    """Of a redis-py connection to the server, or to whichever is the master."""
    options: dict[str, Any] = {"db": address.db} | _login_options(address.login) | tls_options(address)
    match address.kind:
        case Kind.SERVER:
            [(options["host"], options["port"])] = address.hosts
        case Kind.SOCKET:
            options["path"] = address.path
        case Kind.SENTINEL:
            options["ssl"] = address.tls is not None
    return options


def sentinel_options(address: Address) -> dict[str, Any]:
    """Of a redis-py client of the Sentinels themselves. Add a `retry`: by default it is three, seconds apart."""
    return {
        # The next one is asked when one does not answer: together with a master's, its machine is often gone.
        "socket_timeout": SENTINEL_TIMEOUT_S,
        "socket_connect_timeout": SENTINEL_TIMEOUT_S,
        "ssl": address.tls is not None,
        **_login_options(address.sentinel_login),
        **tls_options(address),
    }


def tls_options(address: Address) -> dict[str, Any]:
    """As redis-py and kombu name them; empty without TLS."""
    tls = address.tls
    if tls is None:
        return {}
    reqs = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}[tls.verification]
    return {"ssl_cert_reqs": reqs, "ssl_check_hostname": tls.checks_host, **tls.files}


def _connection_class(address: Address, library: ModuleType) -> Any:
    """`library` is redis, or redis.asyncio, which name their classes alike."""
    if address.kind is Kind.SOCKET:
        return library.UnixDomainSocketConnection
    return library.SSLConnection if address.tls else library.Connection


def _login_options(login: Login) -> dict[str, Any]:
    return {"username": login.username or None, "password": login.password or None}


class _Sentinels(redis.asyncio.Sentinel):
    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Raises `MasterNotFoundError` with what is wrong with the Sentinels: redis-py keeps that to itself."""
        try:
            found: tuple[str, int] = await super().discover_master(service_name)
        except redis.asyncio.sentinel.MasterNotFoundError as error:
            answers = await asyncio.gather(*(one.ping() for one in self.sentinels), return_exceptions=True)
            wrong = "; ".join(str(answer) for answer in answers if isinstance(answer, redis.RedisError))
            raise redis.asyncio.sentinel.MasterNotFoundError(wrong) from error
        return found


class _MasterPool(redis.asyncio.sentinel.SentinelConnectionPool, redis.asyncio.BlockingConnectionPool):
    """Connections to whichever server the Sentinels call the master; a call waits for a free one.

    redis-py asks the Sentinels when it connects. A master that is deposed in order lives on for some ten seconds and
    takes writes, which are gone when it becomes a replica, so here they are asked once a second.
    """

    _ask_at = 0.0
    """By the monotonic clock."""

    async def ensure_connection(self, connection: Any) -> None:
        if connection.is_connected:
            await self._ask_again()
            if (connection.host, connection.port) != self.master_address:
                await connection.disconnect()
        await super().ensure_connection(connection)

    async def aclose(self) -> None:
        """Leave the Sentinels too: redis-py closes the master's connections alone."""
        await super().aclose()
        await self.sentinel_manager.aclose()

    async def _ask_again(self) -> None:
        now = time.monotonic()
        if now < self._ask_at:
            return
        self._ask_at = now + ASK_AGAIN_S
        try:
            await self.get_master_address()  # type: ignore[no-untyped-call]
        except redis.ConnectionError:
            # Without Sentinels the master may still work; a call that needs a new connection tells what is wrong.
            self._ask_at = now + ASK_NOBODY_AGAIN_S


def broker_url(url: str) -> str:
    """The address as kombu spells it; certificates and the master's name travel as options."""
    address = address_of(url)
    login = spelt_login(address.login)
    match address.kind:
        case Kind.SOCKET:
            return f"redis+socket://{login}{quote(address.path)}?virtual_host={address.db}"
        case Kind.SERVER:
            scheme = "rediss" if address.tls else "redis"
        case Kind.SENTINEL:
            scheme = "sentinel"
    # kombu goes on with the next part when it meets an error, and reads login and database from that one.
    return ";".join(f"{scheme}://{login}{spelt_host(host)}/{address.db}" for host in address.hosts)
