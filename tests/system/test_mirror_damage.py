"""A mirror outlives workers that die over it, a disk that damages it, and git that will not end."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.git_server import GitServer
from tests.fakes.mirrored import TOKEN, Forge, command_lines, leftovers
from worker.checkout import MirrorCheckout
from worker.checkout.failures import fetch_failed
from worker.checkout.process import Bounds, GitRunner
from worker.core.change import Change, ChangeRef, Snapshot
from worker.core.errors import Transient, Unprocessable
from worker.ports import Tree


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[Forge]:
    with GitServer(tmp_path / "forge", authorization=TOKEN) as server:
        yield Forge(server, tmp_path / "mirrors")


def test_two_workers_on_one_mirror_both_get_their_change(forge: Forge) -> None:
    other = forge.repository.commit({"a.py": "z = 3\n"}, parent=forge.root)
    forge.repository.pull(8, other)
    second = replace(forge.change, ref=ChangeRef("github", "owner/name", 8), head=other)

    async def run() -> tuple[bytes, bytes, bytes]:
        async def diff(change: Change) -> bytes:
            async with MirrorCheckout(forge.folder, forge.limits).open(change, forge.remote) as tree:
                return (await tree.snapshot()).diff

        return await asyncio.gather(diff(forge.change), diff(second), diff(forge.change))

    first, third, again = asyncio.run(run())
    assert b"+y = 2" in first
    assert b"+z = 3" in third
    assert first == again


_WORKER = """
import asyncio, sys
from pathlib import Path
from worker.checkout import CheckoutLimits, MirrorCheckout
from worker.core.change import Change, ChangeRef
from worker.ports import Remote
folder, url, token, head, base = sys.argv[1:]
async def run():
    change = Change(ChangeRef("github", "owner/name", 7), head=head, base=base, base_branch="main")
    limits = CheckoutLimits(fetch_idle_s=1)
    async with MirrorCheckout(Path(folder), limits).open(change, Remote(url, token)) as tree:
        await tree.snapshot()
asyncio.run(run())
"""


def test_a_worker_killed_while_it_fetches_leaves_a_mirror_that_works(forge: Forge) -> None:
    forge.server.faults.slow_s = 1.0
    arguments = [str(forge.folder), forge.remote.url, TOKEN, forge.head, forge.root]
    with subprocess.Popen([sys.executable, "-c", _WORKER, *arguments], stderr=subprocess.DEVNULL) as worker:
        while not any(seen.method == "POST" for seen in forge.server.seen):
            time.sleep(0.01)
        os.kill(worker.pid, signal.SIGKILL)
    mirror = forge.mirror()
    # What git leaves when it is killed in the middle of writing.
    for name in ("shallow.lock", "objects/pack/tmp_pack_abc", "objects/pack/tmp_idx_abc", "refs/review/7/head.lock"):
        (mirror / name).parent.mkdir(parents=True, exist_ok=True)
        (mirror / name).write_bytes(b"half")
    (mirror / "objects/tmp_objdir-incoming-x/pack").mkdir(parents=True)
    forge.server.faults.slow_s = 0
    assert b"+y = 2" in forge.snapshot().diff
    assert leftovers(mirror) == []


def _empty_packs(mirror: Path) -> None:
    for pack in mirror.glob("objects/pack/*.pack"):
        pack.chmod(0o644)
        pack.write_bytes(pack.read_bytes()[:30] + b"\x55" * (pack.stat().st_size - 30))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "HEAD": lambda mirror: (mirror / "HEAD").write_bytes(b""),
    "config": lambda mirror: (mirror / "config").write_bytes(b"[core\n"),
    "refs": lambda mirror: shutil.rmtree(mirror / "refs"),
    "ref": lambda mirror: (mirror / "refs/review/7/base").write_bytes(b""),
    "packed refs": lambda mirror: (mirror / "packed-refs").write_bytes(b"junk\n"),
    "packs": _empty_packs,
    "all": lambda mirror: (shutil.rmtree(mirror), mirror.write_bytes(b"")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_mirror_that_a_power_cut_or_a_full_disk_damaged_is_made_anew(forge: Forge, damage: str) -> None:
    before = forge.snapshot()
    DAMAGES[damage](forge.mirror())
    if damage == "packs":
        with pytest.raises(Transient, match="cannot be read although they were fetched"):
            forge.snapshot()
    assert forge.snapshot() == before
    forge.server.seen.clear()
    assert forge.snapshot() == before
    assert len(forge.server.seen) <= 3, "the new mirror is kept"


@pytest.mark.parametrize("lock", [".fetch", ".use"])
def test_a_lock_that_is_no_file_is_told_by_name_with_what_to_do(forge: Forge, lock: str) -> None:
    before = forge.snapshot()
    path = forge.mirror().with_suffix(lock)
    path.unlink()
    path.mkdir()
    with pytest.raises(Transient, match=rf"{path.name} cannot be opened: Is a directory.*remove the lock"):
        forge.snapshot()
    path.rmdir()
    assert forge.snapshot() == before


def test_damage_that_shows_while_a_mirror_is_read_is_tried_again_with_a_new_one(forge: Forge) -> None:
    async def damaged_meanwhile(tree: Tree) -> Snapshot:
        _empty_packs(forge.mirror())
        return await tree.snapshot()

    with pytest.raises(Transient, match="made anew at the next attempt"):
        forge.ask(damaged_meanwhile)
    assert forge.snapshot().diff.count(b"\n+y = 2") == 1


def test_git_that_a_killed_worker_left_in_a_silent_fetch_gives_the_mirror_free(forge: Forge) -> None:
    forge.server.faults.hang_s = 60
    arguments = [str(forge.folder), forge.remote.url, TOKEN, forge.head, forge.root]
    with subprocess.Popen([sys.executable, "-c", _WORKER, *arguments], stderr=subprocess.DEVNULL) as worker:
        while not forge.server.seen:
            time.sleep(0.01)
        os.kill(worker.pid, signal.SIGKILL)
    forge.server.faults.hang_s = 0
    forge.limits = replace(forge.limits, lock_wait_s=20)
    assert b"+y = 2" in forge.snapshot().diff


def test_git_may_not_compute_for_longer_than_twice_its_deadline(tmp_path: Path) -> None:
    """Whoever started it may be killed, and then nobody is left to end it."""
    # git waits for what an alias runs, so the shell's parent is git.
    alias = "alias.look=!sleep 0.2; grep 'Max cpu time' /proc/$PPID/limits"
    done = GitRunner(tmp_path, is_git_dir=False).run(["-c", alias, "look"], bounds=Bounds(total_s=7))
    assert done.output.split()[3:5] == [b"15", b"15"]


def test_git_may_not_allocate_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never stops naming refs fills git's memory, not its disk."""
    monkeypatch.setattr("worker.checkout.process._MEMORY_BYTES", 100_000_000)
    git = GitRunner(tmp_path, is_git_dir=False)
    done = git.run(["stripspace"], bounds=Bounds(total_s=20), stdin=b"x" * 150_000_000)
    assert done.code == 128
    assert type(fetch_failed(done.errors, what="h")) is Unprocessable


def test_a_review_nobody_waits_for_ends_its_git(forge: Forge) -> None:
    forge.server.faults.hang_s = 30

    async def run() -> None:
        async with asyncio.timeout(0.5):
            async with MirrorCheckout(forge.folder, forge.limits).open(forge.change, forge.remote):
                raise AssertionError("nothing can be fetched")

    with pytest.raises(TimeoutError):
        asyncio.run(run())
    assert not [line for line in command_lines() if str(forge.folder) in line and "fetch" in line]
