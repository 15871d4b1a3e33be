"""What a forge's client needs to be let in: from configuration, never from a payload."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from worker.core.egress import DIRECT, Egress


@dataclass(frozen=True, slots=True)
class Token:
    """A credential that ends by itself. `expires_at` in Unix seconds by the forge's clock."""

    value: str = field(repr=False)
    expires_at: float


class TokenCache:
    """Short-lived tokens of one process, shared by its threads: every review has an event loop of its own."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}
        self._lock = threading.Lock()

    def get(self, key: str, *, good_until: float) -> Token | None:
        """The token of `key` if it is still good at `good_until` (Unix seconds)."""
        with self._lock:
            token = self._tokens.get(key)
            return token if token is not None and token.expires_at > good_until else None

    def put(self, key: str, token: Token) -> None:
        with self._lock:
            self._tokens[key] = token

    def forget(self, key: str) -> None:
        with self._lock:
            self._tokens.pop(key, None)


@dataclass(frozen=True, slots=True)
class Access:
    """One forge's host and credentials: a token, or an app's id and key. Keep one for the process."""

    url: str
    """Where git reads, without a slash at the end: `https://github.com`."""
    api_url: str
    """Base of the API, without a slash at the end: `https://api.github.com`."""
    marker_key: bytes = field(repr=False)
    """Signs what we post (`core/marker.py`)."""
    token: str | None = field(default=None, repr=False)
    app_id: str | None = None
    app_private_key: str | None = field(default=None, repr=False)
    """PEM."""
    egress: Egress = DIRECT
    """How requests to the API leave."""
    timeout_s: float = 20.0
    """For one request, connect included; must end well before a job's lease does."""
    tokens: TokenCache = field(default_factory=TokenCache, repr=False, compare=False)
