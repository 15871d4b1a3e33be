"""The file that tells whether a process without a port still works."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.cli.heartbeat import beating
from worker.core.errors import ConfigurationError


def test_the_file_is_there_while_the_process_works_and_gone_afterwards(tmp_path: Path) -> None:
    with beating(tmp_path, "worker"):
        [beat] = (tmp_path / "run").iterdir()
        assert beat.name.startswith("worker-")
    assert not beat.exists()


def test_a_home_that_cannot_be_written_is_told_as_the_setting_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigurationError, match=r"KIMI_REVIEW_HOME: .*cannot be used: Not a directory"),
        beating(tmp_path / "file", "worker"),
    ):
        pass
