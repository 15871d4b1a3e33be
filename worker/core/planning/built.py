"""Whether a script or a style was built from sources: what its builder wrote into it, and how long its rows are."""

from __future__ import annotations

import re
from typing import Final

from worker.core.diff.model import FileDiff

# What tools leave in their output, and people hardly write: webpack and ncc, esbuild, Parcel, Browserify, Rollup's UMD
# form, TypeScript and Babel, and the last row of whatever comes with a source map. A diff's row begins with its sign.
_MARKS: Final = re.compile(
    rb"__webpack_require__|__nccwpck_require__|webpackBootstrap|^[ +-]?/\*{6}/"
    rb"|\b__(?:commonJS|toESM|toCommonJS|importDefault)\b ?[(=]|\bparcelRequire\b|'MODULE_NOT_FOUND'"
    rb"|typeof define === ?['\"]function['\"] ?&& ?define\.amd|exports, ?['\"]__esModule['\"]|\b_interopRequire"
    rb"|^[ +-]?/[/*][#@] sourceMappingURL=",
    re.MULTILINE,
)
_HEAD_BYTES: Final = 200_000
_TAIL_BYTES: Final = 20_000
"""A mark stands in a file's beginning or at its end; a large bundle is not read to find none."""
_ROW_BYTES: Final = 200
"""Mean length of a row that nobody wrote by hand where scripts are built; code that people write has some 40."""
_LEAST_BYTES: Final = 2_000
"""Of fewer bytes a mean says nothing."""
_OUTPUT: Final = re.compile(r"\.(?:[cm]?js|css)$")
_SOURCES: Final = {".css": (".scss", ".sass", ".less", ".styl")}
_SCRIPT_SOURCES: Final = (".ts", ".tsx", ".mts", ".cts", ".coffee")


def is_marked(text: bytes) -> bool:
    """Whether a build tool says so in `text`: a file, or rows of a diff with their signs."""
    if len(text) <= _HEAD_BYTES + _TAIL_BYTES:
        return _MARKS.search(text) is not None
    return _MARKS.search(text, 0, _HEAD_BYTES) is not None or _MARKS.search(text, len(text) - _TAIL_BYTES) is not None


def has_long_rows(size_bytes: int, rows: int) -> bool:
    return size_bytes > _LEAST_BYTES and size_bytes > _ROW_BYTES * rows


def looks_built(text: bytes) -> bool:
    """Of a whole file, in a folder that build tools write to."""
    return has_long_rows(len(text), text.count(b"\n") + 1) or is_marked(text)


def rows_before(diff: FileDiff) -> bytes:
    """The rows of `diff` that may speak for the file: all of a new one, else those that this change did not write."""
    bodies = (hunk.body for hunk in diff.hunks)
    if diff.status == "added":
        return b"".join(bodies)
    return b"\n".join([row for body in bodies for row in body.split(b"\n") if row[:1] in (b" ", b"-")])


def sources_of(path: str) -> tuple[str, ...]:
    """What a script or style may have been built from, beside it; none for any other file."""
    match = _OUTPUT.search(path)
    if match is None:
        return ()
    return tuple(path[: match.start()] + ending for ending in _SOURCES.get(match[0], _SCRIPT_SOURCES))
