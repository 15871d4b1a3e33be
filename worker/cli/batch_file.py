"""The file that names the changes of a batch: one a line, its URL or owner/name#7, `#` begins a comment."""

from __future__ import annotations

import re
from pathlib import Path

from worker.cli.change_names import parse_change
from worker.core.change import ChangeRef
from worker.core.errors import BadInput
from worker.forges import FORGES
from worker.settings import Settings

_COMMENT = re.compile(r"(?:^|\s)#.*")


def refs_in(path: Path, settings: Settings) -> list[ChangeRef]:
    """The changes that a file names, one a line. Raises `BadInput` with every line that names none."""
    try:
        # Editors on Windows put a byte order mark in front.
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "it is not UTF-8"
        raise BadInput(f"{path.name} cannot be read: {said}.") from error
    refs: list[ChangeRef] = []
    wrong: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        name = _COMMENT.sub("", line).strip()
        if name and (ref := _ref(name, settings)) is not None:
            refs.append(ref)
        elif name:
            wrong.append(str(number))
    if wrong:
        lines = ", ".join(wrong[:10]) + (f" and {len(wrong) - 10} more" if len(wrong) > 10 else "")
        raise BadInput(f"{path.name} names no change in line {lines}. Write a URL or owner/name#7, one a line.")
    if not refs:
        raise BadInput(f"{path.name} names no change. Write a URL or owner/name#7, one a line.")
    return refs


def _ref(name: str, settings: Settings) -> ChangeRef | None:
    try:
        ref = parse_change(name, settings)
    except BadInput:  # a URL of a host that is none of ours; its line is told with the others
        return None
    return ref if ref is not None and ref.forge in FORGES else None
