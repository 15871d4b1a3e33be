"""Who may come in at the strict GitHub: a personal token, or an app by its signed proof and the tokens it is given."""

from __future__ import annotations

import base64
import hmac
import json
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from tests.fakes.github_records import Refusal, Request

TOKEN = "ghp_falseTokenOfTheTestsWhichOpensNothing1"  # a false secret, planted to be searched for


@dataclass(slots=True)
class GitHubLogins:
    """With `app_key`, the public key of the app `app_id`, that app comes in and the personal token does not."""

    token: str = TOKEN
    app_id: str = ""
    app_key: RSAPublicKey | None = None
    token_life_s: float = 3600.0
    clock_offset_s: float = 0.0
    """How far GitHub's clock is ahead of ours."""
    minted: dict[str, tuple[float, frozenset[str], Mapping[str, str]]] = field(default_factory=dict)
    """Token of an installation → its end in Unix seconds, the repositories it is for, its permissions."""

    def now(self) -> float:
        return time.time() + self.clock_offset_s

    @property
    def basic(self) -> str | None:
        """What git has to send as Authorization; None where an app's tokens come and go."""
        login = base64.b64encode(f"x-access-token:{self.token}".encode()).decode()
        return f"Basic {login}" if self.app_key is None else None

    def admit(self, request: Request, repository: str, permission: str = "metadata", level: str = "read") -> None:
        """Raises `Refusal` unless the caller may do that in `repository`."""
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme not in ("Bearer", "token"):
            raise Refusal(401, "Requires authentication")
        if self.app_key is None and hmac.compare_digest(value, self.token):
            return
        if value not in self.minted or self.minted[value][0] <= self.now():
            raise Refusal(401, "Bad credentials")
        _, repositories, permissions = self.minted[value]
        if repository.partition("/")[2] not in repositories:
            raise Refusal(404, "Not Found")
        granted = permissions.get(permission, "")
        if granted != "write" and granted != level:
            raise Refusal(403, "Resource not accessible by integration")

    def admit_app(self, request: Request) -> None:
        """Raises `Refusal` unless the caller proves to be the app."""
        proof = request.headers.get("authorization", "").removeprefix("Bearer ")
        try:
            head, claims, signature = proof.split(".")
            if self.app_key is None or _unbase64(head)["alg"] != "RS256":
                raise ValueError("no app")
            raw = base64.urlsafe_b64decode(signature + "==")
            self.app_key.verify(raw, f"{head}.{claims}".encode(), PKCS1v15(), SHA256())
            said = _unbase64(claims)
        except (ValueError, KeyError, InvalidSignature):
            raise Refusal(401, "A JSON web token could not be decoded") from None
        if said["iat"] > self.now() or said["exp"] <= self.now() or said["exp"] - said["iat"] > 600:
            raise Refusal(401, "'Expiration time' claim ('exp') must be a numeric value representing the future time")
        if str(said["iss"]) != self.app_id:
            raise Refusal(404, "Integration not found")

    def admit_installation(self, request: Request) -> None:
        """Raises `Refusal` unless the caller has a token of an installation, for whatever repository."""
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.minted:
            raise Refusal(401, "Bad credentials")

    def mint(self, repositories: Iterable[str], permissions: Mapping[str, str]) -> dict[str, Any]:
        """A token for an installation, as GitHub tells of it."""
        token = f"ghs_{uuid.uuid4().hex}"
        expires_at = self.now() + self.token_life_s
        self.minted[token] = (expires_at, frozenset(repositories), permissions)
        at = datetime.fromtimestamp(expires_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"token": token, "expires_at": at, "permissions": permissions}


def _unbase64(part: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=="))
    return value
