"""Behind an egress proxy: model, forge and git leave by the one that the environment names, or by none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.fakes import anthropic, kimi
from tests.fakes.admission import OpenThrottle
from tests.fakes.clock import FakeClock
from tests.fakes.forge import MARKER_KEY
from tests.fakes.github import TOKEN, GitHubServer
from tests.fakes.proxy import ForwardProxy
from tests.fakes.shell import Shell
from tests.fakes.tls import Authority, authority, terminating
from worker import outward
from worker.checkout import CheckoutLimits, MirrorCheckout
from worker.cli.check import proxy_row
from worker.core.change import Change, ChangeRef
from worker.core.egress import Egress, egress_of
from worker.core.errors import ConfigurationError, NotAuthorised, ReviewError, Unreachable
from worker.core.exchange import Answer, Kind, Prompt
from worker.core.retry import GiveUp, Rule
from worker.forges import FORGES
from worker.forges.access import Access
from worker.ports import Flow, Remote
from worker.providers.account import balance, models_offered, next_reset
from worker.providers.catalogue import lookup
from worker.providers.connect import connect
from worker.providers.endpoint import Endpoint
from worker.settings import Role, load

REPOSITORY = "acme/shop"
REF = ChangeRef("github", REPOSITORY, 1)
CHANGE = Change(REF, head="a" * 40, base="b" * 40)
LOGIN = "worker:p@ss/of-the-proxy"
NOWHERE = "0.0.0.0"
"""This machine, which no rule takes for loopback: what goes there directly arrives, without a name being looked up."""
PROMPT = Prompt(
    kind=Kind.SUMMARY,
    system="Summarise.",
    user="kind: summary",
    schema={"type": "object", "properties": {"summary": {"type": "string"}}},
    input_tokens=200,
    max_output_tokens=4_000,
)
ONCE = Rule(attempts=1, base_s=0.01, cap_s=0.01, total_s=0.01)


@dataclass(frozen=True)
class Town:
    """Servers of this machine, a proxy, and how the servers are called from behind it."""

    proxy: ForwardProxy
    kimi: kimi.KimiServer
    github: GitHubServer
    own: Authority
    folder: Path
    stack: ExitStack

    def named(self, address: str, scheme: str, host: str) -> str:
        """`address` of a plain server as one under `host`, with TLS before it where that is `https`."""
        port, path = urlsplit(address).port or 0, urlsplit(address).path
        if scheme == "https":
            port = self.stack.enter_context(terminating(self.own.server(self.folder, host), port))
        return f"{scheme}://{host}:{port}{path}"

    def egress(self, *, is_allowed: bool = True, no_proxy: str = "") -> Egress:
        url = self.proxy.url
        return egress_of({"HTTPS_PROXY": url, "HTTP_PROXY": url, "NO_PROXY": no_proxy}, is_allowed=is_allowed)

    def access(self, scheme: str, host: str, egress: Egress) -> Access:
        api, git = (self.named(one, scheme, host) for one in (self.github.api_url, self.github.git_url))
        return Access(url=git, api_url=api, marker_key=MARKER_KEY, token=TOKEN, egress=egress)


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    own = authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(own.path))
    for name in ("GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_PROXY_SSL_CAINFO"):
        monkeypatch.delenv(name, raising=False)
    outward.tls.cache_clear()
    with (
        ForwardProxy(login=LOGIN) as proxy,
        kimi.KimiServer() as model,
        GitHubServer(tmp_path / "github") as github,
        ExitStack() as stack,
    ):
        repository = github.create(REPOSITORY)
        base = repository.commit({"a.py": "x = 1\n"})
        github.open_pull(REPOSITORY, head=repository.commit({"a.py": "x = 2\n"}, parent=base), base=base)
        yield Town(proxy, model, github, own, tmp_path, stack)
    outward.tls.cache_clear()


async def asked(endpoint: Endpoint) -> Answer:
    model = connect(
        endpoint,
        info=lookup(endpoint.model),
        throttle=OpenThrottle(),
        clock=FakeClock(),
        decide=lambda *_, **__: GiveUp("asked once"),
    )
    return await model.complete(PROMPT, flow=Flow(change="c", repository="r", job="j"))


async def read(access: Access) -> tuple[Change, Remote]:
    async with FORGES["github"].open(access, FakeClock()) as forge:
        change = await forge.change(REF)
        return change, await forge.remote_ready(change)


async def fetched(change: Change, remote: Remote, folder: Path, egress: Egress) -> bytes:
    checkout = MirrorCheckout(folder / "mirrors", CheckoutLimits(fetch_again=ONCE), egress)
    async with checkout.open(change, remote) as tree:
        return (await tree.snapshot()).diff


def both(access: Access, folder: Path) -> bytes:
    """What git brings of the change that the API shows."""
    change, remote = asyncio.run(read(access))
    return asyncio.run(fetched(change, remote, folder, access.egress))


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_a_model_s_answer_and_all_else_about_the_account_come_by_the_proxy(town: Town, scheme: str) -> None:
    endpoint = Endpoint(
        town.named(town.kimi.base_url, scheme, "kimi.test"), kimi.KEY, "kimi-k2.6", egress=town.egress()
    )
    now = FakeClock().now()
    assert asyncio.run(asked(endpoint)).text
    assert "kimi-k2.6" in asyncio.run(models_offered(endpoint, now=now))
    asyncio.run(balance(endpoint, now=now))
    asyncio.run(next_reset(endpoint, now=now))
    assert len(town.proxy.seen) == 4
    assert all("kimi.test:" in one for one in town.proxy.seen)
    if scheme == "https":
        assert {one.split()[0] for one in town.proxy.seen} == {"CONNECT"}
        assert kimi.KEY not in "".join(town.proxy.headers)


def test_anthropic_s_answer_comes_by_the_proxy(town: Town) -> None:
    with anthropic.AnthropicServer(path="/anthropic/v1/messages") as server:
        url = town.named(f"{server.address}/anthropic", "https", "claude.test")
        assert asyncio.run(asked(Endpoint(url, anthropic.KEY, "claude-sonnet-4-5", egress=town.egress()))).text
    assert [one.partition(":")[0] for one in town.proxy.seen] == ["CONNECT claude.test"]


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_the_forge_is_read_and_git_fetches_by_the_proxy(town: Town, scheme: str) -> None:
    access = town.access(scheme, "github.test", town.egress())
    change, remote = asyncio.run(read(access))
    by_api = len(town.proxy.seen)
    assert by_api > 0
    assert b"+x = 2" in asyncio.run(fetched(change, remote, town.folder, access.egress))
    assert len(town.proxy.seen) > by_api
    assert len(town.proxy.seen) >= 2
    if scheme == "https":
        assert TOKEN not in "".join(town.proxy.headers)
        assert {one.split()[0] for one in town.proxy.seen} == {"CONNECT"}


def test_a_proxy_that_speaks_tls_itself_is_trusted_by_the_same_authority(town: Town) -> None:
    # The address of a proxy may be on this machine; that of what is asked by it may not.
    url = town.named(town.proxy.url, "https", "localhost")
    egress = egress_of({"HTTPS_PROXY": url.replace("//", "//worker:p%40ss%2Fof-the-proxy@")}, is_allowed=True)
    endpoint = Endpoint(town.named(town.kimi.base_url, "https", "kimi.test"), kimi.KEY, "kimi-k2.6", egress=egress)
    assert asyncio.run(asked(endpoint)).text
    # The forge's own refusal is proof enough that git got through to it.
    remote = Remote(f"{town.named(town.github.git_url, 'https', 'github.test')}/{REPOSITORY}.git")
    with pytest.raises(NotAuthorised, match="401"):
        asyncio.run(fetched(CHANGE, remote, town.folder, egress))
    assert {one.partition(":")[0] for one in town.proxy.seen} == {"CONNECT kimi.test", "CONNECT github.test"}


@pytest.mark.parametrize(
    ("host", "is_allowed", "no_proxy"),
    [(NOWHERE, False, ""), (NOWHERE, True, "corp.example, 0.0.0.0"), ("127.0.0.1", True, "")],
    ids=["not allowed", "NO_PROXY", "loopback"],
)
def test_what_is_not_for_the_proxy_goes_past_it(
    town: Town, monkeypatch: pytest.MonkeyPatch, host: str, is_allowed: bool, no_proxy: str
) -> None:
    # As in the process of an operator: libraries that looked for themselves would find them.
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, town.proxy.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    egress = town.egress(is_allowed=is_allowed, no_proxy=no_proxy)
    base_url = town.named(town.kimi.base_url, "http", host)
    assert asyncio.run(asked(Endpoint(base_url, kimi.KEY, "kimi-k2.6", egress=egress))).text
    assert b"+x = 2" in both(town.access("http", host, egress), town.folder)
    assert town.proxy.seen == []


def test_a_login_in_netrc_is_never_sent(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = town.folder / ".netrc"
    netrc.write_text("default login somebody password of-somebody\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(town.folder))
    endpoint = Endpoint(town.named(town.kimi.base_url, "https", "kimi.test"), "", "kimi-k2.6", egress=town.egress())
    with pytest.raises(ReviewError):
        asyncio.run(asked(endpoint))
    access = town.access("https", "github.test", town.egress())
    with pytest.raises(NotAuthorised):
        asyncio.run(fetched(CHANGE, Remote(f"{access.url}/{REPOSITORY}.git"), town.folder, access.egress))
    asked_of = [*town.kimi.requests, *town.github.git_server.seen]
    assert len(asked_of) >= 2
    assert not any(name.lower() == "authorization" for request in asked_of for name in request.headers)


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_a_proxy_that_asks_for_another_login_is_told_and_asked_no_second_time(town: Town, scheme: str) -> None:
    egress = town.egress()
    town.proxy.login = "worker:a-newer-password"
    url = f"{scheme}://github.test:1"
    access = Access(url=url, api_url=url, marker_key=b"k", token=TOKEN, egress=egress)
    with pytest.raises(NotAuthorised, match=rf"407.*by the proxy {town.proxy.where}") as model:
        asyncio.run(asked(Endpoint(f"{url}/v1", kimi.KEY, "kimi-k2.6", egress=egress)))
    with pytest.raises(NotAuthorised, match=r"407.*HTTPS_PROXY") as api:
        asyncio.run(read(access))
    with pytest.raises(NotAuthorised, match=r"407.*HTTPS_PROXY") as git:
        asyncio.run(fetched(CHANGE, Remote(f"{url}/{REPOSITORY}.git"), town.folder, egress))
    for error in (model, api, git):
        assert not any(secret in str(error.value) for secret in egress.secrets)


@pytest.mark.parametrize("is_allowed", [True, False])
def test_a_connection_that_failed_says_what_the_proxy_has_to_do_with_it(town: Town, is_allowed: bool) -> None:
    egress = town.egress(is_allowed=is_allowed)
    town.proxy.refuses = 403
    # Nobody listens there, and the proxy does not even try.
    url = "https://github.test:1" if is_allowed else f"https://{NOWHERE}:1"
    access = Access(url=url, api_url=url, marker_key=b"k", token=TOKEN, egress=egress)
    told = "HTTPS_PROXY is set and not used: USE_ENV_PROXIES=true uses it"
    if is_allowed:
        told = f"by the proxy {town.proxy.where} of HTTPS_PROXY"
    answers = "the proxy answers 403.*" if is_allowed else ""
    with pytest.raises(Unreachable, match=answers + told):
        asyncio.run(asked(Endpoint(f"{url}/v1", kimi.KEY, "kimi-k2.6", egress=egress)))
    with pytest.raises(Unreachable, match=answers + told):
        asyncio.run(read(access))
    with pytest.raises(Unreachable, match=told):
        asyncio.run(fetched(CHANGE, Remote(f"{url}/{REPOSITORY}.git"), town.folder, egress))


def test_authorities_that_cannot_be_read_are_told_by_the_model_s_client_too(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(town.folder / "nothing.pem"))
    with pytest.raises(ConfigurationError, match=r"^SSL_CERT_FILE: "):
        asyncio.run(asked(Endpoint(town.kimi.base_url, kimi.KEY, "kimi-k2.6")))


def test_check_says_what_the_proxy_is_used_for(town: Town) -> None:
    done = Shell(town.folder, town.folder / "home")(
        "check",
        "--json",
        HTTP_PROXY=town.proxy.url,
        USE_ENV_PROXIES="true",
        API_OPENAI_FORCE_BASE_URL=town.named(town.kimi.base_url, "http", "kimi.test"),
        API_OPEN_AI_API_KEY=kimi.KEY,
        ALLOW_INSECURE_HOSTS="kimi.test",
    )
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows["completion"]["ok"], rows
    assert rows["proxy"]["detail"] == f"by {town.proxy.where}: kimi.test"
    assert town.proxy.seen
    assert not any(secret in done.stdout + done.stderr for secret in town.egress().secrets)


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://p:1"}, "HTTPS_PROXY is set and not used: USE_ENV_PROXIES=true uses the proxy"),
        (
            {"HTTPS_PROXY": "http://p:1", "HTTP_PROXY": "http://p:1"},
            "HTTPS_PROXY and HTTP_PROXY are set and not used: USE_ENV_PROXIES=true uses the proxy",
        ),
        (
            {"USE_ENV_PROXIES": "true"},
            "USE_ENV_PROXIES is true, and the process's environment has no HTTPS_PROXY or HTTP_PROXY: everything goes"
            " directly",
        ),
        (
            {"USE_ENV_PROXIES": "true", "HTTPS_PROXY": "http://p:1", "NO_PROXY": "github.com", "GITHUB_TOKEN": TOKEN},
            "by p:1: api.moonshot.ai; directly: api.github.com, github.com",
        ),
    ],
)
def test_check_has_a_row_wherever_somebody_speaks_of_a_proxy(environ: dict[str, str], told: str | None) -> None:
    row = proxy_row(load({"API_OPEN_AI_API_KEY": kimi.KEY} | environ, role=Role.CHECK, dotenv=None))
    assert (row and row.detail) == told
