"""Which Redis a REDIS_URL names: the one place that knows the kinds there are and takes the URL apart."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal, TypeAlias, TypeVar
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from worker.core.errors import ConfigurationError


class Kind(StrEnum):
    """What a URL leads to."""

    SERVER = "server"
    SOCKET = "socket"
    SENTINEL = "sentinel"
    """Several Sentinels, who are asked which server is the master now."""


Verification: TypeAlias = Literal["required", "optional", "none"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Login:
    """Either may be empty: nobody asks for it."""

    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths are empty where the system's own authorities, and no certificate of ours, are meant."""

    ca_certs: str = ""
    certfile: str = ""
    keyfile: str = ""
    verification: Verification = "required"
    checks_host: bool = True

    @property
    def files(self) -> Mapping[str, str]:
        """Option → path, of those that are named."""
        named = {"ssl_ca_certs": self.ca_certs, "ssl_certfile": self.certfile, "ssl_keyfile": self.keyfile}
        return {option: path for option, path in named.items() if path}


@dataclass(frozen=True, slots=True)
class Address:
    """`hosts` are the server's, or the Sentinels', each with its port; `path` is a Unix socket's."""

    kind: Kind
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    db: int = 0
    login: Login = Login()
    """For the server, and for a master that Sentinels name."""
    tls: Tls | None = None
    """For the server; with Sentinels for both them and the master."""
    master_name: str = ""
    sentinel_login: Login = Login()

    @property
    def url(self) -> str:
        """The address in its one spelling; `address_of` reads it back."""
        if self.kind is Kind.SOCKET:
            return f"unix://{spelt_login(self.login)}{quote(self.path)}?db={self.db}"
        options = "&".join(f"{name}={quote(value, safe='')}" for name, value in self._options())
        query = f"?{options}" if options else ""
        if self.kind is Kind.SERVER:
            [host] = self.hosts
            return f"{'rediss' if self.tls else 'redis'}://{spelt_login(self.login)}{spelt_host(host)}/{self.db}{query}"
        first, *others = (f"{spelt_host(host)}/{self.db}" for host in self.hosts)
        return f"{';'.join(f'sentinel://{part}' for part in (spelt_login(self.login) + first, *others))}{query}"

    @property
    def passwords(self) -> tuple[str, ...]:
        """For the redactor: plain, and as they stand in a URL."""
        plain = [login.password for login in (self.login, self.sentinel_login) if login.password]
        return tuple(dict.fromkeys([*plain, *(quote(one, safe="") for one in plain)]))

    def with_password(self, password: str) -> Address:
        return replace(self, login=replace(self.login, password=password))

    def _options(self) -> Iterable[tuple[str, str]]:
        if self.kind is Kind.SENTINEL:
            yield "master_name", self.master_name
            if self.sentinel_login.username:
                yield "sentinel_username", self.sentinel_login.username
            if self.sentinel_login.password:
                yield "sentinel_password", self.sentinel_login.password
        if self.tls is not None:
            if self.kind is Kind.SENTINEL:
                yield "ssl", "true"
            yield from self.tls.files.items()
            if self.tls.verification != "required":
                yield "ssl_cert_reqs", self.tls.verification
            if not self.tls.checks_host:
                yield "ssl_check_hostname", "false"


SCHEMES = {
    "redis": Kind.SERVER,
    "rediss": Kind.SERVER,
    "unix": Kind.SOCKET,
    "redis+socket": Kind.SOCKET,  # as Celery spells it
    "sentinel": Kind.SENTINEL,
}
PORTS = {Kind.SERVER: 6379, Kind.SENTINEL: 26379}

TLS_OPTIONS = ("ssl_ca_certs", "ssl_cert_reqs", "ssl_check_hostname", "ssl_certfile", "ssl_keyfile")
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "redis": (),
    "rediss": TLS_OPTIONS,
    "unix": ("db",),
    "redis+socket": ("db", "virtual_host"),
    "sentinel": ("master_name", "sentinel_username", "sentinel_password", "ssl", *TLS_OPTIONS),
}
VERIFICATIONS: Mapping[str, Verification] = {
    "required": "required",
    "optional": "optional",
    "none": "none",
    # As Celery's documents write them.
    "CERT_REQUIRED": "required",
    "CERT_OPTIONAL": "optional",
    "CERT_NONE": "none",
}
BOOLEANS = {"true": True, "false": False}

SENTINEL_FORM = "sentinel://HOST1:26379;sentinel://HOST2:26379;sentinel://HOST3:26379/0?master_name=NAME"
FORMS = f"Write redis://HOST:6379/0, rediss://… for TLS, unix:///PATH, or {SENTINEL_FORM}."
ENCODE = "In a password write @ as %40, / as %2F, ? as %3F, # as %23, ; as %3B."
NO_CLUSTER = (
    "REDIS_URL: names a Redis Cluster, and Celery has no broker of that kind."
    " Name one server (redis://, rediss://), or Sentinels for one that fails over (sentinel://)."
)


def address_of(url: str) -> Address:
    """Take `url` apart. Raises `ConfigurationError`, whose words show nothing of it: any part may be the password."""
    first, *others = (_split(part.strip()) for part in url.strip().rstrip(";").split(";"))
    parts = [first, *others]
    if "cluster" in first.scheme:
        raise ConfigurationError([NO_CLUSTER])
    kind = SCHEMES.get(first.scheme)
    if kind is None:
        near = difflib.get_close_matches(first.scheme, SCHEMES, n=1, cutoff=0.7)
        raise _wrong(f"is not a Redis URL.{f' Did you mean {near[0]}://?' if near else ''} {FORMS}")
    if any(part.scheme != first.scheme for part in others):
        raise _wrong(f"has a part between semicolons that does not begin as the first one. {FORMS} {ENCODE}")
    if others and kind is not Kind.SENTINEL:
        raise _wrong(f"names several servers. Write one, or their Sentinels: {SENTINEL_FORM}. {ENCODE}")
    options = _options(parts)
    if kind is Kind.SOCKET:
        return _socket(first, options)
    address = Address(
        kind=kind,
        hosts=tuple(_host(part, PORTS[kind]) for part in parts),
        db=_agreed("databases", [_db(part.path.removeprefix("/")) for part in parts if part.path.strip("/")]) or 0,
        login=_agreed("logins", [_login(part) for part in parts if "@" in part.netloc]) or Login(),
        tls=_tls(first.scheme, options),
    )
    return address if kind is Kind.SERVER else _with_master(address, options)


def spelt_login(login: Login) -> str:
    """`user:password@`, or nothing."""
    if login == Login():
        return ""
    password = f":{quote(login.password, safe='')}" if login.password else ""
    return f"{quote(login.username, safe='')}{password}@"


def spelt_host(host: tuple[str, int]) -> str:
    """`name:port`."""
    name, port = host
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _wrong(problem: str) -> ConfigurationError:
    return ConfigurationError([f"REDIS_URL: {problem}"])


def _split(part: str) -> SplitResult:
    try:
        found = urlsplit(part)
        _ = found.port
    except ValueError:
        raise _wrong(f"cannot be taken apart: a port is no number, or a bracket is missing. {ENCODE}") from None
    if found.fragment:
        raise _wrong(f"has a # in it. {ENCODE}")
    return found


def _options(parts: Iterable[SplitResult]) -> dict[str, str]:
    """All options, whichever part they stand behind."""
    found: dict[str, str] = {}
    for part in parts:
        known = OPTIONS[part.scheme]
        for name, value in parse_qsl(part.query, keep_blank_values=True):
            if name not in known:
                raise _wrong(_unknown_option(part.scheme, name))
            if found.setdefault(name, value) != value:
                raise _wrong(f"says {name} twice, and not the same.")
    return found


def _unknown_option(scheme: str, name: str) -> str:
    if scheme == "redis" and name.startswith("ssl"):
        return "has options for TLS, and redis:// speaks none. Write rediss://."
    known = OPTIONS[scheme]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    told = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(known)}." if known else "None is known."
    return f"has an option behind its ? that is not known for {scheme}://. {told} {ENCODE}"


def _agreed(what: str, said: list[_T]) -> _T | None:
    """What all parts that speak of it say."""
    if len(set(said)) > 1:
        raise _wrong(f"names different {what} for its parts. Write it once, or the same for each.")
    return said[0] if said else None


def _login(part: SplitResult) -> Login:
    return Login(unquote(part.username or ""), unquote(part.password or ""))


def _host(part: SplitResult, default_port: int) -> tuple[str, int]:
    host = unquote(part.hostname or "")
    if not host:
        raise _wrong(f"lacks a host. {FORMS}")
    if "," in part.netloc.rpartition("@")[2]:
        raise _wrong(f"names several hosts with commas. Write {SENTINEL_FORM}.")
    return host, part.port or default_port


def _db(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise _wrong(f"does not end in the number of a database, such as /0. {ENCODE}")
    return int(text)


def _socket(part: SplitResult, options: Mapping[str, str]) -> Address:
    if part.hostname or len(part.path) < 2:
        raise _wrong("lacks the path of a socket. Write unix:///PATH, with three slashes.")
    db = options.get("db") or options.get("virtual_host") or "0"
    return Address(Kind.SOCKET, path=unquote(part.path), db=_db(db.removeprefix("/")), login=_login(part))


def _with_master(address: Address, options: Mapping[str, str]) -> Address:
    name = options.get("master_name", "")
    if not name:
        raise _wrong(f"lacks the name under which the Sentinels watch the master. Write {SENTINEL_FORM}.")
    login = Login(options.get("sentinel_username", ""), options.get("sentinel_password", ""))
    return replace(address, master_name=name, sentinel_login=login)


def _tls(scheme: str, options: Mapping[str, str]) -> Tls | None:
    named = [name for name in TLS_OPTIONS if name in options]
    if scheme != "rediss" and not _boolean("ssl", options, default=bool(named)):
        if named:
            raise _wrong("has options for TLS beside ssl=false. Remove the one or the other.")
        return None
    verification = VERIFICATIONS.get(options.get("ssl_cert_reqs", "required"))
    if verification is None:
        raise _wrong("says for ssl_cert_reqs what is not known. Write required, or none for no check of certificates.")
    if (not options.get("ssl_certfile")) and options.get("ssl_keyfile"):
        raise _wrong("names ssl_keyfile without ssl_certfile. Name the certificate too.")
    return Tls(
        ca_certs=options.get("ssl_ca_certs", ""),
        certfile=options.get("ssl_certfile", ""),
        keyfile=options.get("ssl_keyfile", ""),
        verification=verification,
        checks_host=verification != "none" and _boolean("ssl_check_hostname", options, default=True),
    )


def _boolean(name: str, options: Mapping[str, str], *, default: bool) -> bool:
    if name not in options:
        return default
    said = BOOLEANS.get(options[name].lower())
    if said is None:
        raise _wrong(f"says for {name} neither true nor false.")
    return said
