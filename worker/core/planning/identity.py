"""Names made of content: of a file's shown part, of a chunk, of a whole change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

from worker.core.diff.model import FileDiff, Hunk

DIGITS = 16


def digest_of(diff: FileDiff, hunks: Sequence[Hunk]) -> str:
    """Of what is shown of one file: its paths and modes, and lines with their numbers."""
    digest = blake2b(digest_size=DIGITS // 2)
    digest.update(repr((diff.old_path, diff.new_path, diff.status, diff.old_mode, diff.new_mode)).encode())
    for hunk in hunks:
        digest.update(b"%d,%d,%d:" % (hunk.old_start, hunk.new_start, len(hunk.body)))
        digest.update(hunk.body)
    return digest.hexdigest()


def name_of(*texts: str) -> str:
    """Of texts in order; no text can be chosen to look like two others."""
    digest = blake2b(digest_size=DIGITS // 2)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()


def apart(names: Iterable[str]) -> list[str]:
    """The names, with a number behind each that was there before: a diff may say the same twice."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        times = seen[name] = seen.get(name, 0) + 1
        out.append(name if times == 1 else f"{name}-{times}")
    return out
