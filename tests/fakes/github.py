"""A strict GitHub on loopback over real bare repositories: it refuses what GitHub refuses, and shows what people see.

with GitHubServer(tmp_path) as github:
    repository = github.create("acme/shop")
    base = repository.commit({"a.py": "x = 1\\n"})
    number = github.open_pull("acme/shop", head=repository.commit({"a.py": "x = 2\\n"}, parent=base), base=base)
    github.deliver("http://127.0.0.1:8000/webhooks/github", secret=SECRET, repository="acme/shop", number=number)
    assert len(github.reviews("acme/shop", number)) == 1

`github.fail(...)` scripts what goes wrong; `github.seen` holds every request. Rules come from GitHub's documentation of
pull request reviews: https://docs.github.com/en/rest/pulls/reviews
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl

import httpx

from tests.fakes.diff_lines import FileLines, changed_files
from tests.fakes.git_server import BareRepository, GitServer, git
from tests.fakes.github_logins import TOKEN as TOKEN
from tests.fakes.github_logins import GitHubLogins
from tests.fakes.github_records import LOGIN, Answer, Fault, PostedComment, PostedReview, Pull, Refusal, Request
from tests.fakes.loopback import Loopback, Quiet

INSTALLATION = 77
FIRST_ID = 4711
BODY_LIMIT = 65_536
COMMENTS_ANSWERED = 31
"""Reviews with more comments are created, and answered with 502."""


@dataclass(slots=True)
class GitHubServer:
    """`root` holds the repositories, `logins` says who may come in."""

    root: Path
    logins: GitHubLogins = field(default_factory=GitHubLogins)
    pulls: dict[tuple[str, int], Pull] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    chance: Callable[[str, str], Fault | None] | None = None
    """Asked for every request, for tests that throw dice."""
    seen: list[Request] = field(default_factory=list)
    archived: set[str] = field(default_factory=set)
    ids: dict[str, int] = field(default_factory=dict)
    """Of repositories by their names; they stay when the names change."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Old names to new ones; what is asked under an old one is redirected to the repository's id."""
    git_server: GitServer = field(init=False)
    _ids: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _server: Loopback | None = None
    _lines: dict[tuple[str, str, str], dict[str, FileLines]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.git_server = GitServer(self.root, authorization=self.logins.basic)

    def __enter__(self) -> GitHubServer:
        self.git_server.__enter__()
        self._server = Loopback(_Handler, self, waits_for_answers=True)
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.stop()
        self.git_server.__exit__(kind, error, trace)

    # -------------------------------------------------------------------------------- for tests

    @property
    def api_url(self) -> str:
        """Base of the API, with a path as GitHub Enterprise Server has it."""
        if self._server is None:
            raise RuntimeError("the server is not running: use it as a context manager")
        return f"{self._server.address}/api/v3"

    @property
    def git_url(self) -> str:
        return self.git_server.url

    def create(self, repository: str) -> BareRepository:
        return self.git_server.create(repository)

    def repository(self, name: str) -> BareRepository:
        return BareRepository(self.root / f"{name}.git")

    def repository_id(self, name: str) -> int:
        return self.ids.setdefault(name, FIRST_ID + len(self.ids))

    def rename(self, old: str, new: str) -> None:
        self.repository(old).path.rename(self.root / f"{new}.git")
        self.ids[new] = self.repository_id(old)
        del self.ids[old]
        self.renamed = {name: new if now == old else now for name, now in self.renamed.items()} | {old: new}
        for name, number in [key for key in self.pulls if key[0] == old]:
            pull = self.pulls.pop((name, number))
            pull.repository = new
            self.pulls[new, number] = pull

    def open_pull(self, repository: str, *, head: str, base: str, base_branch: str = "main", **more: Any) -> int:
        """Open a pull request of commit `head` into `base_branch`, which then stands at `base`; its number."""
        with self._lock:
            number = 1 + max((n for name, n in self.pulls if name == repository), default=0)
            self.pulls[repository, number] = Pull(repository, number, [head], base, base_branch, **more)
            bare = self.repository(repository)
            bare.ref(f"refs/heads/{base_branch}", base)
            bare.pull(number, head)
            return number

    def push(self, repository: str, number: int, head: str) -> None:
        """A new head for the pull request."""
        with self._lock:
            self.pulls[repository, number].heads.append(head)
            self.repository(repository).pull(number, head)

    def pull(self, repository: str, number: int) -> Pull:
        return self.pulls[repository, number]

    def reviews(self, repository: str, number: int) -> list[PostedReview]:
        """What people see: no pending ones."""
        with self._lock:
            return [review for review in self.pulls[repository, number].reviews if review.state != "PENDING"]

    def comments(self, repository: str, number: int) -> list[PostedComment]:
        """Comments at lines, of all reviews that people see."""
        return [comment for review in self.reviews(repository, number) for comment in review.comments]

    def notes(self, repository: str, number: int) -> list[str]:
        """Plain comments of the conversation."""
        with self._lock:
            return [str(note["body"]) for note in self.pulls[repository, number].notes]

    def fail(self, method: str, path: str, status: int | None = None, **more: Any) -> Fault:
        """Script a fault, and return it: `times` goes down to 0 as it strikes."""
        fault = Fault(method, path, status, **more)
        with self._lock:
            self.faults.append(fault)
        return fault

    def requests(self, method: str, path: str) -> list[Request]:
        """What was asked so far."""
        with self._lock:
            return [r for r in self.seen if r.method == method and re.search(path, r.path)]

    def payload(self, repository: str, number: int, action: str = "opened") -> dict[str, Any]:
        """A `pull_request` delivery as GitHub words it, the URLs included."""
        pull = self.pulls[repository, number]
        return {
            "action": action,
            "number": number,
            "pull_request": self._pull_json(pull),
            "repository": self._repository_json(repository),
            "sender": {"login": pull.author, "type": pull.author_type},
            "installation": {"id": INSTALLATION},
        }

    def deliver(
        self,
        url: str,
        *,
        secret: str,
        repository: str,
        number: int,
        action: str = "opened",
        delivery: str = "",
        payload: Mapping[str, Any] | None = None,
        event: str = "pull_request",
    ) -> httpx.Response:
        """Send one signed webhook call, as GitHub does."""
        body = json.dumps(payload if payload is not None else self.payload(repository, number, action)).encode()
        headers = signed_headers(body, secret=secret, event=event, delivery=delivery)
        return httpx.post(url, content=body, headers=headers, timeout=10, trust_env=False)

    # --------------------------------------------------------------------------------- the API

    def answer(self, request: Request) -> Answer:
        """What GitHub would answer. One request at a time, so that tests repeat."""
        with self._lock:
            try:
                return self._routed(request)
            except Refusal as refusal:
                return refusal.answer

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than the server runs."""
        if self._server is not None:
            self._server.wait(seconds)

    def _routed(self, request: Request) -> Answer:
        if not request.headers.get("user-agent"):
            raise Refusal(
                403, "Request forbidden by administrative rules. Please make sure your request has a User-Agent"
            )
        for old, new in self.renamed.items():
            if request.path.startswith(f"/repos/{old}/"):
                number = self.repository_id(new)
                url = f"{self.api_url}/repositories/{number}{request.path.removeprefix(f'/repos/{old}')}"
                return Answer(301, {"message": "Moved Permanently", "url": url}, {"location": url})
        for method, pattern, act in self._routes():
            found = re.fullmatch(pattern, request.path)
            if found is not None and method == request.method:
                return act(request, **found.groupdict())
        raise Refusal(404, "Not Found")

    def _routes(self) -> list[tuple[str, str, Callable[..., Answer]]]:
        repo = r"/repos/(?P<repository>[^/]+/[^/]+)"
        pull = rf"{repo}/pulls/(?P<number>\d+)"
        return [
            ("GET", "/user", self._get_user),
            ("GET", r"/repositories/(?P<number>\d+)", self._get_by_id),
            ("GET", "/user/repos", self._get_repositories),
            ("GET", "/installation/repositories", self._get_repositories),
            ("GET", rf"{repo}/installation", self._get_installation),
            ("GET", "/app/installations", self._get_installations),
            ("POST", r"/app/installations/(?P<installation>\d+)/access_tokens", self._mint),
            ("GET", rf"{repo}/pulls", self._get_pulls),
            ("GET", pull, self._get_pull),
            ("GET", rf"{pull}/files", self._get_files),
            ("GET", rf"{pull}/reviews", self._get_reviews),
            ("POST", rf"{pull}/reviews", self._post_review),
            ("DELETE", rf"{pull}/reviews/(?P<review>\d+)", self._delete_review),
            ("GET", rf"{pull}/comments", self._get_comments),
            ("GET", rf"{repo}/issues/(?P<number>\d+)/comments", self._get_notes),
            ("POST", rf"{repo}/issues/(?P<number>\d+)/comments", self._post_note),
            ("GET", rf"{repo}/compare/(?P<base>[0-9a-f]+)\.\.\.(?P<head>[0-9a-f]+)", self._compare),
        ]

    # ----- who is asking

    def _get_installation(self, request: Request, repository: str) -> Answer:
        self.logins.admit_app(request)
        self._known(repository)
        return Answer(200, {"id": INSTALLATION})

    def _get_installations(self, request: Request) -> Answer:
        self.logins.admit_app(request)
        return self._page(request, [{"id": INSTALLATION}])

    def _mint(self, request: Request, installation: str) -> Answer:
        self.logins.admit_app(request)
        if int(installation) != INSTALLATION:
            raise Refusal(404, "Not Found")
        return Answer(201, self.logins.mint(request.body.get("repositories", ()), request.body["permissions"]))

    def _get_user(self, request: Request) -> Answer:
        self.logins.admit(request, "")
        return Answer(200, {"login": LOGIN, "id": 1, "type": "User"})

    def _get_by_id(self, request: Request, number: str) -> Answer:
        new = next((name for name, known in self.ids.items() if known == int(number)), "")
        self._known(new)
        self.logins.admit(request, new)
        return Answer(200, self._repository_json(new))

    def _get_repositories(self, request: Request) -> Answer:
        names = sorted(str(path.relative_to(self.root)).removesuffix(".git") for path in self.root.glob("*/*.git"))
        if request.path == "/user/repos":
            self.logins.admit(request, "")
            return self._page(request, [self._repository_json(name) for name in names])
        self.logins.admit_installation(request)
        rows = self._page(request, [self._repository_json(name) for name in names])
        return Answer(200, {"total_count": len(names), "repositories": rows.body}, rows.headers)

    # ----- reading

    def _known(self, repository: str) -> None:
        if not (self.root / f"{repository}.git").is_dir():
            raise Refusal(404, "Not Found")

    def _of(self, repository: str, number: str) -> Pull:
        pull = self.pulls.get((repository, int(number)))
        if pull is None:
            raise Refusal(404, "Not Found")
        return pull

    def _page(self, request: Request, rows: list[Any]) -> Answer:
        size = min(int(request.query.get("per_page", "30")), 100)
        page = int(request.query.get("page", "1"))
        chosen = rows[(page - 1) * size : page * size]
        more = page * size < len(rows)
        return Answer(
            200, chosen, {"link": f'<{self.api_url}{request.path}?page={page + 1}>; rel="next"'} if more else {}
        )

    def _get_pulls(self, request: Request, repository: str) -> Answer:
        self.logins.admit(request, repository, "pull_requests")
        self._known(repository)
        wanted = request.query.get("state", "open")
        rows = [p for (name, _), p in sorted(self.pulls.items()) if name == repository and wanted in (p.state, "all")]
        return self._page(request, [self._pull_json(pull, listed=True) for pull in rows])

    def _get_pull(self, request: Request, repository: str, number: str) -> Answer:
        self.logins.admit(request, repository, "pull_requests")
        pull = self._of(repository, number)
        if "diff" in request.headers.get("accept", ""):
            raise Refusal(406, "Sorry, the diff exceeded the maximum number of lines (20000)")
        return Answer(200, self._pull_json(pull))

    def _get_files(self, request: Request, repository: str, number: str) -> Answer:
        self.logins.admit(request, repository, "pull_requests")
        pull = self._of(repository, number)
        rows = [
            {
                "filename": file.path,
                "status": file.status,
                "additions": file.additions,
                "deletions": file.deletions,
                **({"previous_filename": file.previous} if file.previous else {}),
                **({"patch": file.patch} if file.patch is not None and len(file.patch) < 20_000 else {}),
            }
            for file in self._changed(pull, pull.head).values()
        ]
        return self._page(request, rows[:3000])

    def _compare(self, request: Request, repository: str, base: str, head: str) -> Answer:
        self.logins.admit(request, repository, "contents")
        self._known(repository)
        found = git(self.repository(repository).path, "merge-base", base, head)
        return Answer(200, {"merge_base_commit": {"sha": found}, "files": []})

    def _get_reviews(self, request: Request, repository: str, number: str) -> Answer:
        self.logins.admit(request, repository, "pull_requests")
        pull = self._of(repository, number)
        rows = [
            {"id": r.id, "state": r.state, "body": r.body, "commit_id": r.commit, "user": {"login": r.author}}
            for r in pull.reviews
        ]
        return self._page(request, rows)

    def _get_comments(self, request: Request, repository: str, number: str) -> Answer:
        self.logins.admit(request, repository, "pull_requests")
        pull = self._of(repository, number)
        shown = [c for review in pull.reviews if review.state != "PENDING" for c in review.comments]
        rows = [{"id": c.id, "path": c.path, "body": c.body, "user": {"login": c.author}} for c in shown]
        return self._page(request, rows)

    def _get_notes(self, request: Request, repository: str, number: str) -> Answer:
        self.logins.admit(request, repository, "pull_requests")
        return self._page(request, self._of(repository, number).notes)

    # ----- writing

    def _takes_writes(self, pull: Pull) -> None:
        if pull.repository in self.archived:
            raise Refusal(403, "Repository was archived so is read-only.")
        if pull.locked:
            raise Refusal(403, "Unable to create comment because issue is locked.")

    def _post_note(self, request: Request, repository: str, number: str) -> Answer:
        self.logins.admit(request, repository, "pull_requests", "write")
        pull = self._of(repository, number)
        self._takes_writes(pull)
        body = _body(request.body)
        if not body.strip():
            raise Refusal(422, "Validation Failed", ["body cannot be blank"])
        note = {"id": self._next_id(), "body": body, "user": {"login": LOGIN, "type": "User"}}
        pull.notes.append(note)
        return Answer(201, note)

    def _post_review(self, request: Request, repository: str, number: str) -> Answer:
        self.logins.admit(request, repository, "pull_requests", "write")
        pull = self._of(repository, number)
        said = request.body
        event = said.get("event")
        if event not in (None, "COMMENT", "APPROVE", "REQUEST_CHANGES"):
            raise Refusal(422, "Unprocessable Entity", ["Variable $event of type PullRequestReviewEvent was invalid"])
        self._takes_writes(pull)
        commit = said.get("commit_id", pull.head)
        if commit not in pull.heads:
            raise Refusal(422, "Unprocessable Entity", [f"No commit found for SHA: {commit}"])
        body = _body(said)
        if event in ("COMMENT", "REQUEST_CHANGES") and not body.strip():
            raise Refusal(422, "Unprocessable Entity", ["Body cannot be blank"])
        if any(review.state == "PENDING" for review in pull.reviews):
            raise Refusal(422, "Unprocessable Entity", ["User can only have one pending review per pull request"])
        # All or nothing: one wrong comment refuses the whole, and the message does not name it.
        made = [self._comment(pull, commit, given) for given in said.get("comments", [])]
        states = {None: "PENDING", "COMMENT": "COMMENTED", "APPROVE": "APPROVED"}
        review = PostedReview(self._next_id(), states.get(event, "CHANGES_REQUESTED"), body, commit, made)
        pull.reviews.append(review)
        if len(made) > COMMENTS_ANSWERED:
            return Answer(502, b"<html>Server Error</html>")
        return Answer(200, {"id": review.id, "state": review.state, "body": body})

    def _comment(self, pull: Pull, commit: str, given: Mapping[str, Any]) -> PostedComment:
        unknown = set(given) - {"path", "body", "line", "side", "start_line", "start_side"}
        if unknown:
            raise Refusal(422, "Invalid request.", [f"{unknown.pop()} is not a permitted key."])
        body = _body(given)
        if not body.strip():
            raise Refusal(422, "Unprocessable Entity", ["Body cannot be blank"])
        file = self._changed(pull, commit).get(given["path"])
        if file is None:
            raise Refusal(422, "Unprocessable Entity", ["Path could not be resolved"])
        side, line = given.get("side", "RIGHT"), given["line"]
        hunk = next((hunk for hunk in file.hunks if line in hunk.get(side, ())), None)
        if hunk is None:
            raise Refusal(422, "Unprocessable Entity", ["Line could not be resolved"])
        start = given.get("start_line")
        if start is not None:
            if start >= line:
                raise Refusal(422, "Unprocessable Entity", ["Start line must precede the end line."])
            if start not in hunk.get(given.get("start_side", side), ()):
                raise Refusal(422, "Unprocessable Entity", ["Start line must be part of the same hunk as the line."])
        return PostedComment(self._next_id(), given["path"], side, line, start, body, commit)

    def _delete_review(self, request: Request, repository: str, number: str, review: str) -> Answer:
        self.logins.admit(request, repository, "pull_requests", "write")
        pull = self._of(repository, number)
        found = next((r for r in pull.reviews if r.id == int(review)), None)
        if found is None:
            raise Refusal(404, "Not Found")
        if found.state != "PENDING":
            raise Refusal(422, "Can not delete a non-pending pull request review")
        pull.reviews.remove(found)
        return Answer(200, {"id": found.id})

    # ----- words

    def _next_id(self) -> int:
        self._ids += 1
        return self._ids

    def _changed(self, pull: Pull, head: str) -> dict[str, FileLines]:
        key = (pull.repository, pull.base, head)
        if key not in self._lines:
            path = self.repository(pull.repository).path
            self._lines[key] = changed_files(path, base=pull.base, head=head)
        return self._lines[key]

    def _repository_json(self, name: str) -> dict[str, Any]:
        return {
            "id": self.repository_id(name),
            "full_name": name,
            "name": name.partition("/")[2],
            "clone_url": "http://169.254.169.254/evil.git",
            "archived": name in self.archived,
        }

    def _pull_json(self, pull: Pull, *, listed: bool = False) -> dict[str, Any]:
        files = {} if listed else self._changed(pull, pull.head)
        here = self._repository_json(pull.repository)
        theirs = self._repository_json(f"mallory/{pull.repository.partition('/')[2]}") if pull.is_fork else here
        shown: dict[str, Any] = {
            "number": pull.number,
            "state": pull.state,
            "title": pull.title,
            "body": pull.body,
            "draft": pull.draft,
            "locked": pull.locked,
            "updated_at": pull.updated_at,
            "merged_at": "2026-01-01T00:00:00Z" if pull.merged else None,
            "html_url": f"{self.git_url}/{pull.repository}/pull/{pull.number}",
            "diff_url": "http://169.254.169.254/latest/meta-data",
            "user": {"login": pull.author, "type": pull.author_type},
            "head": {"sha": pull.head, "ref": "topic", "repo": theirs},
            "base": {"sha": pull.base, "ref": pull.base_branch, "repo": here},
        }
        if not listed:
            shown |= {
                "merged": pull.merged,
                "changed_files": len(files),
                "additions": sum(file.additions for file in files.values()),
                "deletions": sum(file.deletions for file in files.values()),
            }
        return shown


def signed_headers(body: bytes, *, secret: str, event: str = "pull_request", delivery: str = "") -> dict[str, str]:
    """The headers of one webhook call."""
    return {
        "content-type": "application/json",
        "user-agent": "GitHub-Hookshot/044aadd",
        "x-github-event": event,
        "x-github-delivery": delivery or str(uuid.uuid4()),
        "x-hub-signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
    }


def _body(said: Mapping[str, Any]) -> str:
    body = str(said.get("body") or "")
    if len(body) > BODY_LIMIT:
        raise Refusal(422, "Unprocessable Entity", [f"body is too long (maximum is {BODY_LIMIT} characters)"])
    return body


class _Handler(Quiet, BaseHTTPRequestHandler):
    owner: GitHubServer

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        owner = self.owner
        raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        path, _, query = self.path.removeprefix("/api/v3").partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, path, dict(parse_qsl(query)), headers, json.loads(raw) if raw else None)
        with owner._lock:
            owner.seen.append(request)
            fault = next((f for f in owner.faults if f.takes(self.command, path)), None)
            if fault is None and owner.chance is not None:
                fault = owner.chance(self.command, path)
        if fault is None:
            return self._answer(owner.answer(request))
        if fault.acts:
            owner.answer(request)
        if fault.hang_s:
            owner.wait(fault.hang_s)
        if fault.status is None:
            self.close_connection = True
            return
        self._answer(Answer(fault.status, fault.body, fault.headers))

    def _answer(self, answer: Answer) -> None:
        self.close_connection = True
        is_page = isinstance(answer.body, bytes)
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        try:
            self.send_response_only(answer.status)
            self.send_header("Date", format_datetime(datetime.fromtimestamp(self.owner.logins.now(), UTC), usegmt=True))
            self.send_header("Content-Type", "text/html" if is_page else "application/json; charset=utf-8")
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            # The client was killed or has given up: what some tests are about.
            self.close_connection = True
