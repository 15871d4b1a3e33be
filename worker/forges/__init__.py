"""All forges that exist, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from worker.core.delivery import Delivery, Ignored
from worker.forges.access import Access
from worker.forges.github import client as github_client
from worker.forges.github import webhook as github_webhook
from worker.ports import Clock, Forge


class Webhook(Protocol):
    """A forge's `webhook.py`. Header names are lower case, or looked up without regard to case."""

    def verify(self, headers: Mapping[str, str], body: bytes, *, secret: str) -> None:
        """Raises `NotSigned` unless the call is the forge's; looks at the raw bytes alone."""

    def parse(self, headers: Mapping[str, str], body: bytes) -> Delivery | Ignored:
        """What a verified call asks for. Raises `BadInput`."""


@dataclass(frozen=True, slots=True)
class ForgeRow:
    """What the program knows of one forge."""

    title: str
    """As its makers write it, for messages."""
    webhook: Webhook
    open: Callable[[Access, Clock], AbstractAsyncContextManager[Forge]]
    """A client for one event loop: `async with row.open(access, clock) as forge`."""
    settings_prefix: str
    """Of its settings: `GITHUB_` of `GITHUB_TOKEN`."""


FORGES: Mapping[str, ForgeRow] = {
    "github": ForgeRow(
        title="GitHub",
        webhook=github_webhook,
        open=github_client.GitHubClient,
        settings_prefix="GITHUB_",
    ),
}
"""Name (in `ChangeRef.forge` and in `/webhooks/<name>`) → its row. A forge is its folder and its row here."""
