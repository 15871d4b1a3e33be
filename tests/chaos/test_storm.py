"""The short storm; `make chaos` runs the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.storm import Plan, Storm


@pytest.mark.chaos
def test_a_short_storm_loses_nothing_and_does_nothing_twice(tmp_path: Path) -> None:
    outcome = Storm(Plan(seed=7, changes=24, blow_every_s=1.5, lease_s=6.0, limit_s=240), tmp_path).rage()
    print(outcome.text())
    assert outcome.wrong == []
    assert outcome.reviews >= outcome.changes
