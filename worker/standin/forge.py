"""A forge for the demo: one change of a local repository, in GitHub's shapes, kept in memory.

It takes what a review of ours asks of GitHub and nothing else: the pull request, its reviews, git's own
HTTP protocol. What is posted to it can be read again, and goes nowhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from worker.core.errors import BadInput
from worker.standin.server import serving

REPOSITORY = "demo/repository"
NUMBER = 1
BRANCH = "main"
GIT_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class DemoForge:
    """`url` serves git, `api_url` the API. `reviews` are the bodies that were posted, as they came."""

    url: str
    head: str
    base: str
    reviews: list[dict[str, Any]]

    @property
    def api_url(self) -> str:
        return f"{self.url}/api/v3"

    def delivery(self, secret: str) -> tuple[dict[str, str], bytes]:
        """Headers and body of the webhook call that tells of the change, signed as GitHub signs."""
        body = json.dumps(
            {
                "action": "opened",
                "number": NUMBER,
                "pull_request": _pull(self.head, self.base),
                "repository": {"full_name": REPOSITORY},
                "sender": {"login": "you", "type": "User"},
            }
        ).encode()
        signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {
            "content-type": "application/json",
            "x-github-event": "pull_request",
            "x-github-delivery": "demo-1",
            "x-hub-signature-256": f"sha256={signature}",
        }
        return headers, body


@contextmanager
def running_forge(repository: Path, *, base: str, head: str, folder: Path) -> Iterator[DemoForge]:
    """Serve the change of `head` into `base` (full SHAs) of the local `repository`; `folder` is for its own files."""
    bare = folder / f"{REPOSITORY}.git"
    _git("clone", "--quiet", "--bare", "--shared", "--", str(repository), str(bare))
    for name, commit in ((f"refs/heads/{BRANCH}", base), (f"refs/pull/{NUMBER}/head", head)):
        _git("--git-dir", str(bare), "update-ref", name, commit)
    _git("--git-dir", str(bare), "config", "uploadpack.allowFilter", "true")
    state = _State(folder, _pull(head, base))
    with serving(_app(state), host="127.0.0.1", port=0) as url:
        yield DemoForge(url=url, head=head, base=base, reviews=state.reviews)


@dataclass(slots=True)
class _State:
    root: Path
    pull: dict[str, Any]
    reviews: list[dict[str, Any]] = field(default_factory=list)

    async def show(self, _: Request) -> Response:
        return JSONResponse(self.pull)

    async def list_reviews(self, _: Request) -> Response:
        return JSONResponse([{"id": at, "body": one["body"], "state": "COMMENTED"} for at, one in self._numbered()])

    async def list_comments(self, _: Request) -> Response:
        return JSONResponse(
            [{"id": at * 1000, "body": comment["body"]} for at, one in self._numbered() for comment in one["comments"]]
        )

    async def post_review(self, request: Request) -> Response:
        self.reviews.append(await request.json())
        return JSONResponse({"id": len(self.reviews), "state": "COMMENTED"})

    async def nothing(self, _: Request) -> Response:
        return JSONResponse([])

    async def git(self, request: Request) -> Response:
        """`git http-backend` by CGI (RFC 3875)."""
        environment = {
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": request.url.path,
            "QUERY_STRING": request.url.query,
            "REQUEST_METHOD": request.method,
            "CONTENT_TYPE": request.headers.get("content-type", ""),
            "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": request.headers.get("git-protocol", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        answered = await asyncio.to_thread(_backend, environment, await request.body())
        head, _, body = answered.partition(b"\r\n\r\n")
        rows = [row.decode("latin-1").split(": ", 1) for row in head.split(b"\r\n") if b": " in row]
        headers = {name.lower(): value for name, value in rows}
        status = int(headers.pop("status", "200").split()[0])
        return Response(body, status_code=status, headers=headers)

    def _numbered(self) -> Iterator[tuple[int, dict[str, Any]]]:
        return iter(enumerate(self.reviews, start=1))


def _app(state: _State) -> Starlette:
    pull = f"/api/v3/repos/{REPOSITORY}/pulls/{NUMBER}"
    return Starlette(
        routes=[
            Route(pull, state.show),
            Route(f"{pull}/reviews", state.list_reviews, methods=["GET"]),
            Route(f"{pull}/reviews", state.post_review, methods=["POST"]),
            Route(f"{pull}/comments", state.list_comments),
            Route(f"/api/v3/repos/{REPOSITORY}/issues/{NUMBER}/comments", state.nothing),
            Route(f"/{REPOSITORY}.git/{{path:path}}", state.git, methods=["GET", "POST"]),
        ]
    )


def _pull(head: str, base: str) -> dict[str, Any]:
    repository = {"full_name": REPOSITORY}
    return {
        "number": NUMBER,
        "state": "open",
        "title": "A change of this repository",
        "draft": False,
        "user": {"login": "you", "type": "User"},
        "head": {"sha": head, "ref": "topic", "repo": repository},
        "base": {"sha": base, "ref": BRANCH, "repo": repository},
    }


def _git(*arguments: str) -> None:
    done = subprocess.run(  # noqa: S603 - our own words and folders, no shell
        ["git", *arguments],  # noqa: S607 - the git on the PATH, as everywhere
        env=_environment({}),
        capture_output=True,
        timeout=GIT_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()[-300:]
        raise BadInput(f"git cannot make the demo's copy of the repository: {said}")


def _backend(environment: dict[str, str], body: bytes) -> bytes:
    given = environment | {"CONTENT_LENGTH": str(len(body))}
    done = subprocess.run(
        ["git", "http-backend"],  # noqa: S607
        input=body,
        env=_environment(given),
        capture_output=True,
        timeout=GIT_TIMEOUT_S,
        check=False,
    )
    return done.stdout


def _environment(more: dict[str, str]) -> dict[str, str]:
    # Somebody else's checkout (a mounted folder, a CI's) is served as well: it is read only.
    trusted = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    quiet = {"HOME": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    return {"PATH": os.environ.get("PATH", os.defpath)} | quiet | trusted | more
