"""A forge on real git with one repository and one open change, and the mirror that is made of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from tests.fakes.git_server import BareRepository, GitServer
from worker.checkout import CheckoutLimits, MirrorCheckout
from worker.core.change import Change, ChangeRef, Snapshot
from worker.core.retry import READ_RULE
from worker.ports import Remote, Tree

T = TypeVar("T")
TOKEN = "Basic dG9rZW46c2VrcmV0LXRva2Vu"
ONCE = replace(READ_RULE, attempts=1)


class Forge:
    """A forge with one repository and one open change, and a mirror of it."""

    def __init__(self, server: GitServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.limits = CheckoutLimits(fetch_total_s=20, fetch_idle_s=20, lock_wait_s=20, fetch_again=ONCE)
        self.repository: BareRepository = server.create("owner/name")
        self.root = self.repository.commit({"a.py": "x = 1\n" * 30, "b.txt": "b\n"})
        self.head = self.repository.commit({"a.py": "x = 1\n" * 30 + "y = 2\n"}, parent=self.root)
        self.repository.ref("refs/heads/main", self.root)
        self.repository.pull(7, self.head)

    @property
    def change(self) -> Change:
        return Change(ChangeRef("github", "owner/name", 7), head=self.head, base=self.root, base_branch="main")

    @property
    def remote(self) -> Remote:
        return Remote(self.server.url_of("owner/name"), TOKEN)

    def ask(self, question: Callable[[Tree], Awaitable[T]], change: Change | None = None, **kept: Remote) -> T:
        async def run() -> T:
            checkout = MirrorCheckout(self.folder, self.limits)
            async with checkout.open(change or self.change, kept.get("remote", self.remote)) as tree:
                return await question(tree)

        return asyncio.run(run())

    async def open(self) -> None:
        async with MirrorCheckout(self.folder, self.limits).open(self.change, self.remote):
            pass

    def snapshot(self, change: Change | None = None, **kept: Remote) -> Snapshot:
        return self.ask(lambda tree: tree.snapshot(), change, **kept)

    def mirror(self) -> Path:
        (path,) = self.folder.glob("*.git")
        return path


def leftovers(mirror: Path) -> list[str]:
    """What an interrupted git would have left behind."""
    patterns = ("**/*.lock", "**/tmp_*")
    return [str(path.relative_to(mirror)) for pattern in patterns for path in mirror.glob(pattern)]


def command_lines() -> set[str]:
    lines = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.add(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return lines
