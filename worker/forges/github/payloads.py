"""The parts of GitHub's JSON that we read, checked; everything else in it is passed over."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from worker.core.change import Change, ChangeRef

REPOSITORY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})?(?:_[A-Za-z0-9]+)?/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}")
"""`owner/name`. Managed users have `_shortcode` at the end."""

_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def _matching(pattern: re.Pattern[str]) -> AfterValidator:
    def checked(value: str) -> str:
        if pattern.fullmatch(value) is None:
            raise ValueError("not of the expected form")
        return value

    return AfterValidator(checked)


Sha = Annotated[str, _matching(_SHA)]
Repository = Annotated[str, _matching(REPOSITORY)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class User(_Part):
    login: str = ""
    type: str = "User"

    @property
    def is_bot(self) -> bool:
        return self.type == "Bot" or self.login.endswith("[bot]")


class Repo(_Part):
    id: int = 0
    full_name: str
    archived: bool = False


class Revision(_Part):
    """One end of a pull request. `repo` is null when a fork was deleted."""

    sha: Sha
    ref: str = ""
    repo: Repo | None = None


class PullRequest(_Part):
    number: int = Field(ge=1)
    state: Literal["open", "closed"]
    title: str = ""
    body: str | None = None
    draft: bool = False
    locked: bool = False
    merged: bool = False
    merged_at: str | None = None
    html_url: str = ""
    updated_at: AwareDatetime | None = None
    user: User | None = None
    head: Revision
    base: Revision
    changed_files: int | None = None
    additions: int | None = None
    deletions: int | None = None

    @property
    def is_fork(self) -> bool:
        """Also true when the head's repository is gone: nobody can tell any more whose it was."""
        if self.head.repo is None or self.base.repo is None:
            return True
        return self.head.repo.full_name.lower() != self.base.repo.full_name.lower()

    def change(self, ref: ChangeRef) -> Change:
        merged = self.merged or self.merged_at is not None
        return Change(
            ref=self._as_github_writes(ref),
            head=self.head.sha,
            base=self.base.sha,
            base_branch=self.base.ref,
            title=self.title,
            description=self.body or "",
            author=self.user.login if self.user else "",
            state="merged" if merged else self.state,
            is_draft=self.draft,
            is_locked=self.locked,
            is_archived=self.base.repo is not None and self.base.repo.archived,
            is_fork=self.is_fork,
            is_bot=self.user.is_bot if self.user else False,
            url=self.html_url,
            updated_at=self.updated_at,
            repository_id=str(self.base.repo.id) if self.base.repo is not None and self.base.repo.id else "",
        )

    def _as_github_writes(self, ref: ChangeRef) -> ChangeRef:
        """GitHub takes a repository's name in any case; for us two ways to write it would be two changes."""
        name = ref.repository if self.base.repo is None else self.base.repo.full_name
        return replace(ref, repository=name) if name.lower() == ref.repository.lower() else ref


class Post(_Part):
    """A review, a review comment or an issue comment: all we read of each."""

    id: int
    body: str | None = None
    state: str = ""
    """Of a review: PENDING ones are seen by their author alone."""
    user: User | None = None


class ChangedFile(_Part):
    filename: str
    previous_filename: str | None = None
    status: str
    additions: int = 0
    deletions: int = 0
    patch: str | None = None


class InstallationToken(_Part):
    token: str
    expires_at: str


class Installation(_Part):
    id: int


class Comparison(_Part):
    class Commit(_Part):
        sha: Sha

    merge_base_commit: Commit


class PullRequestEvent(_Part):
    """A `pull_request` delivery."""

    class Subject(_Part):
        full_name: Repository

    class Changes(_Part):
        base: dict[str, object] | None = None

    action: str
    # Strict: true would be read as 1.
    number: int = Field(ge=1, le=2**53, strict=True)
    pull_request: PullRequest
    repository: Subject
    sender: User | None = None
    changes: Changes | None = None
