"""GitHub's REST API behind the `Forge` port. https://docs.github.com/en/rest?apiVersion=2022-11-28"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from worker import __version__
from worker.core import marker
from worker.core.change import Change, ChangeRef, Snapshot
from worker.core.comments import with_misplaced
from worker.core.errors import BadInput, NotFound, OutcomeUnknown, ReviewError, Unprocessable, WrongEndpoint
from worker.core.markdown import fit, visible
from worker.forges.access import Access
from worker.forges.github.credentials import credentials
from worker.forges.github.diff import snapshot
from worker.forges.github.payloads import REPOSITORY, ChangedFile, Comparison, Post, PullRequest, Repo
from worker.forges.http import BadCredentials, Redirected, json_of, send
from worker.outward import open_client
from worker.patience import patiently
from worker.ports import Clock, Comment, Posted, Remote

API_VERSION = "2022-11-28"
COMMENTS_A_REVIEW = 25
"""32 were posted but answered with 502; 25 to 30 go through."""
BODY_LIMIT = 65_536
"""Characters of a review's or comment's body."""
CUT = "The rest is left out: GitHub takes 65,536 characters."
_TRIES = 20
"""How many pending reviews may be made to find the comments that GitHub refuses."""
_BY_ID = re.compile(r"/repositories/([0-9]{1,19})(?:/|$)")
"""Where GitHub redirects what is asked under a repository's old name."""
_PAGE = 100
_PAGES = 300
"""An end to paging, whatever the other side says: 30,000 rows."""

P = TypeVar("P", bound=BaseModel)


class GitHubClient:
    """One open connection pool; use it within one event loop: `async with GitHubClient(access, clock) as forge`."""

    name = "github"
    comments_per_post = COMMENTS_A_REVIEW
    body_limit = BODY_LIMIT

    def __init__(self, access: Access, clock: Clock) -> None:
        self._access = access
        self._clock = clock
        self._http = open_client(
            access.api_url,
            headers={
                "accept": "application/vnd.github+json",
                "x-github-api-version": API_VERSION,
                "user-agent": f"kimi-review/{__version__}",
            },
            timeout=access.timeout_s,
            egress=access.egress,
        )
        self._credentials = credentials(access, self._call_as)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    # ------------------------------------------------------------------------------------ reading

    async def change(self, ref: ChangeRef) -> Change:
        return (await self._pull(ref)).change(ref)

    def remote(self, change: Change) -> Remote:
        repository = _checked(change.ref.repository)
        token = self._credentials.ready(repository)
        return Remote(
            url=f"{self._access.url}/{repository}.git",
            authorization=_basic(token) if token is not None else None,
            head_ref=f"refs/pull/{change.ref.number}/head",
            base_ref=f"refs/heads/{change.base_branch}" if change.base_branch else "",
        )

    async def remote_ready(self, change: Change) -> Remote:
        await self._credentials.token(_checked(change.ref.repository))
        return self.remote(change)

    async def diff(self, change: Change) -> Snapshot:
        """Put together from the list of files, which names what it leaves out; the plain diff is cut unmarked."""
        where = f"/repos/{_checked(change.ref.repository)}"
        what = f"the comparison of {change.base_branch or 'base'} and head"
        compared = _read(
            Comparison,
            await self._get(change.ref, f"{where}/compare/{change.base}...{change.head}?per_page=1", what=what),
            what=what,
        )
        pull = await self._pull(change.ref)
        rows = [
            _read(ChangedFile, row, what="the list of files")
            async for row in self._pages(change.ref, f"{where}/pulls/{change.ref.number}/files", what="files")
        ]
        return snapshot(pull, rows, head=change.head, merge_base=compared.merge_base_commit.sha)

    async def posted(self, change: Change) -> Posted:
        here: set[str] = set()
        earlier: set[str] = set()
        counted: set[str] = set()
        pull = f"/repos/{_checked(change.ref.repository)}/pulls/{change.ref.number}"
        for kind in ("reviews", "comments"):
            async for row in self._pages(change.ref, f"{pull}/{kind}", what=kind):
                post = _read(Post, row, what=kind)
                if post.state == "PENDING":
                    continue
                for mark in self._marks(change, post):
                    (here if mark.head == change.head else earlier).add(mark.fingerprint)
                for told in self._told(change, post):
                    if told.head != change.head:
                        (counted if told.is_counted else earlier).update(told.fingerprints)
        return Posted(
            has_summary=marker.SUMMARY in here,
            fingerprints=frozenset(here - marker.OWN),
            earlier=frozenset(earlier - here - marker.OWN),
            counted=frozenset(counted - earlier - here),
            is_unfinished=marker.MORE in here and marker.LAST not in here,
        )

    async def noted(self, change: Change) -> frozenset[str]:
        path = f"/repos/{_checked(change.ref.repository)}/issues/{change.ref.number}/comments"
        found: set[str] = set()
        async for row in self._pages(change.ref, path, what="comments"):
            post = _read(Post, row, what="comments")
            found |= {mark.fingerprint for mark in self._marks(change, post) if mark.head == change.head}
        return frozenset(found)

    def _marks(self, change: Change, post: Post) -> Iterator[marker.Mark]:
        return marker.read(
            post.body or "", key=self._access.marker_key, ref=change.ref, repository_id=change.repository_id
        )

    def _told(self, change: Change, post: Post) -> Iterator[marker.Told]:
        return marker.read_told(
            post.body or "", key=self._access.marker_key, ref=change.ref, repository_id=change.repository_id
        )

    async def repositories(self) -> AsyncIterator[str]:
        for bearer, path in await self._credentials.listings():
            async for row in self._pages(bearer, path, what="the list of repositories"):
                yield _read(Repo, row, what="the list of repositories").full_name

    async def open_changes(self, repository: str) -> AsyncIterator[Change]:
        path = f"/repos/{_checked(repository)}/pulls"
        at = ChangeRef(self.name, repository, 0)
        async for row in self._pages(
            at, path, what="open pull requests", query="state=open&sort=updated&direction=desc"
        ):
            pull = _read(PullRequest, row, what="open pull requests")
            yield pull.change(ChangeRef(self.name, repository, pull.number))

    # ------------------------------------------------------------------------------------ writing

    async def post(self, change: Change, *, summary: str, comments: Sequence[Comment]) -> None:
        if len(comments) > COMMENTS_A_REVIEW:
            raise Unprocessable(f"GitHub takes {COMMENTS_A_REVIEW} comments a review, not {len(comments)}.")
        try:
            await self._review(change, summary, comments)
            return
        except Unprocessable:
            # A pending review that a killed process left behind makes every further one fail.
            dropped = await self._drop_pending(change)
            if not dropped and not (comments and await self._takes(change, ())):
                raise  # not for a comment: the head is not known, say
        bad = await self._refused(change, comments)
        await self._review(
            change,
            with_misplaced(summary, bad, forge="GitHub", limit=BODY_LIMIT, ending=CUT),
            [comment for comment in comments if comment not in bad],
        )

    async def note(self, change: Change, body: str) -> None:
        await self._send(
            change.ref,
            "POST",
            f"/repos/{_checked(change.ref.repository)}/issues/{change.ref.number}/comments",
            {"body": fit(body, BODY_LIMIT, ending=CUT)},
            what=f"a comment on {_named(change.ref)}",
        )

    async def _review(self, change: Change, body: str, comments: Sequence[Comment], *, event: str = "COMMENT") -> int:
        """Create one review and return its id. With `event` empty it stays pending: seen by us alone."""
        payload: dict[str, Any] = {
            "commit_id": change.head,
            "body": fit(body, BODY_LIMIT, ending=CUT),
            "comments": [_comment(comment) for comment in comments],
        }
        if event:
            payload["event"] = event
        path = f"/repos/{_checked(change.ref.repository)}/pulls/{change.ref.number}/reviews"
        what = f"a review of {_named(change.ref)}"
        answer = await self._send(change.ref, "POST", path, payload, what=what)
        try:
            return _read(Post, answer, what=what).id
        except WrongEndpoint as error:
            # It was told that the review was made, by an answer that does not show it: our marker will tell.
            raise OutcomeUnknown(str(error)) from None

    async def _refused(self, change: Change, comments: Sequence[Comment]) -> list[Comment]:
        """The comments for which GitHub refuses a review: it does not name them, so halves are tried.

        Each try is a pending review, which nobody else sees, removed at once. Tries are content that GitHub
        counts, so they end: what is still under suspicion then counts as refused.
        """
        if not comments or await self._takes(change, comments):
            return []
        bad: list[Comment] = []
        suspects = [list(comments)]
        tries = 0
        while suspects:
            group = suspects.pop()
            if len(group) == 1 or tries >= _TRIES:
                bad += group
                continue
            first, second = group[: len(group) // 2], group[len(group) // 2 :]
            # When the first half passes, the group was refused for the second: no need to ask.
            first_passes = await self._takes(change, first)
            if not first_passes:
                suspects.append(first)
            if first_passes or not await self._takes(change, second):
                suspects.append(second)
            tries += 1 if first_passes else 2
        return [comment for comment in comments if comment in bad]

    async def _takes(self, change: Change, comments: Sequence[Comment]) -> bool:
        mark = marker.Mark(job="probe", head=change.head, fingerprint="probe")
        body = marker.write(mark, key=self._access.marker_key, ref=change.ref)
        try:
            review = await self._review(change, body, comments, event="")
        except Unprocessable:
            return False
        await self._delete_review(change, review)
        return True

    async def _drop_pending(self, change: Change) -> bool:
        """Remove our own pending reviews, known by their marker. Whether there was one.

        Raises `Unprocessable` for one that a person began under the same account: it is theirs.
        """
        dropped = False
        path = f"/repos/{_checked(change.ref.repository)}/pulls/{change.ref.number}/reviews"
        async for row in self._pages(change.ref, path, what="reviews"):
            post = _read(Post, row, what="reviews")
            if post.state != "PENDING":
                continue
            if not any(self._marks(change, post)):
                raise Unprocessable(
                    "GitHub takes no review from an account that has one begun and not submitted. Submit or discard the"
                    " pending review, or give kimi-review an account of its own."
                )
            await self._delete_review(change, post.id)
            dropped = True
        return dropped

    async def _delete_review(self, change: Change, review: int) -> None:
        path = f"/repos/{_checked(change.ref.repository)}/pulls/{change.ref.number}/reviews/{review}"
        try:
            await self._send(change.ref, "DELETE", path, None, what="a pending review")
        except NotFound:
            return  # an earlier DELETE arrived though its answer did not

    # ----------------------------------------------------------------------------------- requests

    async def _pull(self, ref: ChangeRef) -> PullRequest:
        what = f"pull request {_named(ref)}"
        path = f"/repos/{_checked(ref.repository)}/pulls/{ref.number}"
        return _read(PullRequest, await self._get(ref, path, what=what), what=what)

    async def _get(self, ref: ChangeRef, path: str, *, what: str) -> Any:
        return await self._send(ref, "GET", path, None, what=what)

    async def _pages(self, to: ChangeRef | str, path: str, *, what: str, query: str = "") -> AsyncIterator[Any]:
        """Rows of all pages, by page number: a `Link` header's URL would be one from an answer.

        `to` is the change that the call is about, or the token to use where it is about none.
        """
        what = f"{what} of {_named(to)}" if isinstance(to, ChangeRef) else what
        for page in range(1, _PAGES + 1):
            given = f"{path}?per_page={_PAGE}&page={page}" + (f"&{query}" if query else "")
            if isinstance(to, ChangeRef):
                answered = await self._request(to, "GET", given, None, what=what)
            else:
                answered = await self._asked("GET", given, to, None, what=what)
            rows = answered.json
            if isinstance(rows, dict):
                rows = rows.get("repositories")  # an app's list stands in an object
            if not isinstance(rows, list):
                raise WrongEndpoint(f"GitHub does not answer {what} with a list. Check GITHUB_API_URL.")
            for row in rows:
                yield row
            # A page may be short though others follow: GitHub leaves rows out that the token may not see.
            if len(rows) < _PAGE if answered.link is None else 'rel="next"' not in answered.link:
                return
        # To go on with a part would be to post again what stands on a later page.
        raise Unprocessable(f"GitHub lists more than {_PAGES * _PAGE} rows for {what}; not all of them can be read.")

    async def _send(self, ref: ChangeRef, method: str, path: str, body: dict[str, Any] | None, *, what: str) -> Any:
        return (await self._request(ref, method, path, body, what=what)).json

    async def _call_as(self, method: str, path: str, bearer: str, body: dict[str, Any] | None) -> Any:
        # Minting too: a token that came to nobody's hands ends by itself.
        return (await self._asked(method, path, bearer, body, what="the app's own data")).json

    async def _request(
        self, ref: ChangeRef, method: str, path: str, body: dict[str, Any] | None, *, what: str
    ) -> _Answer:
        async def request() -> _Answer:
            token = await self._credentials.token(ref.repository)
            if method == "GET":
                return await self._asked(method, path, token, body, what=what)
            return await self._tried(method, path, token, body, what=what, writes=method == "POST")

        try:
            return await request()
        except BadCredentials:
            if not self._credentials.rejected(ref.repository):
                raise
        return await request()

    async def _asked(self, method: str, path: str, bearer: str, body: dict[str, Any] | None, *, what: str) -> _Answer:
        """A request that changes nothing: made again while GitHub stumbles."""

        def ask() -> Awaitable[_Answer]:
            return self._tried(method, path, bearer, body, what=what, writes=False)

        return await patiently(ask, clock=self._clock, forge=self.name, what=what)

    async def _tried(
        self, method: str, path: str, bearer: str, body: dict[str, Any] | None, *, what: str, writes: bool
    ) -> _Answer:
        try:
            return await self._once(method, path, bearer, body, what=what, writes=writes)
        except Redirected as error:
            raise await self._renamed(error, bearer, what=what) from None

    async def _once(
        self, method: str, path: str, bearer: str, body: dict[str, Any] | None, *, what: str, writes: bool
    ) -> _Answer:
        # The URL comes from configuration and checked parts; the path holds nothing else.
        request = self._http.build_request(
            method, f"{self._access.api_url}{path}", json=body, headers={"authorization": f"Bearer {bearer}"}
        )
        remark = self._access.egress.remark(self._access.api_url)
        response = await send(self._http, request, forge="GitHub", what=what, writes=writes, remark=remark)
        has_content = response.status_code != 204
        value = json_of(response, forge="GitHub", what=what, writes=writes) if has_content else None
        return _Answer(value, response.headers.get("link"))

    async def _renamed(self, error: Redirected, bearer: str, *, what: str) -> WrongEndpoint:
        """The same in words that name where the repository is now: a redirect gives its id, which our own URL knows."""
        by_id = _BY_ID.match(urlsplit(error.location).path.removeprefix(urlsplit(self._access.api_url).path))
        if by_id is None:
            return error
        asked = "a repository's new name"
        try:
            answered = await self._once("GET", f"/repositories/{by_id[1]}", bearer, None, what=asked, writes=False)
            name = _checked(_read(Repo, answered.json, what=asked).full_name)
        except ReviewError:
            return error  # says all that is certain
        return WrongEndpoint(
            f"GitHub has {what} under another name: its repository is {name} now. Reviews go on under that name;"
            " GITHUB_REPOSITORIES must allow it. Ask for this one again as it is called now."
        )


@dataclass(frozen=True, slots=True)
class _Answer:
    """What GitHub answered: its JSON, None for no content, and the `Link` header of a list."""

    json: Any
    link: str | None


def _named(ref: ChangeRef) -> str:
    """As GitHub writes it; the number 0 stands for the repository as a whole."""
    return f"{ref.repository}#{ref.number}" if ref.number else ref.repository


def _checked(repository: str) -> str:
    """`repository` if it can stand in a path; a job record is no place to take that on trust."""
    if not REPOSITORY.fullmatch(repository):
        raise BadInput(f"{visible(repository)!r} is not the name of a GitHub repository. Write owner/name.")
    return repository


def _read(model: type[P], answer: Any, *, what: str) -> P:
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
        lack = f"lacks {where!r}" if where else "is no object"
        raise WrongEndpoint(f"GitHub's answer for {what} {lack}. Check GITHUB_API_URL.") from None


def _basic(token: str) -> str:
    return "Basic " + base64.b64encode(f"x-access-token:{token}".encode()).decode()


def _comment(comment: Comment) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "path": comment.path,
        "body": fit(comment.body, BODY_LIMIT, ending=CUT),
        "line": comment.line,
        "side": comment.side,
    }
    if comment.start_line != comment.line:
        # GitHub refuses a range of one line.
        payload |= {"start_line": comment.start_line, "start_side": comment.side}
    return payload
