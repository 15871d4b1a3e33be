"""What one webhook call asks for, in no forge's words, and whether we want to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from worker.core.change import ChangeRef


@dataclass(frozen=True, slots=True)
class Delivery:
    """A call that concerns a change. Only names and numbers are taken from the payload, never a URL."""

    id: str
    """The forge's id of the call; a redelivery has the same one. A hint, not a key."""
    event: str
    """The forge's own name of what happened, for the log: "pull_request.opened"."""
    ref: ChangeRef
    head: str
    """Full SHA."""
    is_draft: bool = False
    is_fork: bool = False
    is_bot: bool = False
    """Whether the change's author or the sender is a program."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A call that asks for nothing; answered with 200 so that the forge keeps calling."""

    reason: str
    """In words, the same words for the same reason: they are counted."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Which deliveries become jobs. `repositories` are globs over `owner/name`; `*` does not cross a slash."""

    repositories: tuple[str, ...] = ("*/*",)
    drafts: bool = False
    forks: bool = True
    bots: bool = False


def allows(repository: str, globs: Sequence[str]) -> bool:
    """Whether `repository` matches one of `globs`, part by part, in any case of letters; `**` stands for any parts."""
    parts = repository.lower().split("/")
    return any(_matches(parts, glob.lower().split("/")) for glob in globs)


def refusal(delivery: Delivery, policy: Policy) -> Ignored | None:
    """Why `delivery` does not become a job; None when it does."""
    if not allows(delivery.ref.repository, policy.repositories):
        return Ignored("repository not allowed")
    if delivery.is_bot and not policy.bots:
        return Ignored("author is a bot")
    if delivery.is_draft and not policy.drafts:
        return Ignored("draft")
    if delivery.is_fork and not policy.forks:
        return Ignored("change from a fork")
    return None


def _matches(parts: Sequence[str], glob: Sequence[str]) -> bool:
    if not glob:
        return not parts
    if glob[0] == "**":
        return any(_matches(parts[taken:], glob[1:]) for taken in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], glob[0]) and _matches(parts[1:], glob[1:])
