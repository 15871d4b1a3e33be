"""What the HTTP door needs from the program behind it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from pydantic import SecretStr

from worker.bootstrap import Services
from worker.core.delivery import Delivery, Ignored
from worker.core.job import Accepted, Intent
from worker.forges import FORGES
from worker.forges import Webhook as ForgeWebhook
from worker.ingress.vitals import Vitals, vitals_of
from worker.ports import Jobs
from worker.settings import Settings
from worker.storage.health import check_writes

Check = Callable[[], Awaitable[str]]
"""Returns what it found in words, or raises `ReviewError`."""


class Webhook(Protocol):
    """One forge's reading of its own calls, bound to its secret."""

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        """Raises `NotSigned`."""

    def parse(self, headers: Mapping[str, str], body: bytes) -> Delivery | Ignored:
        """Raises `BadInput`."""


@dataclass(frozen=True, slots=True)
class SignedWebhook:
    """A forge's module with the secret of this installation."""

    forge: ForgeWebhook
    secret: SecretStr

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        self.forge.verify(headers, body, secret=self.secret.get_secret_value())

    def parse(self, headers: Mapping[str, str], body: bytes) -> Delivery | Ignored:
        return self.forge.parse(headers, body)


@dataclass(frozen=True, slots=True)
class Site:
    """`checks` are what `/readyz` asks."""

    webhooks: Mapping[str, Webhook]
    """By the forge's name, as in the path `/webhooks/<name>`; a forge that is not configured is absent."""
    accept: Callable[[Delivery], Awaitable[Accepted | Ignored]]
    request: Callable[[Intent], Awaitable[Accepted | Ignored]]
    jobs: Jobs
    api_token: SecretStr | None = None
    provider: Mapping[str, str] = field(default_factory=dict)
    """The provider line's fields: provider, model, host, plan."""
    vitals: Callable[[], Awaitable[Vitals]] | None = None
    """Queues, limits and spending for the status page and the metrics; None where nobody keeps them."""
    checks: Mapping[str, Check] = field(default_factory=dict)


def site_of(services: Services, *, checks: Mapping[str, Check] | None = None) -> Site:
    """The site over `services`; `checks` are added to the one for Redis."""
    installation = services.installation
    return Site(
        webhooks=webhooks_of(installation.settings),
        accept=services.accept,
        request=services.request,
        jobs=services.jobs,
        api_token=installation.settings.api_token,
        provider=installation.endpoint.described(),
        vitals=partial(vitals_of, services),
        checks={"redis": partial(check_writes, services.redis), **(checks or {})},
    )


def webhooks_of(settings: Settings) -> dict[str, Webhook]:
    """The forges whose webhook secret is set."""
    found: dict[str, Webhook] = {}
    for name, row in FORGES.items():
        secret: SecretStr | None = getattr(settings, f"{row.settings_prefix.lower()}webhook_secret")
        if secret is not None:
            found[name] = SignedWebhook(row.webhook, secret)
    return found
