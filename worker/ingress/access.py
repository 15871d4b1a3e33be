"""Who may see and ask for what: the bearer token `API_TOKEN`."""

from __future__ import annotations

import base64
import binascii
import hmac

from pydantic import SecretStr
from starlette.requests import Request


def is_bearer(request: Request, token: SecretStr | None) -> bool:
    """Whether the caller sent `Authorization: Bearer API_TOKEN`; nobody did while there is no token."""
    scheme, _, sent = request.headers.get("authorization", "").partition(" ")
    return token is not None and scheme.lower() == "bearer" and _same(sent.strip(), token)


def may_read(request: Request, token: SecretStr | None) -> bool:
    """The same for pages that only show something: there a browser's own login (Basic, any name) will do too.

    Not for calls that change something: a browser sends a Basic login along with other sites' requests.
    """
    if is_bearer(request, token):
        return True
    scheme, _, sent = request.headers.get("authorization", "").partition(" ")
    if token is None or scheme.lower() != "basic":
        return False
    try:
        login = base64.b64decode(sent, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return False
    return _same(login.partition(":")[2], token)


def _same(sent: str, token: SecretStr) -> bool:
    return hmac.compare_digest(sent.encode("utf-8", "surrogateescape"), token.get_secret_value().encode())
