"""Rows of `check` that ask nobody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.cli.check import git_row, settings_row


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


@pytest.mark.parametrize(("told", "is_right"), [("2.37.9", False), ("2.38.0", True), ("2.100", True), ("3.0", True)])
def test_a_git_older_than_what_the_program_asks_for_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, is_right: bool
) -> None:
    program = tmp_path / "git"
    program.write_text(f"#!/bin/sh\necho git version {told}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    row = git_row()
    assert (row.ok, row.detail) == (is_right, f"git version {told}")
    assert row.cure == ("" if is_right else "Install git 2.38 or newer.")
