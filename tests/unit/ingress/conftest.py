"""One site per test."""

from __future__ import annotations

import pytest

from tests.unit.ingress.world import World


@pytest.fixture
def world() -> World:
    return World()
