"""HTTP to the outside: one way to open a client, for every forge and every provider."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import cache

import httpx

from worker.core.egress import Egress
from worker.core.errors import ConfigurationError


def open_client(
    base_url: str, *, headers: Mapping[str, str], timeout: httpx.Timeout | float, egress: Egress
) -> httpx.AsyncClient:
    """A client for what lies below `base_url`. It follows no redirect, and leaves as `egress` says for that address.

    Raises `ConfigurationError` as `tls` does.
    """
    proxy = egress.proxy_for(base_url)
    return httpx.AsyncClient(
        headers=headers,
        timeout=timeout,
        follow_redirects=False,
        verify=tls(),
        proxy=None if proxy is None else _proxy(proxy.url),
        # Else, where `egress` names none, it would look for one in the environment by itself.
        trust_env=False,
    )


@cache
def tls() -> ssl.SSLContext:
    """One for the process: building it reads every certificate. SSL_CERT_FILE, else SSL_CERT_DIR, names others.

    Raises `ConfigurationError` when they name none.
    """
    try:
        return httpx.create_ssl_context(trust_env=True)
    except OSError as error:  # TLS errors are among them
        why = error.strerror or type(error).__name__
        raise ConfigurationError(
            [
                f"SSL_CERT_FILE: holds no certificates that can be read ({why}). Name a PEM file with every authority"
                " to trust, or leave it empty for the public ones."
            ]
        ) from None


def proxy_status(error: Exception) -> int | None:
    """The HTTP status by which a proxy refused to make a way; None for any other error."""
    # httpx gives it as text alone: "407 Proxy Authentication Required".
    first = str(error).partition(" ")[0] if isinstance(error, httpx.ProxyError) else ""
    return int(first) if first.isascii() and first.isdigit() else None


def _proxy(url: str) -> httpx.Proxy:
    # Of a proxy that is spoken to in the clear httpx takes no context.
    return httpx.Proxy(url, ssl_context=tls() if url.startswith("https:") else None)
