"""What the strict GitHub holds: pull requests, what was posted on them, and the faults that tests script."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LOGIN = "kimi-review-bot"


@dataclass(slots=True)
class PostedComment:
    """One comment at lines of the diff."""

    id: int
    path: str
    side: str
    line: int | None
    start_line: int | None
    body: str
    commit: str
    author: str = LOGIN


@dataclass(slots=True)
class PostedReview:
    id: int
    state: str
    body: str
    commit: str
    comments: list[PostedComment]
    author: str = LOGIN


@dataclass(slots=True)
class Pull:
    repository: str
    number: int
    heads: list[str]
    base: str
    base_branch: str = "main"
    title: str = "A change"
    body: str = ""
    author: str = "alice"
    author_type: str = "User"
    state: str = "open"
    merged: bool = False
    draft: bool = False
    locked: bool = False
    is_fork: bool = False
    updated_at: str = "2026-01-01T00:00:00Z"
    reviews: list[PostedReview] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def head(self) -> str:
        return self.heads[-1]


@dataclass(slots=True)
class Fault:
    """What goes wrong with requests of `method` whose path matches `path`."""

    method: str
    path: str
    status: int | None = None
    """Answered in place of the truth; None closes the connection without an answer."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: object = None
    """JSON, or bytes as they are."""
    times: int = 1
    after: int = 0
    """How many matching requests pass first."""
    acts: bool = False
    """Do the work before answering wrongly: the time-out after the server accepted."""
    hang_s: float = 0.0

    def takes(self, method: str, path: str) -> bool:
        if self.times <= 0 or method != self.method or re.search(self.path, path) is None:
            return False
        if self.after > 0:
            self.after -= 1
            return False
        self.times -= 1
        return True


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    def __init__(self, status: int, message: str, errors: list[str] | None = None) -> None:
        super().__init__(message)
        self.answer = Answer(status, {"message": message, **({"errors": errors} if errors else {})})
