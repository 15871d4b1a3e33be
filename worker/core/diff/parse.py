"""Bytes of a unified diff → files and hunks.

The line counts of a hunk's header decide where the hunk ends, never what its lines look like, so
content that resembles a header smuggles nothing. Text is cut at line feeds alone. Lines are never
touched one by one in the common case: one match finds where the signs of a hunk end, and its counts are
verified in C, which keeps half a million lines within a fraction of a second.

Formats: https://git-scm.com/docs/diff-format#generate_patch_text_with_p and POSIX `diff -u`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import NamedTuple, NoReturn

from worker.core.diff.model import FileDiff, Hunk, Status
from worker.core.diff.paths import git_line_paths, header_path, plain_paths, strip_prefixes, unquote
from worker.core.errors import BadInput

_HUNK_HEADER = re.compile(rb"@@ -(\d{1,12})(?:,(\d{1,12}))? \+(\d{1,12})(?:,(\d{1,12}))? @@ ?([^\n]*)\n")
# What most files begin with, read at once; every other form is read line by line.
_USUAL_HEADER = re.compile(
    rb"diff --git ([^\r\n]+)\n(?:(new|deleted) file mode ([0-7]{6})\n)?"
    rb"index ([0-9a-f]{4,64})\.\.([0-9a-f]{4,64})(?: ([0-7]{6}))?\n"
    rb"--- ([^\r\n]+)\n\+\+\+ ([^\r\n]+)\n(?=@@ -)"
)
_INDEX = re.compile(rb"index ([0-9a-f]{4,64})\.\.([0-9a-f]{4,64})(?: ([0-7]{6}))?$")
_PERCENT = re.compile(rb"similarity index (\d{1,3})%$")
_BINARY_BLOCK = re.compile(rb"(?:literal|delta) \d+\r?\n(?:[A-Za-z][!-~]+\r?\n)*\r?\n")
_SUBMODULE = re.compile(rb"Submodule ([^\n]+?) ([0-9a-f]{7,64})\.{2,3}([0-9a-f]{7,64})(?: \([^)\n]*\))?:?\r?\n")

# What may begin a file, or show that something of the diff would be lost, in text between files.
_LANDMARK = re.compile(
    rb"^(?:diff --(?:git|cc|combined) |--- [^\n]*\n\+\+\+ [^\n]*\n@@|@@+ -\d|Binary files [^\n]* differ\r?$"
    rb"|Submodule [^\n]+ [0-9a-f]{7,64}\.{2,3}[0-9a-f]{7,64}|\* Unmerged path "
    rb"|diff -r [^\n]+\nBinary file [^\n]+ has changed\r?$"
    rb"|Index: [^\n]+\n=+\r?\nCannot display: file marked as a binary type"
    rb"|(?:\x1b\[[0-9;]*m)+(?:diff --|--- |@@ -))",
    re.MULTILINE,
)
# How Mercurial and Subversion name a binary file.
_BINARY_ELSEWHERE = re.compile(
    rb"diff -r [^\n]+\nBinary file ([^\n]+) has changed\r?\n?"
    rb"|Index: ([^\r\n]+)\r?\n=+\r?\nCannot display: file marked as a binary type[^\n]*\n?"
)
_ONLY_IN = re.compile(rb"^Only in [^\n]+: [^\n]+$", re.MULTILINE)
# `git format-patch` ends a patch with "-- " and git's version.
_SIGNATURE = re.compile(rb"-- ?\r?\n")
_NEXT_PLAIN_FILE = re.compile(rb"--- [^\n]*\n\+\+\+ [^\n]*\n@@")

_COLOURED = "the diff has colour codes in it; write it with --no-color"
_EMPTY_BLOBS = (
    "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
    "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813",
)


def parse_diff(diff: bytes) -> tuple[FileDiff, ...]:
    """Read what `git diff`, `git show`, `git format-patch` or `diff -u` wrote; nothing but white space is ().

    A change of type (a file that becomes a symlink), which git writes as a deletion and an addition of
    one path, is one file with both hunks. Raises `BadInput` with the line's number for anything that
    is no diff, is cut off, or would lose a change if it were read on.
    """
    if not diff or diff.isspace():
        return ()
    return _Parser(diff).files()


@dataclass(slots=True)
class _Header:
    """What the lines between `diff --git` and the first hunk say."""

    old_mode: str | None = None
    new_mode: str | None = None
    old_blob: str | None = None
    new_blob: str | None = None
    status: Status = "modified"
    similarity: int | None = None
    moved_from: bytes | None = None
    moved_to: bytes | None = None
    old_name: bytes | None = None
    new_name: bytes | None = None
    is_binary: bool = False
    has_names: bool = False


class _Body(NamedTuple):
    """Lines up to the first that has no sign of a kind of hunk; and the same with `\\ No newline` rows between them."""

    lines: re.Pattern[bytes]
    lines_and_notes: re.Pattern[bytes]


def _body(sign: bytes) -> _Body:
    # Nothing is given back: a body of a million lines is one step for the engine and takes no memory.
    return _Body(re.compile(b"(?:%b.*\\n)*+" % sign), re.compile(b"(?:%b.*\\n(?:\\\\.*\\n)*+)*+" % sign))


_ADDED, _REMOVED, _MIXED = _body(rb"\+"), _body(rb"-"), _body(rb"[ +-]")


def _past(lines: re.Pattern[bytes], diff: bytes, start: int) -> int:
    found = lines.match(diff, start)
    return found.end() if found else start


class _Parser:
    """One pass over one diff."""

    def __init__(self, diff: bytes) -> None:
        self._diff = diff

    def files(self) -> tuple[FileDiff, ...]:
        diff = self._diff
        if diff.startswith((b"\xff\xfe", b"\xfe\xff")):
            self._fail(0, "the text is UTF-16; let git write the file itself: git diff --output=FILE")
        position = 3 if diff.startswith(b"\xef\xbb\xbf") else 0
        files: list[FileDiff] = []
        while position < len(diff):
            if diff.startswith(b"diff --git ", position):
                file, position = self._git_file(position)
            else:
                landmark = _LANDMARK.search(diff, position)
                if landmark is None:
                    break
                position = landmark.start()
                if diff.startswith(b"diff --git ", position):
                    continue
                file, position = self._other_file(position)
            if files and _is_type_change(files[-1], file):
                files[-1] = _type_change(files[-1], file)
            else:
                files.append(file)
        if not files:
            if b"\x1b[" in diff[:4096]:
                self._fail(0, _COLOURED)
            self._fail(0, "this is no diff; pass the output of `git diff` or `diff -u`")
        # In this order: what git wrote is told by its first bytes, and not searched through.
        if not diff.startswith(b"diff --git ") and b"Only in " in diff and b"\ndiff --git " not in diff:
            left_out = _ONLY_IN.search(diff)
            if left_out:
                self._fail(left_out.start(), "diff left a whole file out; write the diff with `diff -ruN`")
        return tuple(files)

    def _fail(self, position: int, problem: str) -> NoReturn:
        line = self._diff.count(b"\n", 0, position) + 1
        raise BadInput(f"The diff cannot be read at line {line}: {problem}.")

    def _line(self, position: int) -> tuple[bytes, int]:
        """The header line at `position` without its end, and where the next one begins."""
        end = self._diff.find(b"\n", position)
        if end < 0:
            self._fail(position, "it ends in the middle of a line; write it again, whole, with its last line feed")
        # A name that ends in a carriage return is quoted, so a bare one is a converted line end.
        line = self._diff[position:end]
        return (line[:-1] if line.endswith(b"\r") else line), end + 1

    # ------------------------------------------------------------------------------------- headers

    def _git_file(self, start: int) -> tuple[FileDiff, int]:
        usual = _USUAL_HEADER.match(self._diff, start)
        if usual is None:
            return self._unusual_git_file(start)
        git_line, event, mode, old_blob, new_blob, kept_mode, old_name, new_name = usual.groups()
        old_mode = new_mode = None if kept_mode is None else kept_mode.decode()
        status: Status = "modified"
        if event == b"new":
            status, new_mode = "added", mode.decode()
        elif event == b"deleted":
            status, old_mode = "deleted", mode.decode()
        header = _Header(
            old_mode,
            new_mode,
            old_blob.decode(),
            new_blob.decode(),
            status,
            old_name=header_path(old_name),
            new_name=header_path(new_name),
            has_names=True,
        )
        hunks, position = self._hunks(usual.end())
        return self._finished(header, git_line, hunks, start), position

    def _unusual_git_file(self, start: int) -> tuple[FileDiff, int]:
        diff = self._diff
        first, position = self._line(start)
        header = _Header()
        while position < len(diff):
            if diff.startswith(b"@@", position):
                break
            line, after = self._line(position)
            if line.startswith(b"--- "):
                position = self._names(header, line, position, after)
                break
            if line == b"GIT binary patch":
                header.is_binary = True
                position = self._binary_patch(after)
                break
            if line.startswith(b"Binary files ") and line.endswith(b" differ"):
                header.is_binary = True
                position = after
                break
            if not self._extended(header, line):
                break
            position = after
        hunks: tuple[Hunk, ...] = ()
        if header.has_names:
            hunks, position = self._hunks(position)
        elif diff.startswith(b"@@", position):
            self._fail(position, "a hunk without the --- and +++ lines before it; write the diff again")
        elif position >= len(diff) and _is_unfinished(header):
            self._fail(position, "it ends before the file's hunks; write it again, whole")
        return self._finished(header, first[len(b"diff --git ") :], hunks, start), position

    def _extended(self, header: _Header, line: bytes) -> bool:
        """Take one extended header line; False when it is none."""
        word, _, rest = line.partition(b" ")
        if word == b"index":
            found = _INDEX.match(line)
            if not found:
                return False
            header.old_blob, header.new_blob = found[1].decode(), found[2].decode()
            if found[3]:
                header.old_mode = header.new_mode = found[3].decode()
        elif line.startswith(b"old mode "):
            header.old_mode = line[9:].decode("ascii", "replace")
        elif line.startswith(b"new mode "):
            header.new_mode = line[9:].decode("ascii", "replace")
        elif line.startswith(b"new file mode "):
            header.status, header.new_mode = "added", line[14:].decode("ascii", "replace")
        elif line.startswith(b"deleted file mode "):
            header.status, header.old_mode = "deleted", line[18:].decode("ascii", "replace")
        elif line.startswith((b"rename from ", b"rename old ")):
            header.status, header.moved_from = "renamed", unquote(rest.partition(b" ")[2])
        elif line.startswith((b"rename to ", b"rename new ")):
            header.status, header.moved_to = "renamed", unquote(rest.partition(b" ")[2])
        elif line.startswith(b"copy from "):
            header.status, header.moved_from = "copied", unquote(line[10:])
        elif line.startswith(b"copy to "):
            header.status, header.moved_to = "copied", unquote(line[8:])
        elif word == b"similarity":
            percent = _PERCENT.match(line)
            header.similarity = int(percent[1]) if percent else None
        elif word != b"dissimilarity":
            return False
        return True

    def _names(self, header: _Header, line: bytes, position: int, after: int) -> int:
        """Take the `---` and `+++` lines; the hunks begin where the answer points."""
        if not self._diff.startswith(b"+++ ", after):
            self._fail(after, "a --- line without its +++ line; write the diff again, whole")
        second, hunks_at = self._line(after)
        if not self._diff.startswith(b"@@ -", hunks_at):
            self._fail(hunks_at, "--- and +++ lines without a hunk; write the diff again, whole")
        header.old_name, header.new_name = header_path(line[4:]), header_path(second[4:])
        header.has_names = True
        return hunks_at

    def _finished(self, header: _Header, git_line: bytes, hunks: tuple[Hunk, ...], start: int) -> FileDiff:
        old: bytes | None
        new: bytes | None
        if header.moved_from is not None and header.moved_to is not None:
            old, new = header.moved_from, header.moved_to
        else:
            is_one_sided = header.old_name is None or header.new_name is None
            named = git_line_paths(git_line) if is_one_sided else None
            if header.has_names:
                old, new = strip_prefixes(header.old_name, header.new_name, git_line=named)
            elif named is None:
                self._fail(start, "the file's name cannot be made out; write the diff with git's default prefixes")
            else:
                old, new = named.old, named.new
            if header.status == "added":
                old = None
            elif header.status == "deleted":
                new = None
            if old is None and new is None:
                self._fail(start, "both sides are /dev/null; write the diff again")
            if header.status == "modified":
                header.status = "added" if old is None else "deleted" if new is None else "modified"
        status = header.status
        changes_mode = header.old_mode != header.new_mode and header.old_mode and header.new_mode
        if status == "modified" and changes_mode and not hunks and not header.is_binary:
            status = "mode-changed"
        return FileDiff(
            old,
            new,
            status,
            header.old_mode,
            header.new_mode,
            header.old_blob,
            header.new_blob,
            header.similarity,
            header.is_binary,
            hunks,
        )

    def _binary_patch(self, position: int) -> int:
        """Skip the forward and, where there is one, the reverse block of a `GIT binary patch`."""
        forward = _BINARY_BLOCK.match(self._diff, position)
        if forward is None:
            self._fail(position, "a binary patch that is cut off; write the diff again, whole")
        reverse = _BINARY_BLOCK.match(self._diff, forward.end())
        return (reverse or forward).end()

    def _other_file(self, start: int) -> tuple[FileDiff, int]:
        """A file that has no `diff --git` line; `start` is at a landmark."""
        diff = self._diff
        if diff.startswith(b"--- ", start):
            line, after = self._line(start)
            header = _Header()
            position = self._names(header, line, start, after)
            hunks, position = self._hunks(position)
            old, new = strip_prefixes(header.old_name, header.new_name, git_line=None)
            if old is None and new is None:
                self._fail(start, "both sides are /dev/null; write the diff again")
            # `diff -N` names a missing side like the other one and dates it 1970; its hunk starts at 0.
            if len(hunks) == 1 and old is not None and new is not None:
                if hunks[0].old_start == 0 and hunks[0].old_lines == 0 and _is_epoch(line):
                    old = None
                elif hunks[0].new_start == 0 and hunks[0].new_lines == 0 and _is_epoch(self._line(after)[0]):
                    new = None
            status: Status = "added" if old is None else "deleted" if new is None else "modified"
            return FileDiff(old, new, status, hunks=hunks), position
        if diff.startswith(b"Binary files ", start):
            line, after = self._line(start)
            paths = plain_paths(line[len(b"Binary files ") : -len(b" differ")])
            if paths is None:
                self._fail(start, "the names of the binary files cannot be made out; write the diff with git")
            status = "added" if paths.old is None else "deleted" if paths.new is None else "modified"
            return FileDiff(paths.old, paths.new, status, is_binary=True), after
        binary = _BINARY_ELSEWHERE.match(diff, start)
        if binary:
            path = binary[1] or binary[2]
            return FileDiff(path, path, "modified", is_binary=True), binary.end()
        if diff.startswith(b"\x1b", start):
            self._fail(start, _COLOURED)
        submodule = _SUBMODULE.match(diff, start)
        if submodule:
            path, before, now = submodule[1], submodule[2].decode(), submodule[3].decode()
            gone, came = not now.strip("0"), not before.strip("0")
            return FileDiff(
                None if came else path,
                None if gone else path,
                "added" if came else "deleted" if gone else "modified",
                None if came else "160000",
                None if gone else "160000",
                before,
                now,
            ), submodule.end()
        if diff.startswith((b"diff --c", b"@@@"), start):
            self._fail(start, "a combined diff of a merge; compare with one parent: git diff BASE...HEAD")
        if diff.startswith(b"* Unmerged", start):
            self._fail(start, "a path with an unresolved merge; resolve it and write the diff again")
        if diff.startswith(b"@@", start):
            self._fail(start, "a hunk that belongs to no file; write the diff again, from its first line")
        self._fail(start, "the line is cut off; write the diff again, whole")

    # --------------------------------------------------------------------------------------- hunks

    def _hunks(self, position: int) -> tuple[tuple[Hunk, ...], int]:
        """The hunks that begin at `position`, and where they end."""
        diff = self._diff
        hunks: list[Hunk] = []
        while header := _HUNK_HEADER.match(diff, position):
            old_start, old_count, new_start, new_count, section = header.groups()
            old_lines = 1 if old_count is None else int(old_count)
            new_lines = 1 if new_count is None else int(new_count)
            start = header.end()
            end, added, removed = self._end(start, old_lines, new_lines) or self._careful_end(
                start, old_lines, new_lines
            )
            hunks.append(
                Hunk(int(old_start), old_lines, int(new_start), new_lines, section, diff[start:end], added, removed)
            )
            position = end
        if diff.startswith(b"@@", position):
            self._fail(position, "a hunk header that git would not write; write the diff again, whole")
        self._check_after_hunk(position)
        return tuple(hunks), position

    def _end(self, start: int, old_lines: int, new_lines: int) -> tuple[int, int, int] | None:
        """Where a body ends that is as git writes it, and its added and removed lines, all verified by counting.

        None for a body that has to be read line by line.
        """
        diff, count = self._diff, self._diff.count
        kind = _MIXED if old_lines and new_lines else _REMOVED if old_lines else _ADDED
        end = _past(kind.lines, diff, start)
        notes = 0
        if end > start and diff.startswith(b"\\", end):
            end = _past(kind.lines_and_notes, diff, start)
            notes = count(b"\n\\", start, end)
        rows = count(b"\n", start, end) - notes
        if kind is not _MIXED:
            return (end, new_lines, old_lines) if rows == old_lines + new_lines else None
        added = count(b"\n+", start - 1, end)
        removed = count(b"\n-", start - 1, end)
        context = rows - added - removed
        return (end, added, removed) if added + context == new_lines and removed + context == old_lines else None

    def _careful_end(self, start: int, old_lines: int, new_lines: int) -> tuple[int, int, int]:
        """Count line by line where a body ends; also its added and removed lines."""
        diff = self._diff
        old_left, new_left = old_lines, new_lines
        added = removed = 0
        position = start
        while old_left or new_left:
            mark = diff[position : position + 1]
            end = diff.find(b"\n", position)
            if end < 0:
                self._fail(position, "it ends inside a hunk; write it again, whole, with its last line feed")
            if mark == b"+":
                new_left -= 1
                added += 1
            elif mark == b"-":
                old_left -= 1
                removed += 1
            # Editors and mail programs strip the blank of an empty context line; git apply takes it too.
            elif mark in (b" ", b"\n"):
                old_left -= 1
                new_left -= 1
            elif mark != b"\\" or position == start:
                self._fail(position, "the hunk has fewer lines than its header says; write the diff again, whole")
            if old_left < 0 or new_left < 0:
                self._fail(position, "the hunk's lines do not add up to its header; write the diff again, whole")
            position = end + 1
        if diff.startswith(b"\\", position) and position > start:
            position = self._line(position)[1]
        return position, added, removed

    def _check_after_hunk(self, position: int) -> None:
        """Refuse a hunk that goes on after its counts are used up: those lines would be lost."""
        diff = self._diff
        mark = diff[position : position + 1]
        if mark not in (b"+", b"-", b" ", b"\\"):
            return
        if mark == b"-" and (_SIGNATURE.match(diff, position) or _NEXT_PLAIN_FILE.match(diff, position)):
            return
        self._fail(position, "the hunk has more lines than its header says; write the diff again")


def _is_unfinished(header: _Header) -> bool:
    """Whether a header that the diff ends with announces more than it holds."""
    if header.is_binary:
        return False
    if header.new_blob is not None and header.old_blob != header.new_blob:
        present = [blob for blob in (header.old_blob, header.new_blob) if blob and blob.strip("0")]
        return not all(any(empty.startswith(blob) for empty in _EMPTY_BLOBS) for blob in present)
    if header.moved_from is not None or header.moved_to is not None or header.similarity is not None:
        return header.moved_from is None or header.moved_to is None
    return header.status != "modified" or header.old_mode is None or header.new_mode is None


def _is_epoch(line: bytes) -> bool:
    """GNU diff dates the missing side of `-N` at the epoch, in the local time zone."""
    stamp = line.partition(b"\t")[2]
    return stamp.startswith((b"1970-01-01", b"1969-12-31"))


def _kind(mode: str | None) -> str:
    return (mode or "100644")[:3]


def _is_type_change(first: FileDiff, second: FileDiff) -> bool:
    return (
        first.status == "deleted"
        and second.status == "added"
        and first.old_path == second.new_path
        and first.old_mode is not None
        and second.new_mode is not None
        and _kind(first.old_mode) != _kind(second.new_mode)
    )


def _type_change(first: FileDiff, second: FileDiff) -> FileDiff:
    return replace(
        second,
        old_path=first.old_path,
        status="type-changed",
        old_mode=first.old_mode,
        old_blob=first.old_blob,
        is_binary=first.is_binary or second.is_binary,
        hunks=first.hunks + second.hunks,
    )
