"""A change (pull or merge request) by name, and what its forge says about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal


@dataclass(frozen=True, slots=True)
class ChangeRef:
    """Names one change on one forge. `forge` is a row of `FORGES`, or "local" for a command-line review."""

    forge: str
    repository: str
    """As the forge names it: `owner/name`, for GitLab with its groups."""
    number: int

    def __str__(self) -> str:
        return f"{self.forge}:{self.repository}#{self.number}"


@dataclass(frozen=True, slots=True)
class Change:
    """What the forge says about a change now. Every text here was written by a stranger."""

    ref: ChangeRef
    head: str
    """Full SHA of the head revision."""
    base: str
    """Full SHA of the tip of the branch it shall go into; the merge base is ours to find."""
    base_branch: str = ""
    title: str = ""
    description: str = ""
    author: str = ""
    state: Literal["open", "closed", "merged"] = "open"
    is_draft: bool = False
    is_locked: bool = False
    is_archived: bool = False
    """Whether its repository is read-only for everybody."""
    is_fork: bool = False
    is_bot: bool = False
    url: str = ""
    updated_at: datetime | None = None
    """When something last happened to it, aware; None where the forge did not say."""
    repository_id: str = ""
    """What the forge calls the repository under every name that it is given; empty where it did not say."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The change as git has it: the bytes of one diff and the two commits between which it stands."""

    head: str
    """Full SHA; for a diff read from a file, empty."""
    base: str
    """Full SHA of the merge base; for a diff read from a file, empty."""
    diff: bytes
    """What `git diff` wrote, without colours, external programs or text conversion."""
    cut: tuple[tuple[str, str, int], ...] = ()
    """What the source itself left out: (path, reason, lines); 0 lines where nobody could count them."""
