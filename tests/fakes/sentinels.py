"""Real servers that fail over: a master, its replica, and three Sentinels, each a process on loopback."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.fakes.program import free_port, until
from worker.storage.embedded import server_program

MASTER = "the-master"
PASSWORD = "a-password-of-redis"
SENTINEL_PASSWORD = "a-password-of-sentinels"
DOWN_AFTER_MS = 500


@dataclass
class Server:
    """One `valkey-server` on a port; `settings` as its configuration file has them, several rows under one name too."""

    folder: Path
    settings: list[tuple[str, str]]
    arguments: tuple[str, ...] = ()
    password: str = PASSWORD
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "server.conf"
        if not file.exists():  # a Sentinel writes into it what it has learned
            rows = [("port", str(self.port)), ("bind", "127.0.0.1"), ("dir", str(self.folder)), *self.settings]
            file.write_text("".join(f"{name} {value}\n" for name, value in rows))
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(server_program()), str(file), *self.arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until(self.answers, f"the server on {self.port} answers", log=lambda: (self.folder / "log").read_text())

    def answers(self) -> bool:
        assert self.process is None or self.process.poll() is None, (self.folder / "log").read_text()
        try:
            return bool(self.command("PING"))
        except redis.RedisError:
            return False

    def command(self, *words: str | int) -> object:
        with redis.Redis(port=self.port, password=self.password or None, socket_timeout=2) as client:
            return client.execute_command(*words)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """It lives, and answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            # A process that is stopped hears nothing else.
            self.process.send_signal(signal.SIGCONT)
            self.kill()


@dataclass
class Watched:
    """`servers` are a master and its replica at first; who is what may change."""

    servers: list[Server]
    sentinels: list[Server]

    @property
    def url(self) -> str:
        hosts = ";".join(f"sentinel://127.0.0.1:{one.port}" for one in self.sentinels)
        options = f"master_name={MASTER}&sentinel_password={SENTINEL_PASSWORD}"
        return f"{hosts.replace('://', f'://:{PASSWORD}@', 1)}/0?{options}"

    def master(self) -> Server | None:
        """Whom the Sentinels call so; None while it is down and no other has taken over."""
        for sentinel in self.sentinels:
            with redis.Redis(port=sentinel.port, password=SENTINEL_PASSWORD) as client:
                state = client.sentinel_master(MASTER)
            assert isinstance(state, dict)
            if not (state["is_sdown"] or state["is_odown"]):
                return next(one for one in self.servers if one.port == state["port"])
        return None

    def fail_over(self) -> None:
        """In order, as an operator asks for it: the old master lives, and is told some ten seconds later."""
        before = self.master()
        assert before is not None
        self.sentinels[0].command("SENTINEL", "FAILOVER", MASTER)
        self.await_another_master(before)

    def await_another_master(self, before: Server) -> None:
        def is_promoted() -> bool:
            now = self.master()
            return now not in (before, None) and _role(now) == "master"

        until(is_promoted, "another server is the master", within_s=20)


@contextmanager
def watched(folder: Path, *, sentinels: int = 3) -> Iterator[Watched]:
    """All of them run, know each other, and are in step."""
    with ExitStack() as held:

        def started(name: str, settings: Mapping[str, str], *more: tuple[str, str], **options: object) -> Server:
            server = Server(folder / name, [*settings.items(), *more], **options)  # type: ignore[arg-type]
            held.callback(server.stop)
            server.start()
            return server

        common = {"requirepass": PASSWORD, "masterauth": PASSWORD, "appendonly": "yes", "save": '""'}
        # By default a replica is served by a child five seconds after it asks.
        common |= {"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1"}
        master = started("one", common)
        replica = started("two", common | {"replicaof": f"127.0.0.1 {master.port}"})
        quorum = sentinels // 2 + 1
        watching = (
            ("requirepass", SENTINEL_PASSWORD),
            ("sentinel", f"sentinel-pass {SENTINEL_PASSWORD}"),
            ("sentinel", f"monitor {MASTER} 127.0.0.1 {master.port} {quorum}"),
            ("sentinel", f"auth-pass {MASTER} {PASSWORD}"),
            ("sentinel", f"down-after-milliseconds {MASTER} {DOWN_AFTER_MS}"),
            ("sentinel", f"failover-timeout {MASTER} 3000"),
        )
        guards = [
            started(f"sentinel{n}", {}, *watching, arguments=("--sentinel",), password=SENTINEL_PASSWORD)
            for n in range(sentinels)
        ]
        until(lambda: _in_step(replica), "the replica is in step")
        for guard in guards:
            until(lambda guard=guard: _knows_all(guard, sentinels), "each Sentinel knows replica and others")  # type: ignore[misc]
        yield Watched([master, replica], guards)


def _role(server: Server) -> str:
    try:
        found = server.command("ROLE")
    except redis.RedisError:
        return ""
    assert isinstance(found, list)
    return str(found[0].decode())


def _in_step(replica: Server) -> bool:
    found = replica.command("ROLE")
    assert isinstance(found, list)
    return bool(found[3] == b"connected")


def _knows_all(sentinel: Server, count: int) -> bool:
    with redis.Redis(port=sentinel.port, password=SENTINEL_PASSWORD) as client:
        state = client.sentinel_master(MASTER)
    assert isinstance(state, dict)
    return bool(state["num-slaves"] == 1 and state["num-other-sentinels"] == count - 1)
