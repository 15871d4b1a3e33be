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
    has_new_base: bool = False
    """Whether it tells that the change shall go into another branch than before; its head stays."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A call that asks for nothing; answered with 200 so that the forge keeps calling."""

    reason: str
    """In words, the same words for the same reason: they are counted."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Which deliveries become jobs. Those of programs never do, lest two of them answer each other for ever."""

    repositories: tuple[str, ...] = ()
    """Globs over `owner/name`, as `GITHUB_REPOSITORIES`; empty: all."""
    drafts: bool = False
    forks: bool = True


NOT_ALLOWED = "repository not allowed"
"""The reason for a repository that no glob names, whoever asks."""
_WILD = frozenset("*?[")


def is_pattern(glob: str) -> bool:
    """Whether `glob` may stand for several names, and not for itself alone."""
    return not _WILD.isdisjoint(glob)


def allows(repository: str, globs: Sequence[str]) -> bool:
    """Whether `repository` matches one of `globs`; `*` matches slashes too, upper and lower case are one."""
    return not globs or any(fnmatchcase(repository.lower(), glob.lower()) for glob in globs)


def refusal(delivery: Delivery, policy: Policy) -> Ignored | None:
    """Why `delivery` does not become a job; None when it does."""
    if not allows(delivery.ref.repository, policy.repositories):
        return Ignored(NOT_ALLOWED)
    if delivery.is_bot:
        return Ignored("author is a bot")
    if delivery.is_draft and not policy.drafts:
        return Ignored("draft")
    if delivery.is_fork and not policy.forks:
        return Ignored("change from a fork")
    return None
