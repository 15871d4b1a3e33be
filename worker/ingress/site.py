"""What the HTTP door needs from the program behind it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import SecretStr

from worker.core.delivery import Delivery, Ignored
from worker.core.job import Accepted, Intent
from worker.ports import Jobs


class Webhook(Protocol):
    """One forge's reading of its own calls, bound to its secret."""

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        """Raises `NotSigned`."""

    def parse(self, headers: Mapping[str, str], body: bytes) -> Delivery | Ignored:
        """Raises `BadInput`."""


@dataclass(frozen=True, slots=True)
class Site:
    """`checks` are what `/readyz` asks: each returns what it found in words, or raises `ReviewError`."""

    webhooks: Mapping[str, Webhook]
    """By the forge's name, as in the path `/webhooks/<name>`; a forge that is not configured is absent."""
    accept: Callable[[Delivery], Awaitable[Accepted | Ignored]]
    request: Callable[[Intent], Awaitable[Accepted | Ignored]]
    jobs: Jobs
    api_token: SecretStr | None = None
    provider: Mapping[str, str] = field(default_factory=dict)
    """The provider line's fields: provider, model, host, plan."""
    checks: Mapping[str, Callable[[], Awaitable[str]]] = field(default_factory=dict)
