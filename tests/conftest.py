"""What several suites need: one real Redis per run, emptied for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from hypothesis import HealthCheck, settings

from worker.storage.embedded import EmbeddedRedis, start

# The suite says the same twice, however busy the machine is; `make fuzz` looks for what nobody thought of.
settings.register_profile("suite", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", deadline=None, max_examples=2_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """The embedded server of this run of the suite, on a Unix socket: no port, no service started by hand."""
    with start(tmp_path_factory.mktemp("home")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """A Redis that holds nothing."""
    redis_server.ensure_running()
    with redis.Redis(unix_socket_path=str(redis_server.socket)) as client:
        client.flushall()
    return redis_server.url
