"""A diff is read from whatever a shell can name, which need not end."""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path

import pytest

from worker.cli import sources
from worker.core.errors import BadInput


class Shell:
    """Stands where `sys.stdin` does."""

    def __init__(self, written: bytes) -> None:
        self.buffer = io.BytesIO(written)


def read(name: str) -> bytes:
    async def run() -> bytes:
        async with sources.open_source(None, None, name) as source:
            return source.snapshot.diff

    return asyncio.run(run())


def test_a_device_that_never_ends_is_refused_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "DIFF_BYTES", 10_000_000)
    with pytest.raises(BadInput, match=r"longer than 10,000,000 bytes\. Give the diff in parts"):
        read("/dev/zero")


def test_a_diff_of_just_the_limit_is_read_whole_from_a_file_and_from_a_pipe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    diff = b"x" * 3_000_000
    (tmp_path / "diff").write_bytes(diff)
    monkeypatch.setattr(sys, "stdin", Shell(diff))
    monkeypatch.setattr(sources, "DIFF_BYTES", len(diff))
    assert read(str(tmp_path / "diff")) == diff
    assert read("-") == diff
    monkeypatch.setattr(sys, "stdin", Shell(diff))
    monkeypatch.setattr(sources, "DIFF_BYTES", len(diff) - 1)
    for name in (str(tmp_path / "diff"), "-"):
        with pytest.raises(BadInput, match="longer than"):
            read(name)
