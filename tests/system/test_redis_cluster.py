"""A Redis Cluster: Celery has no broker of that kind, and whoever names one of its nodes is told so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from tests.fakes.program import free_port, until
from tests.fakes.sentinels import Server
from worker.core.change import ChangeRef
from worker.core.errors import ConfigurationError
from worker.core.job import Intent
from worker.storage.connection import connect
from worker.storage.health import check_writes
from worker.storage.jobs import RedisJobs

SLOTS = 16384


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Three masters that share the slots."""
    folder = tmp_path_factory.mktemp("cluster")
    with ExitStack() as held:
        found = [node_in(folder / str(n)) for n in range(3)]
        for node in found:
            held.callback(node.stop)
            node.start()
        borders = [SLOTS * n // 3 for n in range(4)]
        for node, (begin, end) in zip(found, pairwise(borders), strict=True):
            node.command("CLUSTER", "ADDSLOTSRANGE", begin, end - 1)
            bus = dict(found[0].settings)["cluster-port"]
            node.command("CLUSTER", "MEET", "127.0.0.1", found[0].port, bus)
        until(lambda: all(is_whole(node) for node in found), "the cluster is whole")
        yield found


def node_in(folder: Path) -> Server:
    # By default a node is spoken to by the others at a port that is 10,000 higher, and may not exist.
    return Server(folder, [("cluster-enabled", "yes"), ("cluster-port", str(free_port()))], password="")


def is_whole(node: Server) -> bool:
    told = node.command("CLUSTER", "INFO")
    assert isinstance(told, bytes)
    return b"cluster_state:ok" in told


def test_each_node_is_refused_with_what_to_use_instead(nodes: list[Server]) -> None:
    async def story(node: Server) -> str:
        client = connect(f"redis://127.0.0.1:{node.port}/0")
        try:
            with pytest.raises(ConfigurationError) as refused:
                await check_writes(client)
        finally:
            await client.aclose()
        return str(refused.value)

    # One of them has the slot of our keys.
    for node in nodes:
        told = asyncio.run(story(node))
        assert told.startswith("REDIS_URL: names a Redis Cluster, and Celery has no broker of that kind.")
        assert "sentinel://" in told


def test_a_node_that_has_not_our_keys_takes_no_job(nodes: list[Server]) -> None:
    async def story(node: Server) -> bool:
        client = connect(f"redis://127.0.0.1:{node.port}/0")
        try:
            await RedisJobs(client).accept(Intent(ChangeRef("github", "octo/cat", 7), "a" * 40))
        except ConfigurationError:
            return False
        finally:
            await client.aclose()
        return True

    # All our keys lie in one slot.
    assert sum(asyncio.run(story(node)) for node in nodes) == 1
