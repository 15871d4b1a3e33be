"""What a unified diff says, as values. Bytes stay bytes until they are shown to somebody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Sign = Literal["+", "-", " "]
Side = Literal["LEFT", "RIGHT"]
Status = Literal["added", "modified", "deleted", "renamed", "copied", "type-changed", "mode-changed"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a hunk, without its sign and its line feed (a carriage return stays)."""

    sign: Sign
    text: bytes
    old_number: int | None
    """Counted from 1 in the old file; None for an added line."""
    new_number: int | None
    """Counted from 1 in the new file; None for a removed line."""
    has_newline: bool = True


@dataclass(frozen=True, slots=True)
class Hunk:
    """A hunk as in git; `body` keeps git's own bytes so that a huge diff costs no object per line."""

    old_start: int
    old_lines: int
    new_start: int
    new_lines: int
    section: bytes
    """What git wrote after the second @@, without the space."""
    body: bytes
    """Lines with their sign, each ended by a line feed, `\\ No newline at end of file` lines included."""
    added: int
    removed: int

    @property
    def changed(self) -> int:
        """Added plus removed lines: what the ledger counts."""
        return self.added + self.removed

    def lines(self) -> Iterator[Line]:
        """The lines in order, numbered on both sides."""
        old, new = self.old_start, self.new_start
        rows = self.body.split(b"\n")
        rows.pop()
        for index, row in enumerate(rows):
            mark = row[:1]
            if mark == b"\\":
                continue
            ended = not (index + 1 < len(rows) and rows[index + 1][:1] == b"\\")
            if mark == b"+":
                yield Line("+", row[1:], None, new, ended)
                new += 1
            elif mark == b"-":
                yield Line("-", row[1:], old, None, ended)
                old += 1
            else:
                yield Line(" ", row[1:], old, new, ended)
                old += 1
                new += 1


@dataclass(frozen=True, slots=True)
class FileDiff:
    """One file of a diff. Paths are git's raw bytes, unquoted, without the `a/` and `b/`."""

    old_path: bytes | None
    """None when the file is new."""
    new_path: bytes | None
    """None when the file is deleted."""
    status: Status
    old_mode: str | None = None
    """Six octal digits as git writes them: 100644, 100755, 120000 (symlink), 160000 (submodule)."""
    new_mode: str | None = None
    old_blob: str | None = None
    """Object id as the `index` line gives it, perhaps abbreviated."""
    new_blob: str | None = None
    similarity: int | None = None
    """Per cent, for renames and copies."""
    is_binary: bool = False
    hunks: tuple[Hunk, ...] = ()

    @property
    def raw_path(self) -> bytes:
        """The path a reader knows the file by: the new one, else the old one."""
        return self.new_path if self.new_path is not None else self.old_path or b""

    @property
    def path(self) -> str:
        """`raw_path` as text; bytes that are not UTF-8 become surrogate escapes, so it can be turned back."""
        return self.raw_path.decode("utf-8", "surrogateescape")

    @property
    def added(self) -> int:
        return sum([hunk.added for hunk in self.hunks])

    @property
    def removed(self) -> int:
        return sum([hunk.removed for hunk in self.hunks])

    @property
    def changed(self) -> int:
        return self.added + self.removed
