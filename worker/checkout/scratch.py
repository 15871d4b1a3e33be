"""Temporary folders that do not outlive a killed process for long: each is held by a lock, and the next run sweeps."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, get_args

Purpose = Literal["range", "demo"]

_LOCK: Final = "in-use"
_YOUNG_S: Final = 600.0
"""Between a folder and its lock lies a moment; so what is young is left alone."""


@contextmanager
def scratch_folder(purpose: Purpose) -> Iterator[Path]:
    """A place of our own with nothing but its lock, removed at the end. What killed processes left goes first."""
    for each in get_args(Purpose):
        _sweep(Path(tempfile.gettempdir()), _prefix(each))
    folder = Path(tempfile.mkdtemp(prefix=_prefix(purpose)))
    try:
        with (folder / _LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prefix(purpose: Purpose) -> str:
    return f"kimi-review-{purpose}-"


def _sweep(parent: Path, prefix: str) -> None:
    """Remove our folders that nobody holds. The parent is everybody's: only a real folder of this user counts."""
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):
            found = folder.lstat()
            is_ours = folder.is_dir() and not folder.is_symlink() and found.st_uid == os.geteuid()
            if is_ours and time.time() - found.st_mtime > _YOUNG_S and not _is_held(folder / _LOCK):
                shutil.rmtree(folder, ignore_errors=True)


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
