"""A rolling upgrade: two program trees at work on one Redis, each ending what the other one began."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.upgrade.crossing import crossing, killed_between_units, killed_over_a_post, left_until_upgraded
from tests.upgrade.releases import next_record_version, next_release, this_release


def test_what_the_next_release_began_this_one_ends_and_keeps_what_it_does_not_know(
    tmp_path: Path, redis_url: str
) -> None:
    newer, older = next_release(tmp_path / "next"), this_release(tmp_path / "this")
    with crossing(tmp_path / "crossing", redis_url) as scene:
        killed_between_units(scene, newer, older)


@pytest.mark.long
def test_what_this_release_began_the_next_one_ends(tmp_path: Path, redis_url: str) -> None:
    newer, older = next_release(tmp_path / "next"), this_release(tmp_path / "this")
    with crossing(tmp_path / "crossing", redis_url) as scene:
        killed_between_units(scene, older, newer)


@pytest.mark.long
@pytest.mark.parametrize("begins", ["this", "next"])
def test_a_review_that_one_release_posted_with_its_last_breath_is_not_posted_again_by_the_other(
    tmp_path: Path, redis_url: str, begins: str
) -> None:
    newer, older = next_release(tmp_path / "next"), this_release(tmp_path / "this")
    with crossing(tmp_path / "crossing", redis_url) as scene:
        killed_over_a_post(scene, *((older, newer) if begins == "this" else (newer, older)))


@pytest.mark.long
def test_what_only_a_release_with_another_record_version_can_read_waits_for_it_and_says_so(
    tmp_path: Path, redis_url: str
) -> None:
    newer, older = next_record_version(tmp_path / "next"), this_release(tmp_path / "this")
    with crossing(tmp_path / "crossing", redis_url) as scene:
        left_until_upgraded(scene, older, newer)
