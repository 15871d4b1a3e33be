"""Rows of `check` that ask nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.cli.check import settings_row


@pytest.fixture
def dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The `.env` of the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".env"


def test_names_that_nothing_reads_are_listed_and_cut_short(dotenv: Path) -> None:
    dotenv.write_text("".join(f"API_PG_DB_{name}=x\n" for name in "ABCDEFG") + "API_PORT=3001\n", encoding="utf-8")
    row = settings_row()
    assert row.ok
    assert row.detail.endswith(": API_PG_DB_A, API_PG_DB_B, API_PG_DB_C, API_PG_DB_D, API_PG_DB_E and 2 more")


def test_a_file_of_ours_alone_is_right_without_a_word_more(dotenv: Path) -> None:
    dotenv.write_text("API_PORT=3001\nLLM_RPM=\n", encoding="utf-8")
    assert settings_row().detail == "all of them can be used"
