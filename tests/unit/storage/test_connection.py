"""Redis when it is away, full, read-only or closed to us: our own errors, in time, and without the address."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import time
from pathlib import Path

import pytest
import redis

from worker.core.change import ChangeRef
from worker.core.errors import ConfigurationError, ReviewError, Unreachable
from worker.core.job import Accepted, Intent, Priority
from worker.storage.connection import broker_url, connect
from worker.storage.embedded import EmbeddedRedis, start
from worker.storage.jobs import RedisJobs
from worker.storage.queue import CeleryWake, celery_app

INTENT = Intent(ChangeRef("github", "octo/cat", 7), "a" * 40, delivery="d1")


def accepting(url: str) -> Accepted | ReviewError:
    """What comes of one delivery."""

    async def story() -> Accepted | ReviewError:
        client = connect(url, timeout_s=0.5)
        try:
            return await RedisJobs(client).accept(INTENT)
        except ReviewError as error:
            return error
        finally:
            await client.aclose()

    return asyncio.run(story())


def configure(server: EmbeddedRedis, **settings: str) -> None:
    with redis.Redis.from_url(server.url) as client:
        for name, value in settings.items():
            client.config_set(name.replace("_", "-"), value)


def keys(server: EmbeddedRedis) -> int:
    with redis.Redis.from_url(server.url) as client:
        return int(client.dbsize())


def test_nobody_listens(tmp_path: Path) -> None:
    assert isinstance(accepting(f"unix://{tmp_path}/nothing.sock"), Unreachable)


def test_a_server_that_hangs_is_given_up_within_two_seconds_and_works_again_afterwards(tmp_path: Path) -> None:
    with start(tmp_path) as server:
        with redis.Redis.from_url(server.url) as client:
            process = int(client.info("server")["process_id"])
        os.kill(process, signal.SIGSTOP)
        began = time.monotonic()
        try:
            assert isinstance(accepting(server.url), Unreachable)
        finally:
            os.kill(process, signal.SIGCONT)
        assert time.monotonic() - began < 2
        assert isinstance(accepting(server.url), Accepted)


def test_a_full_store_takes_nothing_and_nothing_is_half_written(tmp_path: Path) -> None:
    with start(tmp_path) as server:
        configure(server, maxmemory="1")
        before = keys(server)
        refused = accepting(server.url)
        assert isinstance(refused, Unreachable)
        assert "memory" in str(refused)
        assert keys(server) == before
        configure(server, maxmemory="0")
        accepted = accepting(server.url)
        assert isinstance(accepted, Accepted)
        assert accepted.is_new


def test_a_replica_takes_nothing(tmp_path: Path) -> None:
    with start(tmp_path) as server:
        with redis.Redis.from_url(server.url) as client:
            client.replicaof("127.0.0.1", "1")
            assert isinstance(accepting(server.url), Unreachable)
            client.replicaof("NO", "ONE")
        assert isinstance(accepting(server.url), Accepted)


def test_a_master_without_the_replicas_it_must_have_takes_nothing(tmp_path: Path) -> None:
    with start(tmp_path) as server:
        configure(server, min_replicas_to_write="1")
        refused = accepting(server.url)
        assert isinstance(refused, Unreachable)
        assert "takes no writes" in str(refused)
        configure(server, min_replicas_to_write="0")
        assert isinstance(accepting(server.url), Accepted)


def test_a_wrong_password_is_said_without_showing_one(tmp_path: Path) -> None:
    with start(tmp_path) as server:
        configure(server, requirepass="a-false-secret")
        try:
            with_none = accepting(server.url)
            with_wrong = accepting(server.url.replace("unix://", "unix://:another-false-secret@"))
        finally:
            with redis.Redis(unix_socket_path=str(server.socket), password="a-false-secret") as client:
                client.config_set("requirepass", "")
        for refused in (with_none, with_wrong):
            assert isinstance(refused, ConfigurationError)
            assert "REDIS_URL" in str(refused)
            assert "secret" not in str(refused)


def test_a_connection_that_died_with_the_server_is_replaced(tmp_path: Path) -> None:
    async def story(server: EmbeddedRedis) -> None:
        client = connect(server.url)
        try:
            jobs = RedisJobs(client)
            first = await jobs.accept(INTENT)
            os.kill(int((await client.info("server"))["process_id"]), signal.SIGKILL)
            assert server.ensure_running()
            assert (await jobs.accept(INTENT)).job == first.job
        finally:
            await client.aclose()

    with start(tmp_path) as server:
        asyncio.run(story(server))


def test_a_wake_up_that_cannot_be_sent_fails_fast(tmp_path: Path) -> None:
    async def story() -> None:
        url = f"unix://{tmp_path}/nothing.sock"
        client = connect(url)
        try:
            wake = CeleryWake(celery_app(url), client)
            began = time.monotonic()
            with pytest.raises(Unreachable):
                await wake.review("0" * 20, Priority.INTERACTIVE)
            assert time.monotonic() - began < 2.5
            with pytest.raises(Unreachable):
                await wake.waiting(Priority.INTERACTIVE)
        finally:
            await client.aclose()

    asyncio.run(story())


def test_the_broker_s_certificate_is_verified_unless_the_url_says_otherwise() -> None:
    default = celery_app("rediss://host:6380/0").connection_for_read()
    assert default.ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    asked = celery_app("rediss://host:6380/0?ssl_cert_reqs=none").connection_for_read()
    assert asked.ssl == {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_check_hostname": False}
    own = celery_app("rediss://host:6380/0?ssl_ca_certs=/ca.pem").connection_for_read()
    assert own.ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True, "ssl_ca_certs": "/ca.pem"}
    assert not celery_app("redis://host:6379/0").connection_for_read().ssl


@pytest.mark.parametrize(
    ("ours", "kombus"),
    [
        ("unix:///run/r.sock?db=2", "redis+socket:///run/r.sock?virtual_host=2"),
        ("unix://:word@/run/r.sock?db=0", "redis+socket://:word@/run/r.sock?virtual_host=0"),
        ("redis+socket:///run/r.sock?virtual_host=2", "redis+socket:///run/r.sock?virtual_host=2"),
        ("redis://host:6379/1", "redis://host:6379/1"),
        ("rediss://host/0?ssl_ca_certs=/ca.pem", "rediss://host:6379/0"),
        (
            "sentinel://:a%40b@one;sentinel://two:9/3?master_name=m",
            "sentinel://:a%40b@one:26379/3;sentinel://:a%40b@two:9/3",
        ),
    ],
)
def test_one_address_is_spelt_for_kombu_too(ours: str, kombus: str) -> None:
    assert broker_url(ours) == kombus
