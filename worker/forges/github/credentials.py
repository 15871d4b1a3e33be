"""GitHub's two ways in: a personal token, or an app that mints tokens per installation and repository."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from worker.core.errors import ConfigurationError
from worker.forges.access import Access, Token
from worker.forges.github.payloads import Installation, InstallationToken
from worker.forges.http import BadCredentials

# A token lives an hour; one that ends within minutes could end between our look and git's fetch.
_EARLY_S = 300.0
_SKEW_S = 30.0
"""A clock that is off by less is not why a proof was refused."""
PERMISSIONS = {"contents": "read", "metadata": "read", "pull_requests": "write"}
"""All that an installation's token may do: least privilege even when the app was granted more."""

Call = Callable[[str, str, str, dict[str, Any] | None], Awaitable[Any]]
"""(method, path, bearer, body) → JSON: one request with the given credential and no other."""


class Credentials(Protocol):
    async def token(self, repository: str) -> str:
        """A token that is good for the next minutes, for calls about `repository` (`owner/name`)."""

    def ready(self, repository: str) -> str | None:
        """The same without a request; None when there is none at hand."""

    def rejected(self, repository: str) -> bool:
        """GitHub said 401: forget the token. Whether a new one can be had."""

    async def listings(self) -> list[tuple[str, str]]:
        """Where the repositories that are within reach are listed: (token, path)."""


class PersonalToken:
    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self, repository: str) -> str:
        return self._token

    def ready(self, repository: str) -> str | None:
        return self._token

    def rejected(self, repository: str) -> bool:
        return False

    async def listings(self) -> list[tuple[str, str]]:
        return [(self._token, "/user/repos")]


class App:
    """https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app"""

    def __init__(self, access: Access, call: Call) -> None:
        self._access = access
        self._call = call
        self._skew_s = 0.0

    async def token(self, repository: str) -> str:
        if (ready := self.ready(repository)) is not None:
            return ready
        installation = Installation.model_validate(await self._as_app("GET", f"/repos/{repository}/installation", None))
        minted = await self._minted(
            installation, {"repositories": [repository.partition("/")[2]], "permissions": PERMISSIONS}
        )
        expires_at = datetime.fromisoformat(minted.expires_at.replace("Z", "+00:00")).timestamp()
        self._access.tokens.put(self._key(repository), Token(minted.token, expires_at))
        return minted.token

    def ready(self, repository: str) -> str | None:
        token = self._access.tokens.get(self._key(repository), good_until=time.time() + self._skew_s + _EARLY_S)
        return token.value if token is not None else None

    def rejected(self, repository: str) -> bool:
        self._access.tokens.forget(self._key(repository))
        return True

    async def listings(self) -> list[tuple[str, str]]:
        rows = await self._as_app("GET", "/app/installations?per_page=100", None)
        return [
            (
                (await self._minted(Installation.model_validate(row), {"permissions": {"metadata": "read"}})).token,
                "/installation/repositories",
            )
            for row in rows
        ]

    async def _minted(self, installation: Installation, wish: dict[str, Any]) -> InstallationToken:
        path = f"/app/installations/{installation.id}/access_tokens"
        return InstallationToken.model_validate(await self._as_app("POST", path, wish))

    async def _as_app(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        try:
            return await self._call(method, path, self._jwt(), body)
        except BadCredentials as error:
            skew_s = error.server_time - time.time()
            if abs(skew_s - self._skew_s) < _SKEW_S:
                raise
            # GitHub refuses a proof from another time, so we take over its clock, once.
            self._skew_s = skew_s
            return await self._call(method, path, self._jwt(), body)

    def _jwt(self) -> str:
        now = int(time.time() + self._skew_s)
        # A minute back and at most ten ahead, as GitHub asks.
        claims = {"iat": now - 60, "exp": now + 540, "iss": self._access.app_id}
        signed = f"{_base64({'alg': 'RS256', 'typ': 'JWT'})}.{_base64(claims)}"
        signature = _private_key(self._access.app_private_key or "").sign(signed.encode(), PKCS1v15(), SHA256())
        return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"

    def _key(self, repository: str) -> str:
        return f"{self._access.app_id} {repository.lower()}"


def credentials(access: Access, call: Call) -> Credentials:
    """The way in that the settings name. Raises `ConfigurationError` when they name none."""
    if access.token:
        return PersonalToken(access.token)
    if access.app_id and access.app_private_key:
        _private_key(access.app_private_key)
        return App(access, call)
    raise ConfigurationError(
        ["GITHUB_TOKEN: is not set, nor are GITHUB_APP_ID and GITHUB_APP_PRIVATE_KEY. Set the token or both of them."]
    )


@lru_cache(maxsize=4)
def _private_key(pem: str) -> RSAPrivateKey:
    try:
        # A one-line .env value writes its line ends as \n.
        key = load_pem_private_key(pem.replace("\\n", "\n").encode(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise ConfigurationError(
            ["GITHUB_APP_PRIVATE_KEY: is not an RSA key in PEM. Copy the whole .pem file that GitHub gave you."]
        )
    return key


def _base64(value: dict[str, Any]) -> str:
    raw = json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
