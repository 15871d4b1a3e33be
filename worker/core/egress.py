"""By which proxy of the environment a request leaves, if by any: the one place where that is decided.

Libraries decide it each in their own way (networks in `NO_PROXY`, loopback, a proxy without a port: httpx and libcurl
differ in all three), so none of them is asked: they are handed what this says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import SplitResult, quote, unquote, urlsplit

SETTING = "USE_ENV_PROXIES"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """`variable` is the one of the environment that named it; `url` may hold a login."""

    variable: str
    url: str = field(repr=False)

    @property
    def where(self) -> str:
        """`host:port`, without the login; nothing of an address that cannot be read, any part of which may be one."""
        return urlsplit(self.url).netloc.rpartition("@")[2] if self.is_usable else "[no address]"

    @property
    def is_usable(self) -> bool:
        parts = url_parts(self.url)
        if parts is None or parts.scheme not in _PORTS or not parts.hostname:
            return False
        # A password with a slash that is not encoded would part the address in the wrong place.
        return parts.path in ("", "/") and not parts.query and not parts.fragment

    @property
    def secrets(self) -> tuple[str, ...]:
        """For the redactor: the password as it stands in the URL, decoded, and as it may be spelt again."""
        if not self.is_usable:
            return (self.url,) if "@" in self.url else ()
        spelt = urlsplit(self.url).password or ""
        plain = unquote(spelt)
        return tuple(dict.fromkeys([spelt, plain, quote(plain, safe="")])) if spelt else ()


@dataclass(frozen=True, slots=True)
class Egress:
    """The environment's proxies, for `http://` and for `https://` addresses, and whether the operator allows them.

    `exempt` holds the entries of `NO_PROXY`: `*`, a domain with all below it, `host:port`, an address, or a network
    such as 10.0.0.0/8.
    """

    http: Proxy | None = None
    https: Proxy | None = None
    exempt: tuple[str, ...] = ()
    is_allowed: bool = False

    def proxy_for(self, url: str) -> Proxy | None:
        """The proxy that a request to `url` goes through; None: it goes directly."""
        return self._named_for(url) if self.is_allowed else None

    def remark(self, url: str) -> str:
        """For the end of a sentence about a connection that failed; empty where no proxy concerns `url`."""
        proxy = self._named_for(url)
        if proxy is None:
            return ""
        if self.is_allowed:
            return f" (by the proxy {proxy.where} of {proxy.variable})"
        return f" ({proxy.variable} is set and not used: {SETTING}=true uses it)"

    @property
    def proxies(self) -> tuple[Proxy, ...]:
        return tuple(dict.fromkeys(proxy for proxy in (self.https, self.http) if proxy is not None))

    @property
    def secrets(self) -> tuple[str, ...]:
        """For the redactor, whether the proxies are allowed or not."""
        return tuple(secret for proxy in self.proxies for secret in proxy.secrets)

    def problems(self) -> Iterator[str]:
        """A line for each proxy that is allowed and cannot be used, without its value."""
        for proxy in self.proxies if self.is_allowed else ():
            if not proxy.is_usable:
                yield (
                    f"{proxy.variable}: is no address of an HTTP proxy. Write http://HOST:PORT, with a login"
                    f" http://NAME:PASSWORD@HOST:PORT (@ in it as %40, / as %2F), or set {SETTING}=false."
                )

    def _named_for(self, url: str) -> Proxy | None:
        parts = url_parts(url)
        if parts is None or not parts.hostname:
            return None
        proxy = self.https if parts.scheme == "https" else self.http
        # What listens on this machine is nobody else's business, and a proxy's loopback is another machine's.
        if proxy is None or is_loopback(parts.hostname):
            return None
        port = parts.port or _PORTS.get(parts.scheme)
        return None if any(_covers(entry, parts.hostname, port) for entry in self.exempt) else proxy


DIRECT = Egress()
"""Without any proxy."""


def egress_of(environ: Mapping[str, str], *, is_allowed: bool) -> Egress:
    """Read HTTPS_PROXY, HTTP_PROXY, ALL_PROXY (for both) and NO_PROXY; in small letters they go first, as in curl."""
    return Egress(
        http=_named(environ, "HTTP_PROXY", "ALL_PROXY"),
        https=_named(environ, "HTTPS_PROXY", "ALL_PROXY"),
        exempt=tuple(entry for entry in _value(environ, "NO_PROXY").replace(",", " ").lower().split() if entry),
        is_allowed=is_allowed,
    )


def url_parts(url: str) -> SplitResult | None:
    """None for what cannot be taken apart: a port that is no number, half an IPv6 address."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine and no other: `127.0.0.1.example.org` is somebody else's."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _named(environ: Mapping[str, str], *variables: str) -> Proxy | None:
    for variable in variables:
        if url := _value(environ, variable):
            return Proxy(variable, _spelt_out(url if "://" in url else f"http://{url}"))
    return None


def _spelt_out(url: str) -> str:
    """`url` with its port: without one httpx takes the scheme's, and libcurl 1080."""
    parts = url_parts(url)
    if parts is None or parts.port is not None or parts.scheme not in _PORTS or not parts.hostname:
        return url
    return parts._replace(netloc=f"{parts.netloc.rstrip(':')}:{_PORTS[parts.scheme]}").geturl()


def _value(environ: Mapping[str, str], variable: str) -> str:
    return (environ.get(variable.lower(), "") or environ.get(variable, "")).strip()


def _covers(entry: str, host: str, port: int | None) -> bool:
    """Whether `entry` of NO_PROXY stands for `host`."""
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return ip_address(host) in ip_network(entry, strict=False)
        except ValueError:
            return False
    if entry.count(":") == 1 or entry.startswith("["):
        name, colon, stated = entry.removeprefix("[").partition("]:" if entry.startswith("[") else ":")
        if colon and stated != str(port):
            return False
        entry = name.rstrip("]")
    name = entry.lstrip("*.")
    return bool(name) and (host == name or host.endswith(f".{name}"))
