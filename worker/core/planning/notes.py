"""What happened to a file besides its lines, in words: a line for the model even where there is none to show."""

from __future__ import annotations

from worker.core.diff.model import FileDiff
from worker.core.planning.rules import SUBMODULE, SYMLINK
from worker.core.showing import shown_path


def note(diff: FileDiff) -> str:
    """What happened to the file besides lines, in words; empty for a plain modification."""
    parts = []
    if diff.status in ("renamed", "copied") and diff.old_path is not None:
        alike = f", {diff.similarity} % alike" if diff.similarity is not None else ""
        parts.append(f"{diff.status} from {shown_path(diff.old_path.decode('utf-8', 'surrogateescape'))}{alike}")
    elif diff.status == "added":
        parts.append("new file")
    elif diff.status == "deleted":
        parts.append("deleted")
    if diff.old_mode and diff.new_mode and diff.old_mode != diff.new_mode:
        parts.append(f"mode {_mode(diff.old_mode)} → {_mode(diff.new_mode)}")
    elif (mode := diff.new_mode or diff.old_mode) in (SYMLINK, SUBMODULE) or (mode == "100755" and parts):
        parts.append(_mode(mode))
    return "; ".join(parts)


def _mode(mode: str | None) -> str:
    kinds = {SYMLINK: "symbolic link", SUBMODULE: "submodule", "100755": "executable"}
    return f"{mode} ({kinds[mode]})" if mode in kinds else str(mode)
