"""What `review` and `plan` read: a range of a local repository, or a diff from a file."""

from __future__ import annotations

import io
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from worker.checkout import open_local
from worker.core.change import Snapshot
from worker.core.errors import BadInput
from worker.ports import Tree

DIFF_BYTES: Final = 500_000_000
"""Of a diff file, which is held in memory: several times the diff between two releases of a large system."""
_BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """`tree` is None where only a diff is at hand, so that nothing around it can be read."""

    name: str
    snapshot: Snapshot
    tree: Tree | None


@asynccontextmanager
async def open_source(repo: Path | None, revisions: str | None, diff_file: str | None) -> AsyncIterator[Source]:
    """Raises `BadInput` for what cannot be read, and when the options do not name one source."""
    if diff_file is not None:
        if repo is not None or revisions is not None:
            raise BadInput("--diff-file goes without --repo and --range: it is the whole change.")
        yield Source("stdin" if diff_file == "-" else diff_file, Snapshot("", "", _read(diff_file)), None)
    elif revisions is not None:
        where = repo or Path()
        if not where.is_dir():
            raise BadInput("--repo is no folder. Give the folder of a git repository.")
        async with open_local(where, revisions) as tree:
            yield Source(revisions, await tree.snapshot(), tree)
    else:
        raise BadInput("Say what to read: --range A..B (with --repo DIR), --diff-file FILE, or for a review a URL.")


def _read(name: str) -> bytes:
    if name == "-":
        return _bounded(sys.stdin.buffer)
    try:
        with Path(name).open("rb") as file:
            return _bounded(file)
    except OSError as error:
        raise BadInput(f"--diff-file cannot be read: {error.strerror}.") from error


def _bounded(source: BinaryIO) -> bytes:
    """All of `source`, which need not end: a device, or a program that goes on writing. Raises `BadInput`."""
    held = io.BytesIO()
    while block := source.read(_BLOCK_BYTES):
        held.write(block)
        if held.tell() > DIFF_BYTES:
            raise BadInput(
                f"--diff-file is longer than {DIFF_BYTES:,} bytes. Give the diff in parts, or the repository with"
                " --repo and --range."
            )
    return held.getvalue()
