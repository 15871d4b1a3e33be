"""Which proxy of the environment a request leaves by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.egress import DIRECT, Egress, egress_of

NAMED = {"HTTPS_PROXY": "http://tls.corp:3128", "HTTP_PROXY": "http://plain.corp:3128"}


def way(url: str, **environ: str) -> str | None:
    """`host:port` of the proxy for `url`, where proxies are allowed."""
    proxy = egress_of(NAMED | environ, is_allowed=True).proxy_for(url)
    return None if proxy is None else proxy.where


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        ("https://api.moonshot.ai/v1", {}, "tls.corp:3128"),
        ("http://gateway.example:8080/v1", {}, "plain.corp:3128"),
        ("https://api.moonshot.ai/v1", {"https_proxy": "http://small.corp:1"}, "small.corp:1"),
        ("https://api.moonshot.ai/v1", {"HTTPS_PROXY": "", "ALL_PROXY": "http://all.corp:2"}, "all.corp:2"),
        ("https://api.moonshot.ai/v1", {"HTTPS_PROXY": "bare.corp:8080"}, "bare.corp:8080"),
        # libcurl would take 1080, httpx 80.
        ("https://api.moonshot.ai/v1", {"HTTPS_PROXY": "http://portless.corp"}, "portless.corp:80"),
        ("https://api.moonshot.ai/v1", {"HTTPS_PROXY": "https://portless.corp/"}, "portless.corp:443"),
        ("https://api.moonshot.ai/v1", {"HTTPS_PROXY": "", "HTTP_PROXY": "http://plain.corp:1"}, None),
    ],
)
def test_the_address_s_scheme_decides_which_variable_is_read(
    url: str, environ: dict[str, str], expected: str | None
) -> None:
    assert way(url, **environ) == expected


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_exempt"),
    [
        ("*", "https://a.example", True),
        ("other.example,*", "https://a.example", True),
        ("example", "https://a.example", True),
        (".corp.example", "https://git.corp.example", True),
        (".corp.example", "https://corp.example", True),
        ("*.corp.example", "https://git.corp.example", True),
        ("corp.example", "https://notcorp.example", False),
        ("corp.example", "https://corp.example.evil.test", False),
        ("GIT.corp.example", "https://git.CORP.example", True),
        ("git.corp.example:8443", "https://git.corp.example:8443", True),
        ("git.corp.example:8443", "https://git.corp.example", False),
        ("git.corp.example:443", "https://git.corp.example", True),
        ("10.1.2.3", "https://10.1.2.3", True),
        ("10.0.0.0/8", "https://10.1.2.3", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("10.0.0.0/8", "https://ten.example", False),
        ("not/a/network", "https://a.example", False),
        ("fd00::/8", "https://[fd12::1]:8443", True),
        ("[fd12::1]:8443", "https://[fd12::1]:8443", True),
        ("[fd12::1]:8443", "https://[fd12::1]", False),
        ("fd12::1", "https://[fd12::1]", True),
        ("a.example b.example", "https://b.example", True),
        (" , .", "https://a.example", False),
        ("", "https://a.example", False),
    ],
)
def test_no_proxy_names_who_is_reached_directly(no_proxy: str, url: str, is_exempt: bool) -> None:
    assert (way(url, NO_PROXY=no_proxy) is None) == is_exempt


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "[::1]"])
def test_what_listens_on_this_machine_is_never_asked_for_by_a_proxy(host: str) -> None:
    assert way(f"http://{host}:8000") is None
    assert egress_of(NAMED, is_allowed=True).remark(f"http://{host}:8000") == ""


def test_without_the_setting_nothing_leaves_by_a_proxy_and_a_failure_says_so() -> None:
    egress = egress_of(NAMED, is_allowed=False)
    assert egress.proxy_for("https://api.moonshot.ai/v1") is None
    assert egress.remark("https://api.moonshot.ai/v1") == (
        " (HTTPS_PROXY is set and not used: USE_ENV_PROXIES=true uses it)"
    )
    assert DIRECT.remark("https://api.moonshot.ai/v1") == ""


def test_a_login_is_known_to_the_redactor_in_each_spelling_and_shown_nowhere() -> None:
    egress = egress_of({"HTTPS_PROXY": "http://worker:hunter%402@tls.corp:3128"}, is_allowed=True)
    assert {"hunter%402", "hunter@2"} <= set(egress.secrets)
    assert "hunter" not in f"{egress!r} {egress.remark('https://a.example')}"


@pytest.mark.parametrize("password", ["pass/word", "4711/pass"])
def test_a_password_whose_slash_is_not_encoded_is_told_and_not_shown(password: str) -> None:
    egress = egress_of({"HTTPS_PROXY": f"http://worker:{password}@tls.corp:3128"}, is_allowed=True)
    [problem] = egress.problems()
    assert "/ as %2F" in problem
    assert egress.secrets == (f"http://worker:{password}@tls.corp:3128",)
    assert "pass" not in f"{egress!r} {egress.remark('https://a.example')}"


@pytest.mark.parametrize("url", ["socks5://corp:1080", "http://", "http://corp:port", "http://[corp", "ftp://corp"])
def test_a_proxy_that_is_none_is_told_by_its_variable_once_it_is_to_be_used(url: str) -> None:
    [problem] = egress_of({"HTTPS_PROXY": url}, is_allowed=True).problems()
    assert problem.startswith("HTTPS_PROXY: is no address of an HTTP proxy. Write http://HOST:PORT")
    assert list(egress_of({"HTTPS_PROXY": url}, is_allowed=False).problems()) == []


@given(st.text(), st.text(), st.text())
def test_whatever_stands_in_the_environment_is_read_without_an_error(url: str, no_proxy: str, host: str) -> None:
    egress: Egress = egress_of({"ALL_PROXY": url, "NO_PROXY": no_proxy}, is_allowed=False)
    assert egress.proxy_for(f"https://{host}") is None
    assert isinstance(egress.remark(f"https://{host}"), str)
    assert len(egress.secrets) <= 3 * len(egress.proxies)
