"""A builder of real git repositories with a working tree: write, move, commit, compare.

git runs with a cleared environment, so the machine's configuration changes nothing. Paths may be any
bytes that the file system takes. Trees that no file system holds are written with `plant`.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_ENVIRONMENT = {
    "PATH": os.environ.get("PATH", os.defpath),
    "HOME": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_AUTHOR_DATE": "2024-01-01T00:00:00Z",
    "GIT_COMMITTER_NAME": "C",
    "GIT_COMMITTER_EMAIL": "c@example.org",
    "GIT_COMMITTER_DATE": "2024-01-01T00:00:00Z",
    "LC_ALL": "C",
    "TZ": "UTC",
}

Name = str | bytes
Tree = dict[bytes, tuple[str, bytes]]
"""Path → (mode, content); the content of a submodule (160000) is the commit's id."""


@dataclass(frozen=True, slots=True)
class RawEntry:
    """One row of `git diff --raw -z`."""

    old_mode: str
    new_mode: str
    old_blob: str
    new_blob: str
    status: str
    """A, M, D, T; R and C with their per cent."""
    old_path: bytes
    new_path: bytes


@dataclass(frozen=True, slots=True)
class GitRepository:
    """One repository; `root` is its working tree."""

    root: Path

    @classmethod
    def create(cls, root: Path) -> GitRepository:
        root.mkdir(parents=True, exist_ok=True)
        repository = cls(root)
        repository.git("init", "--quiet", "--initial-branch=main")
        return repository

    def git(self, *arguments: Name, stdin: bytes = b"", allowed: Iterable[int] = (0,)) -> bytes:
        """Output of one git command; fails unless its exit code is one of `allowed`."""
        done = subprocess.run(
            [b"git", *map(os.fsencode, arguments)],
            cwd=self.root,
            env=_ENVIRONMENT,
            input=stdin,
            capture_output=True,
            check=False,
        )
        if done.returncode not in allowed:
            raise AssertionError(f"git {arguments} exits {done.returncode}: {done.stderr!r}")
        return done.stdout

    # ------------------------------------------------------------------------------ working tree

    def _place(self, path: Name) -> Path:
        place = self.root / os.fsdecode(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def write(self, path: Name, content: bytes) -> None:
        place = self._place(path)
        if place.is_symlink():
            place.unlink()
        place.write_bytes(content)

    def symlink(self, path: Name, target: Name) -> None:
        place = self._place(path)
        place.unlink(missing_ok=True)
        place.symlink_to(os.fsdecode(target))

    def chmod(self, path: Name, *, executable: bool) -> None:
        self._place(path).chmod(0o755 if executable else 0o644)

    def move(self, old: Name, new: Name) -> None:
        self._place(old).rename(self._place(new))

    def remove(self, path: Name) -> None:
        self._place(path).unlink()

    def commit(self, message: str = "change") -> str:
        """Commit the working tree as it is; the commit's id."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD").decode().strip()

    # ------------------------------------------------------------------------------------ objects

    def plant(self, *trees: Tree) -> list[str]:
        """Commit exactly each of `trees`, past the working tree, in one run of git; their commits' ids."""
        first = len(self.git("for-each-ref", "refs/planted/").splitlines())
        names = [f"refs/planted/{number}" for number in range(first, first + len(trees))]
        stream = []
        for name, tree in zip(names, trees, strict=True):
            stream.append(f"commit {name}\ncommitter C <c@example.org> 0 +0000\ndata 0\n".encode())
            for path, (mode, content) in tree.items():
                quoted = path.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
                if mode == "160000":
                    stream.append(b'M 160000 %s "%s"\n' % (content, quoted))
                else:
                    stream.append(b'M %s inline "%s"\ndata %d\n%s\n' % (mode.encode(), quoted, len(content), content))
        self.git("fast-import", "--quiet", stdin=b"".join(stream))
        return self.git("rev-parse", *names).decode().split()

    def tree(self, revision: str) -> Tree:
        """All files of a revision."""
        found: Tree = {}
        for row in self.git("ls-tree", "-r", "-z", revision).split(b"\0")[:-1]:
            described, _, path = row.partition(b"\t")
            mode, kind, name = described.decode().split(" ")
            content = name.encode() if kind == "commit" else self.git("cat-file", "blob", name)
            found[path] = (mode, content)
        return found

    # ----------------------------------------------------------------------------------- comparing

    def diff(self, base: str, head: str, *options: str) -> bytes:
        return self.git("diff", "--no-color", "--no-ext-diff", *options, base, head)

    def raw(self, base: str, head: str, *options: str) -> list[RawEntry]:
        fields = self.git("diff", "--raw", "-z", "--no-abbrev", *options, base, head).split(b"\0")
        entries = []
        at = 0
        while at < len(fields) - 1:
            old_mode, new_mode, old_blob, new_blob, status = fields[at][1:].decode().split(" ")
            pair = status[0] in "RC"
            old_path, new_path = fields[at + 1], fields[at + 2 if pair else at + 1]
            entries.append(RawEntry(old_mode, new_mode, old_blob, new_blob, status, old_path, new_path))
            at += 3 if pair else 2
        return entries

    def numstat(self, base: str, head: str, *options: str) -> dict[bytes, tuple[int, int] | None]:
        """New path (the old one of a deleted file) → (added, removed); None for a binary file."""
        fields = self.git("diff", "--numstat", "-z", *options, base, head).split(b"\0")
        found: dict[bytes, tuple[int, int] | None] = {}
        at = 0
        while at < len(fields) - 1:
            added, removed, path = fields[at].split(b"\t", 2)
            if not path:
                path = fields[at + 2]
                at += 2
            found[path] = None if added == b"-" else (int(added), int(removed))
            at += 1
        return found
