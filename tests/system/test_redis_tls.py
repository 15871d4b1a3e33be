"""Redis behind TLS: certificates are verified by our client, by Celery's worker and by `check`, and told in words."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import redis
from kombu.exceptions import OperationalError

from tests.fakes.pipeline import POSTED
from tests.fakes.program import COMMAND
from tests.fakes.sentinels import Server
from tests.fakes.tls import Authority, authority, terminating
from tests.system.test_queue import Scene, play, working
from worker.core.errors import ConfigurationError, Unreachable
from worker.core.job import State
from worker.storage.connection import connect
from worker.storage.embedded import EmbeddedRedis, start
from worker.storage.health import check_writes
from worker.storage.queue import celery_app

PASSWORD = "a-false/password of-redis"
SPELT = "a-false%2Fpassword%20of-redis"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """A Redis that asks for the password."""
    with start(tmp_path_factory.mktemp("store")) as server:
        with redis.Redis.from_url(server.url) as first:
            first.config_set("requirepass", PASSWORD)
        yield server
        with redis.Redis(unix_socket_path=str(server.socket), password=PASSWORD) as last:
            last.config_set("requirepass", "")


@pytest.fixture(scope="module")
def port(store: EmbeddedRedis, own: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of TLS in front of it, with a certificate for `localhost` alone."""
    context = own.server(tmp_path_factory.mktemp("certificate"), "localhost")
    with terminating(context, str(store.socket)) as opened:
        yield opened


def writing(url: str) -> str:
    """What comes of one write; raises as `check_writes` does."""

    async def story() -> str:
        client = connect(url)
        try:
            return await check_writes(client)
        finally:
            await client.aclose()

    return asyncio.run(story())


def test_a_job_is_done_by_a_worker_that_verifies_the_certificate(port: int, own: Authority, tmp_path: Path) -> None:
    url = f"rediss://:{SPELT}@localhost:{port}/0?ssl_ca_certs={own.path}"

    async def story(scene: Scene) -> None:
        await scene.accept(1)
        with working(url, tmp_path / "log"):
            await scene.all_in(State.DONE, 1)
        assert len(await scene.effects(POSTED)) == 1

    play(url, story)
    assert "password" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("host", "trusts_it", "reason"),
    [("localhost", False, "self-signed certificate in certificate chain"), ("127.0.0.1", True, "IP address mismatch")],
)
def test_a_certificate_of_a_stranger_or_for_another_host_is_refused_in_words(
    port: int, own: Authority, tmp_path: Path, host: str, trusts_it: bool, reason: str
) -> None:
    trusted = own if trusts_it else authority(tmp_path, "another authority")
    url = f"rediss://:{SPELT}@{host}:{port}/0?ssl_ca_certs={trusted.path}"
    with pytest.raises(ConfigurationError) as refused:
        writing(url)
    told = str(refused.value)
    assert told.startswith("REDIS_URL: ")
    assert "ssl_ca_certs" in told
    assert writing(f"{url}&ssl_cert_reqs=none") == "takes writes"

    with celery_app(url).connection_for_read() as broker, pytest.raises(OperationalError) as logged:
        broker.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
    assert str(logged.value) == told
    assert "password" not in told


def test_check_tells_a_refused_certificate_in_its_row_for_redis(port: int, own: Authority, tmp_path: Path) -> None:
    row = checked(f"rediss://:{SPELT}@127.0.0.1:{port}/0?ssl_ca_certs={own.path}", tmp_path)
    assert not row["ok"]
    assert str(row["detail"]).startswith("REDIS_URL: the server's certificate is refused: IP address mismatch")
    assert "password" not in json.dumps(row)


def checked(url: str, folder: Path) -> dict[str, object]:
    """The row for Redis of `kimi-review check`."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "REDIS_URL": url,
        "API_OPENAI_FORCE_BASE_URL": "http://127.0.0.1:9/v1",
    }
    ended = subprocess.run(
        [COMMAND, "check", "--json"], cwd=folder, env=environment, capture_output=True, timeout=60, check=False
    )
    rows = json.loads(ended.stdout)["rows"]
    return next(row for row in rows if row["name"] == "redis")


def test_a_server_that_wants_a_certificate_of_ours_gets_the_one_that_the_url_names(
    store: EmbeddedRedis, own: Authority, tmp_path: Path
) -> None:
    context = own.server(tmp_path, "localhost")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(own.path)
    with terminating(context, str(store.socket)) as port:
        url = f"rediss://:{SPELT}@localhost:{port}/0?ssl_ca_certs={own.path}"
        with pytest.raises(Unreachable):
            writing(url)
        assert writing(f"{url}&ssl_certfile={own.signed(tmp_path, 'a-client')}") == "takes writes"


def test_who_speaks_without_tls_to_a_port_that_wants_it_is_told_what_to_write(port: int) -> None:
    with pytest.raises(Unreachable, match=r"does not answer.*rediss://"):
        writing(f"redis://localhost:{port}/0")


def test_who_speaks_tls_to_a_port_that_answers_without_it_is_told_what_to_check() -> None:
    def answer() -> None:
        with suppress(OSError):  # the listener is shut down
            while True:
                with listener.accept()[0] as caller:
                    caller.recv(1024)
                    caller.sendall(b"-ERR Protocol error: unbalanced quotes in request\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        answering = threading.Thread(target=answer)
        answering.start()
        try:
            with pytest.raises(Unreachable, match=r"do not agree about TLS\. Check the port"):
                writing(f"rediss://127.0.0.1:{listener.getsockname()[1]}/0")
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            answering.join()


def test_sentinels_and_the_master_they_name_are_spoken_to_over_tls(own: Authority, tmp_path: Path) -> None:
    context = own.server(tmp_path, "127.0.0.1")
    with ExitStack() as held:

        def started(name: str, *settings: tuple[str, str], arguments: tuple[str, ...] = ()) -> Server:
            server = Server(tmp_path / name, list(settings), arguments, password="")
            held.callback(server.stop)
            server.start()
            return server

        master = started("master")
        # The Sentinel says where it found the master, and it finds it without TLS.
        master_port = held.enter_context(terminating(context, master.port, takes_plain=True))
        sentinel = started("sentinel", ("sentinel", f"monitor m 127.0.0.1 {master_port} 1"), arguments=("--sentinel",))
        port = held.enter_context(terminating(context, sentinel.port))
        url = f"sentinel://127.0.0.1:{port}/0?master_name=m&ssl=true&ssl_ca_certs={own.path}"
        assert writing(url) == "takes writes"
        with celery_app(url).connection_for_read() as broker:
            assert broker.default_channel.client.ping()
        with pytest.raises(ConfigurationError, match="certificate is refused"):
            writing(f"sentinel://127.0.0.1:{port}/0?master_name=m&ssl=true")
