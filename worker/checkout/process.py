"""Running git: the one place where a git process is started, hardened and bounded."""

from __future__ import annotations

import os
import resource
import selectors
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

from worker.core.errors import ConfigurationError, Stalled

# GitPython looks for git when it is imported and raises ImportError where there is none; we tell it in our own
# words when git is needed: https://gitpython.readthedocs.io/en/stable/reference.html#git.refresh
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

from git.cmd import Git
from git.exc import GitCommandNotFound

# What git may inherit: where programs are, which authorities it was told to trust. All else (GIT_*, keys, tokens)
# stays behind; proxies too, since libcurl would use them by rules of its own. A fetch is told its proxy.
INHERITED = frozenset({"PATH", "TMPDIR", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_PROXY_SSL_CAINFO"})

# Nothing of a change, of the user or of the machine configures git. HOME is no directory, so that neither
# .gitconfig nor .netrc can be there; replace refs and grafts are somebody's view, not the objects.
ENVIRONMENT: Mapping[str, str] = {
    "HOME": os.devnull,
    "XDG_CONFIG_HOME": os.devnull,
    "LC_ALL": "C",
    "LANGUAGE": "C",
    "TZ": "UTC",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS": "",
    "GIT_SSH_COMMAND": "false",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
}

COMPARED_BYTES = 50 * 2**20
"""Larger files are not compared line by line."""

# Given on the command line, where they win over whatever a repository's own configuration says.
HARDENING: Sequence[tuple[str, str]] = (
    ("core.hooksPath", os.devnull),
    ("core.attributesFile", os.devnull),
    ("core.excludesFile", os.devnull),
    ("core.fsmonitor", "false"),
    ("core.untrackedCache", "false"),
    ("core.quotePath", "true"),
    ("core.pager", "cat"),
    ("core.askPass", ""),
    # Larger blobs are never held in memory or compared line by line: git calls them binary.
    ("core.bigFileThreshold", str(COMPARED_BYTES)),
    ("credential.helper", ""),
    ("http.followRedirects", "false"),
    ("http.cookieFile", ""),
    ("http.saveCookies", "false"),
    ("protocol.version", "2"),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("fetch.writeCommitGraph", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    # Checking would refuse much honest history (padded modes, odd dates), and nothing is ever checked out here.
    ("transfer.fsckObjects", "false"),
    ("safe.directory", "*"),
    ("advice.detachedHead", "false"),
    ("pack.threads", "2"),
    # A commit graph or bitmap of a stranger's repository is a cache that may lie; ours has none.
    ("core.commitGraph", "false"),
)

OLDEST_GIT = (2, 38)
"""The oldest that knows every option that is given here."""
_NO_GIT = f"git was not found: install git {OLDEST_GIT[0]}.{OLDEST_GIT[1]} or newer."
_NOT_FOUND = 127
"""How `env` ends where it finds no such program (POSIX)."""
_POLL_S = 0.25
_READ_BYTES = 1 << 16
_STDERR_BYTES = 1 << 16
_MEMORY_BYTES = 3_000_000_000
"""What one git process may allocate: several times what indexing a large system's history takes. Mapped packs do not
count. A server that never stops naming refs would fill the machine's memory within a minute."""


class TimedOut(Stalled):
    """git was killed: it ran for longer than its total deadline, or was silent for longer than its idle one."""


class OutputTooLong(Exception):
    """git was killed: it wrote more than its limit. `output` is what had come, of the limit's length."""

    def __init__(self, output: bytes) -> None:
        super().__init__("git wrote more than its limit")
        self.output = output


class Cancelled(Exception):
    """git was killed because nobody waits for it any more."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one git process may take. `check` is called a few times a second and may raise to end it."""

    total_s: float
    idle_s: float | None = None
    """Seconds without a byte on either stream; for commands that report progress."""
    output_bytes: int = 64_000_000
    check: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """How a git process ended. `errors` is the end of stderr."""

    code: int
    output: bytes
    errors: str


@dataclass(frozen=True, slots=True)
class GitRunner:
    """Starts git in one directory. `secrets` is configuration that travels in the environment alone."""

    directory: Path
    protocols: str = "none"
    """Transports that git may use, colon separated; "none" is none."""
    config: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    is_git_dir: bool = True
    """False where `directory` lies within a work tree and git shall find the repository."""
    held: tuple[int, ...] = ()
    """File descriptors that git keeps open: a lock on one lasts as long as git runs, though we be killed."""
    cancelled: threading.Event = field(default_factory=threading.Event)

    def run(self, arguments: Sequence[str], *, bounds: Bounds, stdin: bytes = b"") -> Finished:
        """Run `git <arguments>` to its end, whatever its exit code.

        Raises `TimedOut`, `OutputTooLong`, `Cancelled`, and whatever `bounds.check` raises; git and its
        children are dead then. Raises `ConfigurationError` when there is no git.
        """
        command = [*self._unset(), "git", *self._options(), *(_as_argument(text) for text in arguments)]
        with tempfile.TemporaryFile() as source:
            source.write(stdin)
            source.seek(0)
            try:
                # GitPython starts the process; its own group lets helpers (git-remote-https) be ended with it.
                # It is told its directory by us: GitPython would expand a `$` in a path.
                started = Git().execute(
                    command,
                    istream=source,
                    as_process=True,
                    env=self._environment(),
                    start_new_session=True,
                    pass_fds=self.held,
                )
            except GitCommandNotFound as error:
                raise ConfigurationError([_NO_GIT]) from error
        process = started.proc
        if process is None:
            raise RuntimeError("GitPython gave no process")
        _limit(process, bounds)
        try:
            done = _attend(process, bounds, self.cancelled)
        finally:
            _end(process)
        if done.code == _NOT_FOUND and done.errors.startswith("env:"):
            raise ConfigurationError([_NO_GIT])
        return done

    def _options(self) -> list[str]:
        options = ["--no-pager", "-C", str(self.directory)]
        if self.is_git_dir:
            options.append(f"--git-dir={self.directory}")
        for key, value in (*HARDENING, *self.config):
            options += ["-c", f"{key}={value}"]
        return options

    def _environment(self) -> dict[str, str]:
        environment = {**ENVIRONMENT, **_authorities(os.environ)}
        environment["GIT_ALLOW_PROTOCOL"] = self.protocols
        if self.secrets:
            environment["GIT_CONFIG_COUNT"] = str(len(self.secrets))
            for index, (key, value) in enumerate(self.secrets):
                environment[f"GIT_CONFIG_KEY_{index}"] = key
                environment[f"GIT_CONFIG_VALUE_{index}"] = value
        return environment

    def _unset(self) -> list[str]:
        """`env -u NAME …` for all that git must not inherit: GitPython hands on our whole environment."""
        kept = INHERITED | self._environment().keys()
        unset: list[str] = ["env"]
        for name in sorted(os.environ):
            if name not in kept:
                unset += ["-u", name]
        return unset


def _authorities(given: Mapping[str, str]) -> dict[str, str]:
    """SSL_CERT_FILE, else SSL_CERT_DIR, under git's own names: one setting does for the forge's API and for git.

    libcurl reads neither by itself (https://curl.se/docs/sslcerts.html). What git was told by its own names stands.
    """
    if given.get("GIT_SSL_CAINFO") or given.get("GIT_SSL_CAPATH"):
        return {}
    if file := given.get("SSL_CERT_FILE"):
        # The second is for a proxy that is spoken to over TLS: https://git-scm.com/docs/git-config
        return {"GIT_SSL_CAINFO": file, "GIT_PROXY_SSL_CAINFO": given.get("GIT_PROXY_SSL_CAINFO") or file}
    folder = given.get("SSL_CERT_DIR")
    return {"GIT_SSL_CAPATH": folder} if folder else {}


def _as_argument(text: str) -> str:
    """`text` so that git gets it as UTF-8, as it stands in objects, though the machine's names be in another encoding.

    Starting a process encodes for the file system, and under LC_ALL=C that refuses whatever is outside ASCII.
    """
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def _limit(process: subprocess.Popen[bytes], bounds: Bounds) -> None:
    """Bound git's memory, and let it end by itself where nobody is left to end it: a killed worker leaves its git.

    Twice the deadline, since git has two threads where it has several. Children inherit both bounds. Linux alone can
    limit another process.
    """
    if not hasattr(resource, "prlimit"):
        return
    seconds = 2 * ceil(bounds.total_s) + 1
    with suppress(ProcessLookupError):
        resource.prlimit(process.pid, resource.RLIMIT_CPU, (seconds, seconds))
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))


def _attend(process: subprocess.Popen[bytes], bounds: Bounds, cancelled: threading.Event) -> Finished:
    """Read both streams until they end, within `bounds`."""
    output: list[bytes] = []
    errors = b""
    size = 0
    started = heard = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(_POLL_S)
            now = time.monotonic()
            for key, _ in ready:
                heard = now
                block = os.read(key.fd, _READ_BYTES)
                if not block:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    output.append(block)
                    size += len(block)
                else:
                    errors = (errors + block)[-_STDERR_BYTES:]
            if size > bounds.output_bytes:
                raise OutputTooLong(b"".join(output)[: bounds.output_bytes])
            if cancelled.is_set():
                raise Cancelled("nobody waits for git any more")
            if now - started > bounds.total_s:
                raise TimedOut(f"git ran for more than {bounds.total_s:g} s")
            if bounds.idle_s is not None and now - heard > bounds.idle_s:
                raise TimedOut(f"git heard nothing for {bounds.idle_s:g} s")
            if bounds.check is not None:
                bounds.check()
    code = process.wait()
    return Finished(code, b"".join(output), errors.decode("utf-8", "replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing behind of a process that may still run: not it, not its children, not our pipes."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            process.kill()
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
