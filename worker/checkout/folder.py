"""The mirror's folder on disk: its locks, its leftovers, its size."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from worker.checkout.process import Cancelled, Finished
from worker.core.errors import Transient

_LOCK_POLL_S = 0.1


class DamagedMirror(Transient):
    """The mirror on this disk cannot be read. It is made anew at the next opening: all of it is on the forge."""


@dataclass(frozen=True, slots=True)
class MirrorFolder:
    """One bare repository and, beside it, its two lock files: `.use` (readers share it), `.fetch` (one writer)."""

    path: Path

    @property
    def use_lock(self) -> Path:
        return self.path.with_suffix(".use")

    @property
    def fetch_lock(self) -> Path:
        return self.path.with_suffix(".fetch")

    @property
    def large_blobs(self) -> Path:
        """Ids of blobs that were left out of a search for their size, one a line."""
        return self.path / "large-blobs"

    def doubt(self) -> None:
        """Have the mirror made anew at the next opening."""
        # Where even that cannot be written, the next reader comes to the same end, and to this place.
        with suppress(OSError):
            self.path.with_suffix(".damaged").touch()

    @contextmanager
    def fetching(self, wait_s: float, cancelled: threading.Event) -> Iterator[int]:
        """The right to write into the mirror, as the descriptor that holds it.

        Raises `Transient` when another worker keeps it for `wait_s`, and when its file cannot be opened.
        """
        give_up = time.monotonic() + wait_s
        with _opened(self.fetch_lock) as lock:
            while not _try_lock(lock.fileno(), fcntl.LOCK_EX):
                if cancelled.is_set():
                    raise Cancelled("nobody waits for the mirror any more")
                if time.monotonic() > give_up:
                    raise Transient(f"Another worker has been fetching into {self.path.name} for {wait_s:g} s.")
                time.sleep(_LOCK_POLL_S)
            yield lock.fileno()

    def create(self, git: Callable[[list[str]], Finished]) -> None:
        """Make the bare repository if it is not there, or doubted: no template, so no hooks and no attributes."""
        doubted = self.path.with_suffix(".damaged")
        if not doubted.exists() and (self.path / "HEAD").exists() and (self.path / "objects").is_dir():
            return
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)
        done = git(["init", "--quiet", "--bare", "--template=", "--initial-branch=nothing"])
        if done.code != 0:
            shutil.rmtree(self.path, ignore_errors=True)
            raise Transient(f"The mirror {self.path.name} could not be made. Check space and rights of its folder.")
        doubted.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what a killed fetch left. Only under the fetch lock: then nobody else writes here."""
        for pattern in (
            "*.lock",
            "refs/**/*.lock",
            "objects/pack/tmp_*",
            "objects/pack/*.lock",
            "objects/??/tmp_obj_*",
        ):
            for leftover in self.path.glob(pattern):
                leftover.unlink(missing_ok=True)
        for quarantine in self.path.glob("objects/tmp_objdir-*"):
            shutil.rmtree(quarantine, ignore_errors=True)

    def packs(self) -> int:
        """How many packs there are: each fetch adds one."""
        return sum(1 for _ in self.path.glob("objects/pack/pack-*.pack"))

    def size_bytes(self) -> int:
        """Of the object database, where all growth is."""
        return _size_bytes(self.path / "objects")


@contextmanager
def hold_shared(mirror: MirrorFolder) -> Iterator[None]:
    """Keep the mirror from being trimmed while somebody reads it, and mark it as used now.

    Raises `Transient` when the lock's file cannot be opened.
    """
    with _opened(mirror.use_lock) as lock:
        # Only a trim holds it alone, and for no longer than a directory takes to be renamed.
        fcntl.flock(lock.fileno(), fcntl.LOCK_SH)
        os.utime(mirror.use_lock)
        yield


def trim(folder: Path, limit_bytes: int) -> None:
    """Remove mirrors that nobody holds, least recently used first, until all together fit `limit_bytes`."""
    for half_removed in folder.glob("*.removed-*"):
        shutil.rmtree(half_removed, ignore_errors=True)
    mirrors = [MirrorFolder(path) for path in folder.glob("*.git")]
    sizes = {mirror: mirror.size_bytes() for mirror in mirrors}
    total = sum(sizes.values())
    for mirror in sorted(mirrors, key=_last_use):
        if total <= limit_bytes:
            return
        with mirror.use_lock.open("ab") as lock:
            if not _try_lock(lock.fileno(), fcntl.LOCK_EX):
                continue
            # Renamed first: whoever waits for the lock finds nothing and starts anew, instead of half a mirror.
            doomed = mirror.path.with_suffix(f".removed-{os.getpid()}-{time.monotonic_ns()}")
            try:
                mirror.path.rename(doomed)
            except FileNotFoundError:
                continue
        shutil.rmtree(doomed, ignore_errors=True)
        total -= sizes[mirror]


def _opened(lock: Path) -> BinaryIO:
    """The lock's file, made with its folder where they are missing. Raises `Transient`."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        return lock.open("ab")
    except OSError as error:
        raise Transient(
            f"The mirror's lock {lock.name} cannot be opened: {error.strerror}. Check space and rights of "
            "the folder `mirrors` in KIMI_REVIEW_HOME, and remove the lock if it is no plain file."
        ) from error


def _last_use(mirror: MirrorFolder) -> float:
    try:
        return mirror.use_lock.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _try_lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _size_bytes(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                # A fetch renames its temporary files when it is done.
                continue
    return total
