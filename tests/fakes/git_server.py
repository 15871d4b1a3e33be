"""A git server on loopback that behaves like a forge's: `git http-backend` over real bare repositories.

with GitServer(tmp_path) as server:
    repository = server.create("owner/name")          # a bare repository to push commits into
    remote = Remote(server.url_of("owner/name"))
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType

from tests.fakes.loopback import Loopback, Quiet

# Author and dates are fixed, so that a test's commits have the same ids in every run.
_IDENTITY = {
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_AUTHOR_DATE": "2024-01-01T00:00:00Z",
    "GIT_COMMITTER_NAME": "C",
    "GIT_COMMITTER_EMAIL": "c@example.org",
    "GIT_COMMITTER_DATE": "2024-01-01T00:00:00Z",
}
_QUIET = {
    "PATH": os.environ.get("PATH", os.defpath),
    "HOME": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "LC_ALL": "C",
}


def git(directory: Path, *arguments: str, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> str:
    """Run git for a test, apart from the machine's configuration; its output without the last line feed."""
    done = subprocess.run(
        ["git", "-C", str(directory), "-c", "protocol.file.allow=always", *arguments],
        input=stdin,
        env=_QUIET | _IDENTITY | dict(environment or {}),
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"git {' '.join(arguments)} failed: {done.stderr.decode('utf-8', 'replace')}")
    return done.stdout.decode("utf-8", "surrogateescape").removesuffix("\n")


@dataclass(frozen=True, slots=True)
class BareRepository:
    """A bare repository that commits are written into directly; paths and contents may be any bytes."""

    path: Path

    def commit(
        self,
        files: Mapping[str | bytes, bytes | str | None],
        *,
        parent: str | None = None,
        message: str = "change",
        modes: Mapping[str | bytes, str] | None = None,
        whole: bool = False,
    ) -> str:
        """Commit `files` on top of `parent`'s tree (None as content removes a path); the new commit's id.

        A mode of 160000 takes the content as the submodule's commit id. `whole`: forget the parent's tree.
        """
        index = self.path / f"index-{threading.get_ident()}"
        index.unlink(missing_ok=True)
        environment = {"GIT_INDEX_FILE": str(index)}
        if parent and not whole:
            git(self.path, "read-tree", parent, environment=environment)
        rows: list[bytes] = []
        for path, content in files.items():
            raw = path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
            mode = (modes or {}).get(path, "100644")
            if content is None:
                rows.append(b"0 " + b"0" * 40 + b"\t" + raw)
                continue
            data = content if isinstance(content, bytes) else content.encode()
            oid = data.decode() if mode == "160000" else self.blob(data)
            rows.append(f"{mode} {oid}\t".encode() + raw)
        git(
            self.path,
            "update-index",
            "-z",
            "--index-info",
            stdin=b"".join(row + b"\0" for row in rows),
            environment=environment,
        )
        tree = git(self.path, "write-tree", environment=environment)
        index.unlink(missing_ok=True)
        return git(self.path, "commit-tree", tree, *(("-p", parent) if parent else ()), "-m", message)

    def blob(self, data: bytes) -> str:
        """Store `data`; its object id."""
        return git(self.path, "hash-object", "-w", "--stdin", stdin=data)

    def ref(self, name: str, commit: str | None) -> None:
        """Point a ref at `commit`; None deletes it."""
        git(self.path, "update-ref", *(("-d", name) if commit is None else (name, commit)))

    def pull(self, number: int, head: str) -> None:
        """What a forge keeps for an open change: `refs/pull/<number>/head`."""
        self.ref(f"refs/pull/{number}/head", head)


@dataclass(slots=True)
class Faults:
    """What goes wrong, for all requests until it is set back, or for the next `times` of them."""

    times: int | None = None
    status: int | None = None
    """Answer with this status and nothing else."""
    redirect_to: str | None = None
    """Answer 302 to this base address."""
    hang_s: float = 0.0
    """Accept, then say nothing for so long (ends with the server)."""
    cut_after_bytes: int | None = None
    """Break the connection after so many bytes of a pack's answer."""
    slow_s: float = 0.0
    """Wait so long before a pack's answer."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(slots=True)
class GitServer:
    """Serves every bare repository `<root>/<owner>/<name>.git` at `url_of("owner/name")`."""

    root: Path
    authorization: str | None = None
    """The Authorization header that every request has to carry; None asks for none."""
    allows_filter: bool = True
    speaks_v2: bool = True
    """False answers in git's protocol 0, as behind a proxy that drops the header Git-Protocol."""
    faults: Faults = field(default_factory=Faults)
    seen: list[Seen] = field(default_factory=list)
    _server: Loopback | None = None

    def __enter__(self) -> GitServer:
        self._server = Loopback(_Handler, self, waits_for_answers=True)
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.stop()

    @property
    def url(self) -> str:
        """The base address, without a slash at the end."""
        if self._server is None:
            raise RuntimeError("the server is not running: use it as a context manager")
        return self._server.address

    def url_of(self, repository: str) -> str:
        return f"{self.url}/{repository}.git"

    def create(self, repository: str) -> BareRepository:
        """A new bare repository, as a forge has it: no hooks, partial clones allowed."""
        path = self.root / f"{repository}.git"
        path.mkdir(parents=True)
        git(path, "init", "--quiet", "--bare", "--template=", "--initial-branch=main")
        git(path, "config", "http.receivepack", "false")
        git(path, "config", "uploadpack.allowFilter", "true" if self.allows_filter else "false")
        git(path, "config", "uploadpack.allowAnySHA1InWant", "false")
        git(path, "config", "gc.auto", "0")
        return BareRepository(path)

    def backend(self, environment: Mapping[str, str], body: bytes) -> subprocess.CompletedProcess[bytes]:
        """One CGI call (RFC 3875) of `git http-backend`."""
        program = shutil.which("git") or "git"
        return subprocess.run(
            [program, "http-backend"],
            input=body,
            env=_QUIET | {"GIT_PROJECT_ROOT": str(self.root), "GIT_HTTP_EXPORT_ALL": "1"} | dict(environment),
            capture_output=True,
            check=False,
        )

    def struck(self) -> Faults:
        """What goes wrong with a request that has come."""
        if self.faults.times is None:
            return self.faults
        self.faults.times -= 1
        return self.faults if self.faults.times >= 0 else Faults()

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than the server runs."""
        if self._server is not None:
            self._server.wait(seconds)


class _Handler(Quiet, BaseHTTPRequestHandler):
    owner: GitServer

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self._body())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _serve(self, body: bytes) -> None:
        owner, faults = self.owner, self.owner.struck()
        owner.seen.append(Seen(self.command, self.path, dict(self.headers.items())))
        if faults.hang_s:
            owner.wait(faults.hang_s)
            self.close_connection = True
            return
        if faults.redirect_to is not None:
            return self._answer(302, {"Location": faults.redirect_to + self.path}, b"")
        if faults.status is not None:
            return self._answer(faults.status, {}, b"refused\n")
        if owner.authorization is not None and self.headers.get("Authorization") != owner.authorization:
            return self._answer(401, {"WWW-Authenticate": 'Basic realm="git"'}, b"who are you?\n")
        is_pack = self.path.endswith("/git-upload-pack")
        if is_pack and faults.slow_s:
            owner.wait(faults.slow_s)
        status, headers, answer = self._from_backend(body)
        self._answer(status, headers, answer, cut=faults.cut_after_bytes if is_pack else None)

    def _from_backend(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        path, _, query = self.path.partition("?")
        environment = {
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", "") if self.owner.speaks_v2 else "",
            "REMOTE_ADDR": "127.0.0.1",
        }
        head, _, answer = self.owner.backend(environment, body).stdout.partition(b"\r\n\r\n")
        headers = dict(row.decode("latin-1").split(": ", 1) for row in head.split(b"\r\n") if b": " in row)
        status = int(headers.pop("Status", "200").split(" ")[0])
        return status, headers, answer

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes, *, cut: int | None = None) -> None:
        self.close_connection = True
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body if cut is None else body[:cut])
        except (BrokenPipeError, ConnectionResetError):
            # The client was killed: what some tests are about.
            return
