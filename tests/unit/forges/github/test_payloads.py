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


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ({"state": "open"}, "open"),
        ({"state": "closed"}, "closed"),
        ({"state": "closed", "merged": True}, "merged"),
        ({"state": "closed", "merged_at": "2026-11-22T05:00:00Z"}, "merged"),
    ],
)
def test_a_merged_change_is_told_from_one_that_was_closed(said: dict[str, Any], state: str) -> None:
    end = {"sha": "a" * 40, "ref": "main", "repo": None}
    read = PullRequest.model_validate({"number": 7, "head": end, "base": end, **said})
    assert read.change(ChangeRef("github", "acme/shop", 7)).state == state


def test_title_and_description_are_those_of_the_change_and_an_absent_one_is_empty() -> None:
    end = {"sha": "a" * 40, "ref": "main", "repo": None}
    said = {"number": 7, "state": "open", "head": end, "base": end, "title": "Sum up", "body": "Why: rounding."}
    change = PullRequest.model_validate(said).change(ChangeRef("github", "acme/shop", 7))
    assert (change.title, change.description) == ("Sum up", "Why: rounding.")
    assert pull(None).change(ChangeRef("github", "acme/shop", 7)).description == ""
