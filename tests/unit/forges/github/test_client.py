"""GitHub's client against a strict server: limits, lost answers, tokens that end, pages without end."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.fakes.clock import FakeClock
from tests.fakes.forge import MARKER_KEY
from tests.fakes.git_server import git
from tests.fakes.github import TOKEN, GitHubServer, PostedReview
from tests.fakes.github_logins import GitHubLogins
from worker.core.change import Change, ChangeRef
from worker.core.errors import (
    BadInput,
    ConfigurationError,
    NotAuthorised,
    OutcomeUnknown,
    RateLimited,
    ReviewError,
    Unprocessable,
    Unreachable,
    WrongEndpoint,
)
from worker.core.marker import SUMMARY, Mark, Told, write, write_told
from worker.core.retry import READ_RULE
from worker.forges.access import Access
from worker.forges.github import client
from worker.forges.github.client import GitHubClient
from worker.ports import Comment

T = TypeVar("T")
REPOSITORY = "acme/shop"
OLD = "".join(f"line {n}\n" for n in range(1, 41))
NEW = OLD.replace("line 5\n", "LINE 5\nline 5b\n").replace("line 30\n", "")


@dataclass
class World:
    github: GitHubServer
    access: Access
    ref: ChangeRef
    change: Change
    clock: FakeClock = field(default_factory=FakeClock)

    def __call__(self, use: Callable[[GitHubClient], Awaitable[T]]) -> T:
        async def used() -> T:
            async with GitHubClient(self.access, self.clock) as forge:
                return await use(forge)

        return asyncio.run(used())

    def post(self, *comments: Comment, summary: str = "Summary") -> None:
        self(lambda forge: forge.post(self.change, summary=summary, comments=comments))

    def reviews(self) -> list[PostedReview]:
        return self.github.reviews(REPOSITORY, self.ref.number)

    def marked(self, fingerprint: str) -> str:
        return write(Mark("job", self.change.head, fingerprint), key=MARKER_KEY, ref=self.ref)


def opened(github: GitHubServer, access: Access) -> World:
    repository = github.create(REPOSITORY)
    base = repository.commit({"a.py": OLD})
    head = repository.commit({"a.py": NEW}, parent=base)
    ref = ChangeRef("github", REPOSITORY, github.open_pull(REPOSITORY, head=head, base=base))
    return World(github, access, ref, Change(ref=ref, head=head, base=base, base_branch="main"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with GitHubServer(tmp_path) as github:
        access = Access(url=github.git_url, api_url=github.api_url, marker_key=MARKER_KEY, token=TOKEN, timeout_s=0.5)
        yield opened(github, access)


def comment(line: int, path: str = "a.py") -> Comment:
    return Comment(path, "RIGHT", line, line, f"Look at {line}.", f"fp{line}")


def failure(call: Callable[[], object]) -> ReviewError:
    with pytest.raises(ReviewError) as caught:
        call()
    assert TOKEN not in str(caught.value)
    return caught.value


# ------------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"status": 403, "body": {"message": "You have exceeded a secondary rate limit"}}, RateLimited),
        ({"status": 403, "headers": {"retry-after": "30"}}, RateLimited),
        ({"status": 429, "headers": {"x-ratelimit-remaining": "0"}}, RateLimited),
        ({"status": 422, "body": {"message": "Validation Failed", "errors": [{"code": "abuse"}]}}, RateLimited),
        ({"status": 401, "body": {"message": "Bad credentials"}}, NotAuthorised),
        ({"status": 403, "body": {"message": "Resource not accessible by personal access token"}}, NotAuthorised),
        ({"status": 502, "acts": True}, OutcomeUnknown),
        ({"status": None, "acts": True}, OutcomeUnknown),
        ({"status": None, "acts": True, "hang_s": 2.0}, OutcomeUnknown),
        ({"status": 200, "body": b"<html>Unicorn!</html>"}, OutcomeUnknown),
        ({"status": 200, "body": {"message": "accepted"}}, OutcomeUnknown),
        ({"status": 200, "body": []}, OutcomeUnknown),
        ({"status": 302, "headers": {"location": "http://127.0.0.1:1/"}}, WrongEndpoint),
    ],
)
def test_a_refused_post_says_what_is_to_be_done(
    world: World, fault: dict[str, object], kind: type[ReviewError]
) -> None:
    world.github.fail("POST", "/reviews$", **fault)
    assert isinstance(failure(world.post), kind)
    assert len(world.reviews()) == (1 if fault.get("acts") else 0)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 502},
        {"status": None},
        {"status": 200, "body": b"<html>"},
        {"hang_s": 0.3},
        {"status": 429, "headers": {"retry-after": "4"}},
    ],
)
def test_a_reading_that_fails_twice_is_answered_at_the_third_try(world: World, fault: dict[str, object]) -> None:
    world.access = replace(world.access, timeout_s=0.1)
    world.github.fail("GET", "/pulls/1$", **fault, times=2)
    assert world(lambda forge: forge.change(world.ref)).head == world.change.head
    assert len(world.clock.slept) == 2
    assert min(world.clock.slept) >= (4 if fault.get("status") == 429 else 0)


def test_a_reading_that_goes_on_failing_is_given_up_within_half_a_minute(world: World) -> None:
    world.github.fail("GET", "/pulls/1$", 502, times=99)
    assert isinstance(failure(lambda: world(lambda forge: forge.change(world.ref))), Unreachable)
    assert len(world.github.requests("GET", "/pulls/1$")) == READ_RULE.attempts
    assert sum(world.clock.slept) <= 30


def test_a_limit_that_ends_in_minutes_or_names_no_time_holds_nobody_up(world: World) -> None:
    in_twenty_minutes = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(time.time()) + 1200)}
    world.github.fail("GET", "/pulls/1$", 403, headers=in_twenty_minutes)
    primary = failure(lambda: world(lambda forge: forge.change(world.ref)))
    assert isinstance(primary, RateLimited)
    assert 1190 < (primary.retry_after_s or 0) <= 1202
    world.github.fail("GET", "/pulls/1$", 403, body={"message": "You have exceeded a secondary rate limit"})
    secondary = failure(lambda: world(lambda forge: forge.change(world.ref)))
    assert isinstance(secondary, RateLimited)
    assert secondary.retry_after_s == 60
    assert world.clock.slept == []


@pytest.mark.parametrize("fault", [{"status": 502, "acts": True}, {"status": None}, {"status": 429}])
def test_a_write_is_sent_once_whatever_becomes_of_it(world: World, fault: dict[str, object]) -> None:
    world.github.fail("POST", "/reviews$", **fault, times=9)
    failure(world.post)
    assert len(world.github.requests("POST", "/reviews$")) == 1
    assert world.clock.slept == []


def test_a_server_that_is_not_there_is_unreachable(world: World) -> None:
    world.access = Access(url="http://127.0.0.1:1", api_url="http://127.0.0.1:1", marker_key=b"", token=TOKEN)
    assert isinstance(failure(world.post), Unreachable)


def test_a_page_that_is_no_api_is_named(world: World) -> None:
    world.github.fail("GET", "/pulls/1$", 200, body={"hello": "world"})
    assert "GITHUB_API_URL" in str(failure(lambda: world(lambda forge: forge.change(world.ref))))


# ------------------------------------------------------------------------------------------- posts


def test_requests_are_as_github_asks(world: World) -> None:
    world.post(comment(5))
    (request,) = world.github.requests("POST", "/reviews$")
    assert request.headers["x-github-api-version"] == "2022-11-28"
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.body["event"] == "COMMENT"
    assert request.body["commit_id"] == world.change.head
    assert request.body["comments"] == [{"path": "a.py", "line": 5, "side": "RIGHT", "body": "Look at 5."}]


def test_three_bad_anchors_among_twenty_five_are_found(world: World) -> None:
    lines = [comment(2 + n % 8) for n in range(25)]
    for at in (0, 11, 24):
        lines[at] = Comment("a.py", "RIGHT", 700 + at, 700 + at, f"Misplaced {at}.", f"bad{at}")
    world.post(*lines)
    (review,) = world.reviews()
    assert len(review.comments) == 22
    assert all(f"Misplaced {at}." in review.body for at in (0, 11, 24))
    assert "`a.py:711`" in review.body
    assert len(world.github.requests("POST", "/reviews$")) < 25


def test_a_review_that_is_wrong_in_every_line_ends_soon(world: World) -> None:
    world.post(*(Comment("a.py", "RIGHT", 700 + n, 700 + n, f"Misplaced {n}.", f"bad{n}") for n in range(25)))
    (review,) = world.reviews()
    assert review.comments == []
    assert all(f"Misplaced {n}." in review.body for n in range(25))
    assert len(world.github.requests("POST", "/reviews$")) <= 26


def test_a_pending_review_left_by_a_killed_process_is_removed(world: World) -> None:
    left = PostedReview(900, "PENDING", world.marked("probe"), world.change.head, [])
    world.github.pull(REPOSITORY, 1).reviews.append(left)
    world.post(comment(5))
    assert [len(review.comments) for review in world.reviews()] == [1]


def test_a_pending_review_of_a_person_stays(world: World) -> None:
    theirs = PostedReview(900, "PENDING", "my draft", world.change.head, [])
    world.github.pull(REPOSITORY, 1).reviews.append(theirs)
    refused = failure(lambda: world.post(comment(5)))
    assert isinstance(refused, Unprocessable)
    assert "Submit or discard the pending review" in str(refused)
    assert theirs in world.github.pull(REPOSITORY, 1).reviews


def test_a_body_that_is_too_long_is_cut_between_lines_with_fences_closed(world: World) -> None:
    long = "start\n```\n" + "x = '👩‍👩‍👧'\n" * 9_000 + "```\nend"
    world.post(comment(5), summary=f"{world.marked(SUMMARY)}\n{long}")
    (review,) = world.reviews()
    assert len(review.body) <= 65_536
    assert "\n```\n\nThe rest is left out" in review.body
    assert world(lambda forge: forge.posted(world.change)).has_summary


def test_a_misplaced_comment_survives_a_summary_that_is_too_long(world: World) -> None:
    misplaced = Comment("a.py", "RIGHT", 777, 777, f"{world.marked('fp777')}\nMisplaced.", "fp777")
    world.post(misplaced, summary=f"{world.marked(SUMMARY)}\n" + "a line of text\n" * 9_000)
    (review,) = world.reviews()
    assert len(review.body) <= 65_536
    assert "The rest is left out" in review.body
    posted = world(lambda forge: forge.posted(world.change))
    assert (posted.has_summary, posted.fingerprints) == (True, {"fp777"})


def test_a_locked_conversation_is_refused_clearly(world: World) -> None:
    world.github.pull(REPOSITORY, 1).locked = True
    assert "locked" in str(failure(world.post))


def test_a_head_that_github_does_not_know_posts_nothing(world: World) -> None:
    stale = Change(ref=world.ref, head="d" * 40, base=world.change.base)
    assert isinstance(
        failure(lambda: world(lambda forge: forge.post(stale, summary="Summary", comments=[comment(5)]))), Unprocessable
    )
    assert world.reviews() == []
    assert len(world.github.requests("POST", "/reviews$")) == 2


# ----------------------------------------------------------------------------------------- reading


def test_our_mark_is_found_behind_a_thousand_comments_of_others(world: World) -> None:
    pull = world.github.pull(REPOSITORY, 1)
    pull.reviews += [PostedReview(n, "COMMENTED", "hm", world.change.head, [], "bob") for n in range(1000, 2000)]
    world.post(Comment("a.py", "RIGHT", 5, 5, f"{world.marked('fp5')}\nLook.", "fp5"), summary=world.marked(SUMMARY))
    posted = world(lambda forge: forge.posted(world.change))
    assert posted.has_summary
    assert posted.fingerprints == {"fp5"}
    assert len(world.github.requests("GET", "/reviews$")) == 11


@pytest.mark.parametrize(
    ("state", "edit", "known"),
    [
        ("COMMENTED", lambda body: f"Note of a maintainer.\n\n{body}\n\nAnd another.", {"fp8"}),
        ("DISMISSED", lambda body: body, {"fp8"}),
        ("COMMENTED", lambda body: "Taken out by a maintainer.", set()),
        ("PENDING", lambda body: body, set()),
    ],
    ids=["edited", "dismissed", "emptied", "pending"],
)
def test_what_a_summary_told_is_known_as_long_as_people_can_read_it(
    world: World, state: str, edit: Callable[[str], str], known: set[str]
) -> None:
    mark = write_told(Told("job", world.change.head, ("fp8",)), key=MARKER_KEY, ref=world.ref)
    world.post(summary=f"{world.marked(SUMMARY)}\n- a finding\n\n{mark}")
    (review,) = world.reviews()
    review.state, review.body = state, edit(review.body)
    newer = replace(world.change, head="d" * 40)
    assert world(lambda forge: forge.posted(newer)).earlier == known


def test_a_short_page_is_not_taken_for_the_last_one_where_github_names_another(world: World) -> None:
    world.post(comment(5))
    url = "https://elsewhere.example/never/asked?page=2"
    short = [{"id": 1, "state": "COMMENTED", "body": ""}]
    world.github.fail("GET", "/reviews$", 200, body=short, headers={"link": f'<{url}>; rel="next"'})
    assert world(lambda forge: forge.posted(world.change)).has_summary is False
    assert [request.query["page"] for request in world.github.requests("GET", "/reviews$")] == ["1", "2"]


def test_a_list_without_an_end_is_not_read_for_ever(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PAGES", 5)
    page = [{"id": n, "state": "COMMENTED", "body": ""} for n in range(100)]
    endless = world.github.fail("GET", "/reviews$", 200, body=page, times=9)
    assert isinstance(failure(lambda: world(lambda forge: forge.posted(world.change))), Unprocessable)
    assert endless.times == 4


def test_a_repository_name_from_a_damaged_record_reaches_no_url(world: World) -> None:
    for name in ("acme/../../user", "acme", "acme/shop?x", "acme/shop/../x", "//evil.example", "acme/.."):
        with pytest.raises(BadInput):
            world(lambda forge, name=name: forge.change(ChangeRef("github", name, 1)))  # type: ignore[misc]
    assert world.github.requests("GET", "user") == []


def test_urls_of_an_answer_are_never_used(world: World) -> None:
    change = world(lambda forge: forge.change(world.ref))
    remote = world(lambda forge: forge.remote_ready(change))
    assert remote.url == f"{world.github.git_url}/{REPOSITORY}.git"
    assert remote.head_ref == "refs/pull/1/head"
    assert remote.base_ref == "refs/heads/main"


def test_git_takes_the_login_that_the_client_gives(world: World, tmp_path: Path) -> None:
    remote = world(lambda forge: forge.remote_ready(world.change))
    said = git(
        tmp_path,
        "-c",
        f"http.extraHeader=Authorization: {remote.authorization}",
        "ls-remote",
        remote.url,
        remote.head_ref,
    )
    assert said.startswith(world.change.head)


def test_the_api_s_own_diff_says_what_it_leaves_out(world: World) -> None:
    repository = world.github.repository(REPOSITORY)
    files: dict[str | bytes, bytes | str | None] = {
        "a b.py": "new\n",
        "big.txt": "y" * 30_000 + "\n",
        "bin": b"\0\1\2",
        "a.py": None,
        "moved.py": OLD,
    }
    head = repository.commit(files, parent=world.change.base)
    world.github.push(REPOSITORY, 1, head)
    change = world(lambda forge: forge.change(world.ref))
    snapshot = world(lambda forge: forge.diff(change))
    assert (snapshot.head, snapshot.base) == (head, world.change.base)
    assert b"diff --git a/a b.py b/a b.py\nnew file mode 100644\n--- /dev/null\n+++ b/a b.py\t\n@@" in snapshot.diff
    assert b"rename from a.py\nrename to moved.py\n" in snapshot.diff
    assert [(path, lines) for path, _, lines in snapshot.cut] == [("big.txt", 1), ("bin", 0)]


def test_files_that_the_list_leaves_out_are_counted(world: World) -> None:
    world.github.fail("GET", "/files$", 200, body=[])
    snapshot = world(lambda forge: forge.diff(world.change))
    assert snapshot.diff == b""
    assert [(path, lines) for path, _, lines in snapshot.cut] == [("(1 files)", 4)]


# --------------------------------------------------------------------------------------------- app


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture
def app(tmp_path: Path, key: rsa.RSAPrivateKey) -> Iterator[World]:
    with GitHubServer(tmp_path, logins=GitHubLogins(app_id="12345", app_key=key.public_key())) as github:
        access = Access(
            url=github.git_url,
            api_url=github.api_url,
            marker_key=MARKER_KEY,
            app_id="12345",
            # As one line of an .env file has it.
            app_private_key=pem(key).replace("\n", "\\n"),
            timeout_s=2,
        )
        yield opened(github, access)


def test_an_app_mints_one_token_for_one_repository_with_few_rights(app: World) -> None:
    app.post(comment(5))
    app.post(comment(6))
    assert len(app.reviews()) == 2
    ((_, repositories, permissions),) = app.github.logins.minted.values()
    assert repositories == {"shop"}
    assert permissions == {"contents": "read", "metadata": "read", "pull_requests": "write"}


def test_an_app_lists_the_repositories_of_its_installations(app: World) -> None:
    async def listed(forge: GitHubClient) -> list[str]:
        return [name async for name in forge.repositories()]

    assert app(listed) == [REPOSITORY]
    assert all("write" not in permissions.values() for _, _, permissions in app.github.logins.minted.values())


def test_an_app_s_git_login_is_its_token(app: World) -> None:
    remote = app(lambda forge: forge.remote_ready(app.change))
    (token,) = app.github.logins.minted
    assert remote.authorization == "Basic " + base64.b64encode(f"x-access-token:{token}".encode()).decode()
    assert token not in repr(remote)


def test_a_token_that_was_withdrawn_is_renewed_once(app: World) -> None:
    app.post(comment(5))
    app.github.logins.minted.clear()
    app.post(comment(6))
    assert len(app.reviews()) == 2
    assert len(app.github.logins.minted) == 1


def test_a_token_that_cannot_be_minted_for_a_moment_is_asked_for_again(app: World) -> None:
    app.github.fail("POST", "/access_tokens$", 502, acts=True)
    app.post(comment(5))
    assert len(app.reviews()) == 1
    assert len(app.clock.slept) == 1


def test_credentials_that_stay_refused_end_clearly(app: World) -> None:
    app.github.fail("POST", "/reviews$", 401, times=9, body={"message": "Bad credentials"})
    assert isinstance(failure(lambda: app.post(comment(5))), NotAuthorised)
    assert len(app.github.requests("POST", "/reviews$")) == 2


def test_a_token_that_ends_within_minutes_is_not_used(app: World) -> None:
    app.github.logins.token_life_s = 120
    app.post(comment(5))
    app.post(comment(6))
    assert len(app.github.logins.minted) > 1


@pytest.mark.parametrize("offset_s", [-3600.0, 3600.0])
def test_a_wrong_clock_is_corrected_by_the_server_s(app: World, offset_s: float) -> None:
    app.github.logins.clock_offset_s = offset_s
    app.post(comment(5))
    assert len(app.reviews()) == 1


def test_an_app_that_github_does_not_know_is_refused(app: World) -> None:
    app.github.logins.app_id = "999"
    failure(lambda: app.post(comment(5)))
    assert app.reviews() == []


def test_a_key_that_is_none_and_no_credentials_at_all_name_the_setting() -> None:
    with pytest.raises(ConfigurationError, match="GITHUB_APP_PRIVATE_KEY"):
        GitHubClient(Access(url="", api_url="", marker_key=b"", app_id="1", app_private_key="not a key"), FakeClock())
    with pytest.raises(ConfigurationError, match="GITHUB_TOKEN"):
        GitHubClient(Access(url="", api_url="", marker_key=b""), FakeClock())


def test_an_access_shows_no_secret() -> None:
    shown = repr(Access(url="u", api_url="a", marker_key=b"secret-key", token=TOKEN, app_private_key="secret-pem"))
    assert TOKEN not in shown
    assert "secret" not in shown


def test_a_hanging_server_is_given_up_within_the_time_limit(world: World) -> None:
    world.access = replace(world.access, timeout_s=0.1)
    world.github.fail("GET", "/pulls/1$", hang_s=5.0, times=99)
    started = time.monotonic()
    failure(lambda: world(lambda forge: forge.change(world.ref)))
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    "location",
    ["", "https://evil.example/elsewhere", "/repositories/4711x/pulls/1", "/repositories/99999999999999999999/pulls/1"],
)
def test_a_redirect_that_names_no_repository_is_told_and_nothing_is_asked_after_it(world: World, location: str) -> None:
    world.github.fail("GET", r"/pulls/\d+$", 302, headers={"location": location})
    with pytest.raises(WrongEndpoint, match="follow no redirect"):
        world(lambda forge: forge.change(world.ref))
    assert len(world.github.seen) == 1


def test_a_redirect_to_a_repository_of_another_host_is_looked_up_at_ours_alone(world: World) -> None:
    redirect = {"location": "https://evil.example/repositories/4711/pulls/1"}
    world.github.fail("GET", r"/pulls/\d+$", 301, headers=redirect, times=2)
    world.github.fail("GET", r"/repositories/4711$", 404)
    with pytest.raises(WrongEndpoint, match="follow no redirect"):
        world(lambda forge: forge.change(world.ref))
    world.github.fail("GET", r"/repositories/4711$", 200, body={"full_name": "acme/<b>store</b>"})
    with pytest.raises(WrongEndpoint, match="follow no redirect"):
        world(lambda forge: forge.change(world.ref))
    assert [request.path for request in world.github.seen].count("/repositories/4711") == 2
