"""What the model claims about the change, before and after it is anchored to lines."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from worker.core.diff.model import Side


class Severity(StrEnum):
    """How bad it is if the finding is true; the order of the members is the rank, worst first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 is the worst."""
        return list(Severity).index(self)


CATEGORIES = (
    "bug",
    "security",
    "data-loss",
    "concurrency",
    "performance",
    "resource-leak",
    "error-handling",
    "compatibility",
    "api",
    "test",
    "other",
)
"""The closed list of what a finding may be about; what is none of them is "other"."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One item of an answer, as the model wrote it, types checked and nothing else."""

    file: str
    """The file's short id in the request ("F3"), or whatever the model wrote in its place."""
    line: int | None
    end_line: int | None
    quote: str
    severity: Severity
    category: str
    title: str
    body: str
    suggestion: str | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Anchor:
    """Lines a comment may stand at: checked against the hunks, within one hunk, on one side."""

    path: str
    side: Side
    start_line: int
    line: int
    """The last line; equal to `start_line` for a single one. Both count from 1 on their side."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim in its place. `anchor` is None when no line could be proven; `path` is then a hint."""

    path: str
    anchor: Anchor | None
    severity: Severity
    category: str
    title: str
    body: str
    quote: str
    fingerprint: str
    """Stable over re-runs and rebases: path, normalised code, category and identifiers, not the line."""
    suggestion: str | None = None
    confidence: float | None = None
