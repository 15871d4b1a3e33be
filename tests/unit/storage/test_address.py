"""REDIS_URL taken apart: every kind, one spelling that reads back, and errors that show nothing of it."""

from __future__ import annotations

import re
from string import ascii_lowercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.errors import ConfigurationError
from worker.storage.address import Address, Kind, Login, Tls, address_of
from worker.storage.connection import connect

SENTINELS = "sentinel://:a-pass%40word@one:26379;sentinel://two;sentinel://three:26380/2?master_name=the-master"


def test_each_kind_is_known_by_its_scheme() -> None:
    assert address_of("redis://host") == Address(Kind.SERVER, (("host", 6379),))
    assert address_of("redis://u:p%40w@[::1]:7000/3") == Address(
        Kind.SERVER, (("::1", 7000),), db=3, login=Login("u", "p@w")
    )
    assert address_of("rediss://host").tls == Tls()
    for spelt in ("unix://:pw@/run/a%20b.sock?db=1", "redis+socket://:pw@/run/a%20b.sock?virtual_host=1"):
        assert address_of(spelt) == Address(Kind.SOCKET, path="/run/a b.sock", db=1, login=Login("", "pw"))


def test_sentinels_are_written_as_celery_writes_them() -> None:
    found = address_of(SENTINELS)
    assert found.kind is Kind.SENTINEL
    assert found.hosts == (("one", 26379), ("two", 26379), ("three", 26380))
    assert (found.master_name, found.db, found.login, found.tls) == ("the-master", 2, Login("", "a-pass@word"), None)
    repeated = (
        "sentinel://:pw@one/0;sentinel://:pw@two/0?master_name=m&sentinel_username=u&sentinel_password=s&ssl=true;"
    )
    assert address_of(repeated) == Address(
        Kind.SENTINEL,
        (("one", 26379), ("two", 26379)),
        login=Login("", "pw"),
        tls=Tls(),
        master_name="m",
        sentinel_login=Login("u", "s"),
    )
    assert address_of("sentinel://one?master_name=m&ssl_ca_certs=/ca.pem").tls == Tls(ca_certs="/ca.pem")


def test_certificates_are_verified_unless_the_url_says_otherwise() -> None:
    assert address_of("rediss://h?ssl_cert_reqs=CERT_NONE").tls == Tls(verification="none", checks_host=False)
    assert address_of("rediss://h?ssl_check_hostname=False").tls == Tls(checks_host=False)
    files = "ssl_ca_certs=/a&ssl_certfile=/b&ssl_keyfile=/c&ssl_cert_reqs=optional"
    assert address_of(f"rediss://h?{files}").tls == Tls("/a", "/b", "/c", "optional")


names = st.text(ascii_lowercase + "0123456789-", min_size=1, max_size=12).filter(lambda name: not name.startswith("-"))
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
paths = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
hosts = st.tuples(names | st.just("::1"), st.integers(1, 65535))
tls = st.none() | st.builds(
    Tls,
    ca_certs=words,
    certfile=st.just("/c.pem"),
    keyfile=words,
    verification=st.sampled_from(["required", "optional"]),
)
logins = st.builds(Login, words, words)
servers = st.builds(Address, st.just(Kind.SERVER), st.tuples(hosts), db=st.integers(0, 99), login=logins, tls=tls)
sentinels = st.builds(
    Address,
    st.just(Kind.SENTINEL),
    st.lists(hosts, min_size=1, max_size=4).map(tuple),
    db=st.integers(0, 99),
    login=logins,
    tls=tls,
    master_name=words.filter(bool),
    sentinel_login=logins,
)
sockets = st.builds(Address, st.just(Kind.SOCKET), path=paths.map("/".__add__), db=st.integers(0, 99), login=logins)


@given(servers | sentinels | sockets)
def test_an_address_reads_back_from_its_spelling(address: Address) -> None:
    assert address_of(address.url) == address


@given(servers | sentinels | sockets)
def test_a_password_shows_in_no_repr_and_is_known_to_the_redactor(address: Address) -> None:
    named = address.with_password("a-Secret/word")
    assert "a-Secret" not in repr(named)
    assert {"a-Secret/word", "a-Secret%2Fword"} <= set(named.passwords)
    assert address_of(named.url) == named


WRONG = [
    ("host:6379", "is not a Redis URL"),
    ("//SECRET@host", "is not a Redis URL"),
    ("redsi://:SECRET@host/0", "Did you mean redis://?"),
    ("sentinels://:SECRET@host/0", "Did you mean sentinel://?"),
    ("redis://:SECRET@/0", "lacks a host"),
    ("redis://", "lacks a host"),
    ("redis://:SEC/RET@host/0", "In a password write"),
    ("redis://:SEC?RET@host/0", "In a password write"),
    ("redis://:SEC#RET@host/0", "In a password write"),
    ("redis://host/0#SECRET", "has a #"),
    ("redis://[::1/0", "cannot be taken apart"),
    ("redis://:SECRET@host:port/0", "a port is no number"),
    ("redis://:SECRET@host/SECRET", "number of a database"),
    ("redis://:SECRET@one,two/0", "several hosts with commas"),
    ("redis://:SECRET@one;redis://two/0", "Sentinels"),
    ("redis://host/0?ssl_ca_certs=/SECRET", "Write rediss://"),
    ("rediss://host/0?ssl_ca_cert=/SECRET", "Did you mean ssl_ca_certs?"),
    ("rediss://host/0?ssl_cert_reqs=SECRET", "Write required"),
    ("rediss://host/0?ssl_check_hostname=SECRET", "neither true nor false"),
    ("rediss://host/0?ssl_keyfile=/SECRET", "without ssl_certfile"),
    ("unix://SECRET/run.sock", "three slashes"),
    ("unix:///run.sock?db=SECRET", "number of a database"),
    ("sentinel://:SECRET@one;sentinel://two/0", "lacks the name"),
    ("sentinel://:SECRET@one;sentinel://two/0?master_name=", "lacks the name"),
    ("sentinel://one;sentinel://two/0?mastername=SECRET", "Did you mean master_name?"),
    ("sentinel://:SECRET@one,two/0?master_name=m", "several hosts with commas"),
    ("sentinel://:SECRET@one;two:26379/0?master_name=m", "does not begin as the first one"),
    ("sentinel://:SEC;RET@one/0?master_name=m", "; as %3B"),
    ("sentinel://:SECRET@one;sentinel://:SECRET2@two/0?master_name=m", "different logins"),
    ("sentinel://one/1;sentinel://two/2?master_name=m", "different databases"),
    ("sentinel://one?master_name=SECRET;sentinel://two?master_name=SECRET2", "says master_name twice"),
    ("sentinel://one?master_name=m&ssl=false&ssl_ca_certs=/SECRET", "beside ssl=false"),
    ("redis+cluster://:SECRET@one", "Celery has no broker of that kind"),
    ("rediscluster://:SECRET@one,two", "Celery has no broker of that kind"),
    (" ", "is not a Redis URL"),
]


@pytest.mark.parametrize(("url", "told"), WRONG)
def test_what_is_wrong_is_told_with_what_to_write_and_shows_nothing_of_it(url: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        address_of(url)
    [problem] = refused.value.problems
    assert problem.startswith("REDIS_URL: ")
    assert told in problem
    assert not re.search("SEC|RET", problem)


@given(st.text(max_size=40) | st.from_regex(r"(redis|rediss|unix|sentinel)://[ -~]{0,40}", fullmatch=True))
def test_any_text_is_an_address_or_refused_in_words(text: str) -> None:
    problems = []
    try:
        address = address_of(text)
    except ConfigurationError as error:
        problems = error.problems
    else:
        assert address_of(address.url) == address
        connect(text)
    assert all(problem.startswith("REDIS_URL: ") for problem in problems)
