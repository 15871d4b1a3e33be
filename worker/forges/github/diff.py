"""GitHub's list of changed files → one unified diff, and what the list leaves out."""

from __future__ import annotations

from collections.abc import Sequence

from worker.core.change import Snapshot
from worker.forges.github.payloads import ChangedFile, PullRequest

NO_PATCH = "the forge's API gave no diff for it (binary or too large)"
CUT_PATCH = "the forge's API cut its diff"
NOT_LISTED = "files that the forge's API does not list"


def snapshot(pull: PullRequest, files: Sequence[ChangedFile], *, head: str, merge_base: str) -> Snapshot:
    """Put the patches together as git would have written them.

    The list ends at 3,000 files and leaves large patches out, so each file's patch is counted and the
    whole is compared with the pull request's own totals: what is missing is in `cut`, never silent.
    https://docs.github.com/en/rest/pulls/pulls#list-pull-requests-files
    """
    diff: list[bytes] = []
    cut: list[tuple[str, str, int]] = []
    for file in files:
        changed = file.additions + file.deletions
        if file.patch is None:
            if file.status != "renamed" or changed:
                cut.append((file.filename, NO_PATCH, changed))
            else:
                diff.append(_header(file))
        elif _counts(file.patch) != (file.additions, file.deletions):
            cut.append((file.filename, CUT_PATCH, changed))
        else:
            diff.append(_header(file) + file.patch.encode("utf-8", "surrogatepass") + b"\n")
    unlisted = (pull.changed_files or 0) - len(files)
    if unlisted > 0:
        listed_lines = sum(file.additions + file.deletions for file in files)
        lines = max((pull.additions or 0) + (pull.deletions or 0) - listed_lines, 0)
        cut.append((f"({unlisted} files)", NOT_LISTED, lines))
    return Snapshot(head=head, base=merge_base, diff=b"".join(diff), cut=tuple(cut))


def _counts(patch: str) -> tuple[int, int]:
    rows = [row for row in patch.split("\n") if not row.startswith("@@ ")]
    return sum(row.startswith("+") for row in rows), sum(row.startswith("-") for row in rows)


def _header(file: ChangedFile) -> bytes:
    old, new = file.previous_filename or file.filename, file.filename
    lines = [b"diff --git " + _quoted(f"a/{old}") + b" " + _quoted(f"b/{new}")]
    if file.status == "added":
        lines.append(b"new file mode 100644")
    elif file.status == "removed":
        lines.append(b"deleted file mode 100644")
    elif file.status == "renamed":
        lines += [b"rename from " + _quoted(old), b"rename to " + _quoted(new)]
    if file.patch is not None:
        lines.append(b"--- " + (b"/dev/null" if file.status == "added" else _path(f"a/{old}")))
        lines.append(b"+++ " + (b"/dev/null" if file.status == "removed" else _path(f"b/{new}")))
    return b"\n".join(lines) + b"\n"


def _path(name: str) -> bytes:
    # git ends a name with a space in it by a tab, so that patch(1) finds its end.
    quoted = _quoted(name)
    return quoted + b"\t" if b" " in quoted and not quoted.startswith(b'"') else quoted


def _quoted(name: str) -> bytes:
    """As git writes a path with core.quotePath off: quoted only where a character would break the line."""
    if not any(character in '"\\' or character < " " or character == "\x7f" for character in name):
        return name.encode("utf-8", "surrogatepass")
    out = "".join(
        f"\\{character}"
        if character in '"\\'
        else f"\\{ord(character):03o}"
        if character < " " or character == "\x7f"
        else character
        for character in name
    )
    return f'"{out}"'.encode("utf-8", "surrogatepass")
