"""A range of a repository on this machine, read without trusting that repository's configuration."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from worker.checkout.failures import last_words
from worker.checkout.limits import CheckoutLimits
from worker.checkout.process import Bounds, Finished, GitRunner
from worker.checkout.scratch import scratch_folder
from worker.checkout.tree import ObjectTree
from worker.core.errors import BadInput

_STEP = Bounds(total_s=60)


@asynccontextmanager
async def open_local(
    repository: Path, revisions: str, *, limits: CheckoutLimits | None = None
) -> AsyncIterator[ObjectTree]:
    """What a change of B into A would show, for `revisions` = `A..B`: from their merge base to B.

    The repository's objects are read through an empty repository of our own, so that its configuration,
    attributes, hooks and replacements have no say. Raises `BadInput`.
    """
    base, head = split_range(revisions)
    with scratch_folder("range") as scratch:
        yield await asyncio.to_thread(_open, repository, base, head, scratch, limits or CheckoutLimits())


def split_range(revisions: str) -> tuple[str, str]:
    """`A..B` → (A, B). Raises `BadInput` for anything else."""
    if "..." in revisions:
        raise BadInput(
            f"{_quoted(revisions)}: write A..B with two dots; it shows what a change of B into A would show."
        )
    base, dots, head = revisions.partition("..")
    if not dots:
        raise BadInput(f"{_quoted(revisions)} is no range: write A..B, for example main..my-branch or HEAD~3..HEAD.")
    if not base or not head or ".." in head:
        raise BadInput(f"{_quoted(revisions)} is no range: both ends of A..B have to be named.")
    return base, head


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a repository keeps its objects, and how it names them."""

    objects: Path
    shallow: Path
    object_format: str


def _open(repository: Path, base: str, head: str, scratch: Path, limits: CheckoutLimits) -> ObjectTree:
    if not repository.is_dir():
        raise BadInput(f"{repository} is not a directory. Give --repo the folder of a git repository.")
    theirs = GitRunner(repository.resolve(), is_git_dir=False)
    source = _locate(theirs, repository)
    base_sha, head_sha = (_commit(theirs, name, repository) for name in (base, head))
    ours = GitRunner(scratch)
    made = ours.run(
        [
            "init",
            "--quiet",
            "--bare",
            "--template=",
            "--initial-branch=nothing",
            f"--object-format={source.object_format}",
        ],
        bounds=_STEP,
    )
    if made.code != 0:
        raise BadInput(f"git could not make a temporary repository: {last_words(made.errors)}")
    # git reads this file's lines as paths, quoted ones as C strings.
    (scratch / "objects" / "info" / "alternates").write_bytes(_c_quoted(os.fsencode(source.objects)) + b"\n")
    if source.shallow.is_file():
        shutil.copyfile(source.shallow, scratch / "shallow")
    found = ours.run(["merge-base", "--end-of-options", base_sha, head_sha], bounds=_STEP)
    if found.code not in (0, 1):
        raise BadInput(
            f"{repository} lacks objects between {base} and {head} (a shallow or partial clone?):"
            f" run git fetch --unshallow there. git said: {last_words(found.errors)}"
        )
    # Unrelated histories have no merge base: then the difference of the two trees is all there is.
    merge_base = found.output.decode("ascii").strip() or base_sha
    return ObjectTree(ours, head_sha, merge_base, limits)


def _locate(theirs: GitRunner, repository: Path) -> _Source:
    def ask(*question: str) -> bytes:
        done = theirs.run(["rev-parse", "--path-format=absolute", *question], bounds=_STEP)
        if done.code != 0:
            raise BadInput(f"{repository} is not a git repository: {last_words(done.errors)}")
        return done.output.removesuffix(b"\n")

    return _Source(
        objects=Path(os.fsdecode(ask("--git-path", "objects"))),
        shallow=Path(os.fsdecode(ask("--git-path", "shallow"))),
        object_format=ask("--show-object-format").decode("ascii"),
    )


def _commit(theirs: GitRunner, name: str, repository: Path) -> str:
    command = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"]
    done: Finished = theirs.run(command, bounds=_STEP)
    if done.code != 0:
        raise BadInput(f"{_quoted(name)} names no commit in {repository}. Check it with git log, or fetch it first.")
    return done.output.decode("ascii").strip()


def _quoted(text: str) -> str:
    return repr(re.sub(r"\s+", " ", text)[:100])


def _c_quoted(path: bytes) -> bytes:
    escaped = path.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'"' + escaped + b'"'
