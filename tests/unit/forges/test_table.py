"""The table of forges is closed: each folder has its row, its files and its settings."""

from __future__ import annotations

from pathlib import Path

import pytest

import worker.forges
from worker.forges import FORGES
from worker.settings import Settings

FOLDERS = {path.parent.name for path in Path(worker.forges.__file__).parent.glob("*/__init__.py")}


def test_every_folder_has_a_row_and_every_row_a_folder() -> None:
    assert {name.replace("-", "_") for name in FORGES} == FOLDERS


@pytest.mark.parametrize("name", FORGES)
def test_every_forge_has_the_same_three_files(name: str) -> None:
    folder = Path(worker.forges.__file__).parent / name.replace("-", "_")
    assert {"webhook.py", "client.py", "payloads.py"} <= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", FORGES)
def test_every_forge_has_its_token_and_secret_among_the_settings(name: str) -> None:
    prefix = FORGES[name].settings_prefix.lower()
    assert {f"{prefix}token", f"{prefix}webhook_secret"} <= set(Settings.model_fields)


@pytest.mark.parametrize("name", FORGES)
def test_a_client_has_no_call_for_approve_merge_push_or_close(name: str) -> None:
    calls = {call.lower() for call in dir(FORGES[name].open) if not call.startswith("__")}
    assert not {call for call in calls for word in ("approve", "merge", "push", "close_") if word in call}
