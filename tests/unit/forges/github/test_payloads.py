"""What is read from GitHub's answer for a pull request."""

from __future__ import annotations

from typing import Any

import pytest

from worker.core.change import ChangeRef
from worker.forges.github.payloads import PullRequest


def pull(repository: dict[str, Any] | None) -> PullRequest:
    end = {"sha": "a" * 40, "ref": "main", "repo": repository}
    return PullRequest.model_validate({"number": 7, "state": "open", "head": end, "base": end})


@pytest.mark.parametrize(
    ("asked", "repository", "named"),
    [
        ("Acme/Shop", {"full_name": "acme/shop"}, "acme/shop"),
        ("acme/old", {"full_name": "acme/new"}, "acme/old"),
        ("Acme/Shop", None, "Acme/Shop"),
    ],
)
def test_a_change_has_one_name_in_whatever_case_it_is_asked_for(
    asked: str, repository: dict[str, Any] | None, named: str
) -> None:
    assert pull(repository).change(ChangeRef("github", asked, 7)).ref == ChangeRef("github", named, 7)


def test_an_archived_repository_is_told_by_its_changes() -> None:
    ref = ChangeRef("github", "acme/shop", 7)
    assert pull({"full_name": "acme/shop", "archived": True}).change(ref).is_archived
    assert not pull({"full_name": "acme/shop"}).change(ref).is_archived
