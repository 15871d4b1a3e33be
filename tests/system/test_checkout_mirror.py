"""A mirror meets forges that fail, refs that move, changes that are too large, and names that mean harm."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.fakes.git_server import Faults, GitServer, git
from tests.fakes.mirrored import TOKEN, Forge, command_lines, leftovers
from worker.checkout import MirrorCheckout
from worker.checkout.failures import fetch_failed
from worker.core.change import Change, ChangeRef
from worker.core.errors import (
    NotAuthorised,
    NotFound,
    RateLimited,
    ReviewError,
    Superseded,
    Transient,
    Unprocessable,
    Unreachable,
    WrongEndpoint,
)
from worker.core.retry import READ_RULE
from worker.ports import Remote, Tree


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[Forge]:
    with GitServer(tmp_path / "forge", authorization=TOKEN) as server:
        yield Forge(server, tmp_path / "mirrors")


# ------------------------------------------------------------------------------ what the other side answers


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, NotAuthorised),
        (403, NotAuthorised),
        (404, NotFound),
        (407, NotAuthorised),
        (418, WrongEndpoint),
        (451, NotFound),
        (429, RateLimited),
        (500, Unreachable),
        (503, Unreachable),
        (302, WrongEndpoint),
        (200, WrongEndpoint),
    ],
)
def test_a_status_is_told_as_what_to_do_about_it(forge: Forge, status: int, kind: type[ReviewError]) -> None:
    forge.server.faults.status = status
    with pytest.raises(kind) as caught:
        forge.snapshot()
    assert type(caught.value) is kind
    assert "127.0.0.1/owner/name" in str(caught.value)
    assert TOKEN.split()[1] not in str(caught.value)


def test_a_wrong_token_is_not_authorised_and_is_not_repeated(forge: Forge) -> None:
    with pytest.raises(NotAuthorised) as caught:
        forge.snapshot(remote=replace(forge.remote, authorization="Basic c2VjcmV0"))
    assert "c2VjcmV0" not in repr(caught.value)


def test_the_token_follows_no_redirect(forge: Forge, tmp_path: Path) -> None:
    with GitServer(tmp_path / "other") as other:
        forge.server.faults.redirect_to = other.url
        with pytest.raises(WrongEndpoint):
            forge.snapshot()
        assert other.seen == []


def test_silence_ends_at_the_idle_deadline(forge: Forge) -> None:
    forge.server.faults.hang_s = 30
    forge.limits = replace(forge.limits, fetch_idle_s=0.3)
    started = time.monotonic()
    with pytest.raises(Unreachable, match="heard nothing"):
        forge.snapshot()
    assert time.monotonic() - started < 5


def test_a_broken_connection_is_transient_and_leaves_nothing_behind(forge: Forge) -> None:
    forge.server.faults.cut_after_bytes = 600
    with pytest.raises(Unreachable):
        forge.snapshot()
    assert leftovers(forge.mirror()) == []
    forge.server.faults.cut_after_bytes = None
    assert b"+y = 2" in forge.snapshot().diff


def test_a_fetch_that_fails_for_a_moment_is_made_again(forge: Forge) -> None:
    forge.limits = replace(forge.limits, fetch_again=replace(READ_RULE, base_s=0.01))
    forge.server.faults = Faults(status=502, times=2)

    async def question(tree: Tree) -> bytes:
        forge.server.faults = Faults(status=503, times=1)
        return (await tree.snapshot()).diff

    with capture_logs() as told:
        assert b"+y = 2" in forge.ask(question)
    assert [line["attempt"] for line in told if line["event"] == "forge.retry_scheduled"] == [1, 2, 1]


def test_a_refusal_is_not_asked_for_again(forge: Forge) -> None:
    forge.limits = replace(forge.limits, fetch_again=READ_RULE)
    for status, kind in ((403, NotAuthorised), (429, RateLimited)):
        forge.server.seen.clear()
        forge.server.faults.status = status
        with pytest.raises(kind):
            forge.snapshot()
        assert len(forge.server.seen) <= 2, "the base branch may be gone, so the head is asked for alone"


def test_a_wait_for_a_fetch_ends_at_once_when_nobody_wants_it_any_more(forge: Forge) -> None:
    forge.limits = replace(forge.limits, fetch_again=replace(READ_RULE, base_s=4000.0, cap_s=4000.0, total_s=4000.0))
    forge.server.faults.status = 503

    async def given_up() -> None:
        async with asyncio.timeout(0.7):
            await forge.open()

    started = time.monotonic()
    with capture_logs() as told, pytest.raises(TimeoutError):
        asyncio.run(given_up())  # which waits for its threads
    assert [line["event"] for line in told] == ["forge.retry_scheduled"]
    assert time.monotonic() - started < 5


def test_a_server_without_tls_or_without_a_listener_is_told_apart(forge: Forge) -> None:
    with pytest.raises(WrongEndpoint, match="TLS"):
        forge.snapshot(remote=replace(forge.remote, url=forge.remote.url.replace("http:", "https:")))
    with pytest.raises(Unreachable):
        forge.snapshot(remote=Remote("http://127.0.0.1:1/owner/name.git"))


def test_a_server_of_protocol_0_that_gives_out_no_object_by_its_id_is_told_what_it_lacks(forge: Forge) -> None:
    forge.server.speaks_v2 = False
    with pytest.raises(WrongEndpoint, match=r"Git-Protocol.*uploadpack\.allowAnySHA1InWant"):
        forge.snapshot()
    git(forge.repository.path, "config", "uploadpack.allowAnySHA1InWant", "true")
    assert b"+y = 2" in forge.snapshot().diff


def test_a_server_of_protocol_0_without_partial_fetches_serves_a_whole_one(forge: Forge) -> None:
    forge.server.speaks_v2 = False
    git(forge.repository.path, "config", "uploadpack.allowFilter", "false")
    assert b"+y = 2" in forge.snapshot().diff
    unknown = replace(forge.change, head="1" * 40)
    with pytest.raises(Unreachable, match="does not show"):
        forge.snapshot(unknown)


@pytest.mark.parametrize(
    "url", ["ext::sh -c 'touch owned'", "file:///etc", "/etc", "ssh://h/x", "http://u:p@127.0.0.1/x"]
)
def test_only_plain_http_addresses_are_read(forge: Forge, url: str) -> None:
    with pytest.raises(WrongEndpoint) as caught:
        forge.snapshot(remote=Remote(url))
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("fatal: unable to access 'http://h/': Could not resolve host: h", Unreachable),
        ("fatal: write error: No space left on device\nfatal: index-pack failed", Transient),
        ("fatal: unable to access 'https://h/': SSL certificate problem: self-signed certificate", WrongEndpoint),
        ("remote: fatal: repository 'x' not found of the server's own\nfatal: something new", Transient),
        ("remote: fatal: Authentication failed\nfatal: protocol error: bad pack header", Unreachable),
        ("fatal: remote error: sekret words", Transient),
        ("fatal: remote error: upload-pack: not our ref 0123", NotFound),
        (
            "fatal: http://h/info/refs not valid: could not determine hash algorithm; is this a git repository?",
            WrongEndpoint,
        ),
        ("fatal: Out of memory, realloc failed\nfatal: the remote end hung up unexpectedly", Unprocessable),
    ],
)
def test_gits_words_decide_what_is_raised(words: str, kind: type[ReviewError]) -> None:
    if "server's own" in words:
        words = words.replace("repository 'x' not found", "sekret words")
    error = fetch_failed(words, what="h/owner/name", secret="Bearer sekret")
    assert type(error) is kind
    assert "sekret" not in str(error)


# -------------------------------------------------------------------------------------- where the token is


def test_the_token_is_in_no_file_and_in_no_argument(forge: Forge) -> None:
    forge.server.faults.slow_s = 0.3
    seen: set[str] = set()

    async def run() -> None:
        async def watch() -> None:
            while True:
                seen.update(command_lines())
                await asyncio.sleep(0.02)

        watching = asyncio.create_task(watch())
        async with MirrorCheckout(forge.folder, forge.limits).open(forge.change, forge.remote) as tree:
            await tree.snapshot()
        watching.cancel()

    asyncio.run(run())
    fetching = [line for line in seen if "fetch" in line and str(forge.folder) in line]
    assert fetching
    secret = TOKEN.split()[1]
    assert not [line for line in seen if secret in line]
    files = [path for path in forge.folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if secret.encode() in path.read_bytes()]
    assert secret not in repr(forge.remote)


def test_git_inherits_nothing_of_our_environment(forge: Forge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    monkeypatch.setenv("GIT_TRACE", str(trace))
    monkeypatch.setenv("GIT_TRACE_CURL", str(trace))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'core.sshCommand=false'")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", f"touch {trace}")
    assert b"+y = 2" in forge.snapshot().diff
    assert not trace.exists()


# ----------------------------------------------------------------------------------------- refs that move


def test_a_head_that_was_pushed_away_is_superseded_by_the_new_one(forge: Forge) -> None:
    old = forge.change
    forge.snapshot(old)
    newer = forge.repository.commit({"a.py": "z = 3\n"}, parent=forge.root)
    forge.repository.pull(7, newer)
    with pytest.raises(Superseded) as caught:
        forge.snapshot(old)
    assert caught.value.by == newer


def test_a_head_that_has_a_newer_one_on_top_can_still_be_read(forge: Forge) -> None:
    forge.repository.pull(7, forge.repository.commit({"a.py": "z = 3\n"}, parent=forge.head))
    assert b"+y = 2" in forge.snapshot().diff


def test_a_ref_that_lags_behind_the_webhook_is_no_reason_to_wait(forge: Forge) -> None:
    forge.repository.pull(7, forge.root)
    assert b"+y = 2" in forge.snapshot().diff


def test_a_head_that_nobody_has_yet_is_asked_for_again(forge: Forge) -> None:
    forge.snapshot()
    with pytest.raises(Unreachable, match="yet"):
        forge.snapshot(replace(forge.change, head="1" * 40))


def test_a_missing_change_is_not_found(forge: Forge) -> None:
    with pytest.raises(NotFound):
        forge.snapshot(replace(forge.change, ref=ChangeRef("github", "owner/name", 8)))


def test_a_deleted_base_branch_is_replaced_by_the_base_that_the_forge_named(forge: Forge) -> None:
    forge.repository.ref("refs/heads/main", forge.head)
    change = replace(forge.change, base_branch="gone")
    assert b"+y = 2" in forge.snapshot(change).diff


def test_a_merged_change_still_shows_what_it_brought(forge: Forge) -> None:
    forge.repository.ref("refs/heads/main", forge.head)
    assert b"+y = 2" in forge.snapshot().diff


def test_a_base_older_than_what_the_head_merged_does_not_widen_the_change(forge: Forge) -> None:
    newer = forge.repository.commit({"b.txt": "from main\n"}, parent=forge.root)
    forge.repository.ref("refs/heads/main", newer)
    head = forge.repository.commit({"a.py": "z = 3\n"}, parent=newer)
    forge.repository.pull(7, head)
    snapshot = forge.snapshot(replace(forge.change, head=head, base=forge.root))
    assert snapshot.base == newer
    assert b"from main" not in snapshot.diff


@pytest.mark.parametrize("name", ["$({curl,127.0.0.1})", "a`id`;b", "--upload-pack=x", "-x", "ünï/码", "a'\"&|b"])
def test_a_branch_may_have_any_name_that_git_allows(forge: Forge, name: str) -> None:
    forge.repository.ref(f"refs/heads/{name}", forge.root)
    assert b"+y = 2" in forge.snapshot(replace(forge.change, base_branch=name, base="0" * 40)).diff


@pytest.mark.parametrize(
    "name", ["--upload-pack=touch x", "a\nrefs/heads/b", "x:refs/heads/y", "*", "a..b", "\x1b[2J", "a/"]
)
def test_a_name_that_git_forbids_is_no_branch(forge: Forge, name: str) -> None:
    with pytest.raises(NotFound, match="cannot have"):
        forge.snapshot(replace(forge.change, base_branch=name))
    assert forge.server.seen == []


def test_other_forges_name_other_refs(forge: Forge) -> None:
    forge.repository.ref("refs/merge-requests/7/head", forge.head)
    forge.repository.ref("refs/pull/7/head", None)
    remote = replace(forge.remote, head_ref="refs/merge-requests/7/head", base_ref="refs/heads/main")
    assert b"+y = 2" in forge.snapshot(remote=remote).diff


# ------------------------------------------------------------------------------------------ size, politeness


def test_a_fetch_larger_than_its_limit_is_ended_and_cleaned_up(forge: Forge) -> None:
    for number in range(40):
        forge.head = forge.repository.commit({f"d{number}/{secrets.token_hex(2000)[:200]}": "x"}, parent=forge.head)
    forge.repository.pull(7, forge.head)
    forge.server.faults.slow_s = 0.1
    forge.limits = replace(forge.limits, fetch_bytes=100)
    with pytest.raises(Unprocessable, match="100 bytes"):
        forge.snapshot()
    assert leftovers(forge.mirror()) == []


def test_a_blob_too_large_to_fetch_is_named_and_the_rest_is_reviewed(forge: Forge) -> None:
    files: dict[str | bytes, bytes | str | None] = {"huge.bin": secrets.token_bytes(20_000_000), "small.py": "s = 1\n"}
    forge.head = forge.repository.commit(files, parent=forge.head)
    forge.repository.pull(7, forge.head)
    forge.limits = replace(forge.limits, blobs_bytes=200_000, blob_bytes=100_000)
    snapshot = forge.snapshot()
    assert [path for path, _, _ in snapshot.cut] == ["huge.bin"]
    assert "100,000 bytes" in snapshot.cut[0][1]
    assert b"+s = 1" in snapshot.diff
    assert b"+y = 2" in snapshot.diff
    assert b"huge.bin" not in snapshot.diff


def test_a_repository_too_large_to_search_says_so_once_and_is_not_fetched_again(forge: Forge) -> None:
    files: dict[str | bytes, bytes | str | None] = {f"f{n}.bin": secrets.token_bytes(300_000) for n in range(20)}
    forge.root = forge.repository.commit(files, parent=forge.root)
    forge.head = forge.repository.commit({"a.py": "needle\n"}, parent=forge.root)
    forge.repository.ref("refs/heads/main", forge.root)
    forge.repository.pull(7, forge.head)
    forge.limits = replace(forge.limits, search_bytes=100_000)

    async def question(tree: Tree) -> None:
        assert b"+needle" in (await tree.snapshot()).diff
        with pytest.raises(Unprocessable, match="100,000 bytes"):
            await tree.search("needle", revision=forge.head)
        asked = len(forge.server.seen)
        with pytest.raises(Unprocessable, match="100,000 bytes"):
            await tree.search("needle", revision=forge.head)
        assert len(forge.server.seen) == asked
        assert await tree.read("a.py", revision=forge.head) == b"needle\n"

    forge.ask(question)


def test_history_comes_without_blobs_and_those_of_the_change_in_one_request(forge: Forge) -> None:
    files: dict[str | bytes, bytes | str | None] = {f"f{number}.py": f"v = {number}\n" for number in range(20)}
    forge.head = forge.repository.commit(files, parent=forge.head)
    forge.repository.pull(7, forge.head)
    forge.snapshot()
    assert len([seen for seen in forge.server.seen if seen.method == "POST"]) == 3
    forge.server.seen.clear()
    forge.snapshot()
    assert len([seen for seen in forge.server.seen if seen.method == "POST"]) == 1


def test_a_mirror_of_many_packs_becomes_one_that_still_serves(forge: Forge) -> None:
    forge.limits = replace(forge.limits, packs=3)
    for number in range(3):
        forge.head = forge.repository.commit({"a.py": f"v = {number}\n"}, parent=forge.root)
        forge.repository.pull(7, forge.head)
        assert f"+v = {number}".encode() in forge.snapshot().diff
    assert len(list(forge.mirror().glob("objects/pack/*.pack"))) <= 4
    assert forge.ask(lambda tree: tree.read("b.txt", revision=forge.root)) == b"b\n"


def test_the_least_recently_used_mirror_goes_first_and_one_in_use_stays(forge: Forge, tmp_path: Path) -> None:
    other = forge.server.create("owner/other")
    root = other.commit({"a": "1\n"})
    head = other.commit({"a": "2\n"}, parent=root)
    other.ref("refs/heads/main", root)
    other.pull(1, head)
    second = Change(ChangeRef("github", "owner/other", 1), head=head, base=root, base_branch="main")
    second_remote = Remote(forge.server.url_of("owner/other"), TOKEN)
    forge.limits = replace(forge.limits, mirrors_bytes=1)

    async def run() -> None:
        checkout = MirrorCheckout(forge.folder, forge.limits)
        async with checkout.open(forge.change, forge.remote) as tree:
            async with checkout.open(second, second_remote):
                assert len(list(forge.folder.glob("*.git"))) == 2
            assert len(list(forge.folder.glob("*.git"))) == 1
            assert b"+y = 2" in (await tree.snapshot()).diff
        assert list(forge.folder.glob("*.git")) == []

    asyncio.run(run())
    assert b"+y = 2" in forge.snapshot().diff


def test_a_mirror_has_no_hooks_no_remote_and_no_work_tree(forge: Forge) -> None:
    forge.snapshot()
    mirror = forge.mirror()
    assert not (mirror / "hooks").exists()
    assert "remote" not in (mirror / "config").read_text()
    assert mirror.parent == forge.folder
    assert not (mirror / "index").exists()
