"""A forge whose certificates an authority of the operator's own signs: one setting does for its API and for git."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.forge import MARKER_KEY
from tests.fakes.github import TOKEN, GitHubServer
from tests.fakes.tls import Authority, authority, terminating
from worker import outward
from worker.checkout import MirrorCheckout
from worker.checkout.process import Bounds, GitRunner
from worker.core.change import Change, ChangeRef
from worker.core.errors import ConfigurationError, WrongEndpoint
from worker.forges import FORGES
from worker.forges.access import Access
from worker.ports import Remote

REPOSITORY = "acme/shop"
REF = ChangeRef("github", REPOSITORY, 1)
NAMES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_PROXY_SSL_CAINFO")


@pytest.fixture(autouse=True)
def trusts_nobody_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that runs the tests may have an authority of its own."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def own(tmp_path: Path) -> Authority:
    return authority(tmp_path)


@pytest.fixture
def access(own: Authority, tmp_path: Path) -> Iterator[Access]:
    """The way in to a GitHub on `https://localhost`, with one open change."""
    with GitHubServer(tmp_path / "github") as github:
        repository = github.create(REPOSITORY)
        base = repository.commit({"a.py": "x = 1\n"})
        github.open_pull(REPOSITORY, head=repository.commit({"a.py": "x = 2\n"}, parent=base), base=base)
        api, git = urlsplit(github.api_url), urlsplit(github.git_url)
        context = own.server(tmp_path, "localhost")
        with terminating(context, api.port or 0) as api_port, terminating(context, git.port or 0) as git_port:
            yield Access(
                url=f"https://localhost:{git_port}",
                api_url=f"https://localhost:{api_port}{api.path}",
                marker_key=MARKER_KEY,
                token=TOKEN,
            )


@contextmanager
def started_anew() -> Iterator[None]:
    """As a process that has not read its environment yet."""
    outward.tls.cache_clear()
    try:
        yield
    finally:
        outward.tls.cache_clear()


async def asked(access: Access) -> tuple[Change, Remote]:
    async with FORGES["github"].open(access, FakeClock()) as forge:
        change = await forge.change(REF)
        return change, await forge.remote_ready(change)


async def fetched(change: Change, remote: Remote, folder: Path) -> bytes:
    async with MirrorCheckout(folder / "mirrors").open(change, remote) as tree:
        return (await tree.snapshot()).diff


def test_one_setting_makes_api_and_git_trust_an_authority_of_ones_own(
    access: Access, own: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(own.path))
    with started_anew():
        change, remote = asyncio.run(asked(access))
    assert b"+x = 2" in asyncio.run(fetched(change, remote, tmp_path))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"SSL_CERT_FILE": "/file"}, ["GIT_PROXY_SSL_CAINFO=/file", "GIT_SSL_CAINFO=/file"]),
        ({"SSL_CERT_DIR": "/folder"}, ["GIT_SSL_CAPATH=/folder"]),
        (
            {"SSL_CERT_FILE": "/file", "SSL_CERT_DIR": "/folder"},
            ["GIT_PROXY_SSL_CAINFO=/file", "GIT_SSL_CAINFO=/file"],
        ),
        ({"SSL_CERT_FILE": "/file", "GIT_SSL_CAINFO": "/own"}, ["GIT_SSL_CAINFO=/own"]),
        ({"SSL_CERT_FILE": "/file", "GIT_SSL_CAPATH": "/own"}, ["GIT_SSL_CAPATH=/own"]),
        ({"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""}, []),
    ],
)
def test_git_is_told_the_authorities_under_its_own_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], told: list[str]
) -> None:
    shown = tmp_path / "bin" / "git"
    shown.parent.mkdir()
    shown.write_text("#!/bin/sh\nenv\n")
    shown.chmod(0o755)
    for name, value in {"PATH": f"{shown.parent}:{os.environ['PATH']}", **given}.items():
        monkeypatch.setenv(name, value)
    output = GitRunner(tmp_path, is_git_dir=False).run([], bounds=Bounds(total_s=10)).output.decode()
    assert sorted(row for row in output.splitlines() if "SSL" in row) == told


def test_an_authority_that_nobody_named_is_refused_by_both_with_the_setting(access: Access, tmp_path: Path) -> None:
    with started_anew(), pytest.raises(WrongEndpoint, match=r"not trusted \(.*certificate.*\).*SSL_CERT_FILE"):
        asyncio.run(asked(access))
    change = Change(REF, head="a" * 40, base="b" * 40)
    with pytest.raises(WrongEndpoint, match=r"not trusted.*SSL_CERT_FILE"):
        asyncio.run(fetched(change, Remote(f"{access.url}/{REPOSITORY}.git"), tmp_path))


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_that_holds_no_certificates_is_told_by_the_setting_s_name(
    access: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    named = tmp_path / "bundle.pem"
    if content is not None:
        named.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(named))
    with started_anew(), pytest.raises(ConfigurationError, match=r"^SSL_CERT_FILE: "):
        asyncio.run(asked(access))
