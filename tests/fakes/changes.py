"""Changes made of nothing but lines: random ones for Hypothesis, and a reader of rendered units that shares no
code with ours."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from worker.core.diff.model import FileDiff
from worker.core.diff.parse import parse_diff

Row = tuple[str, bytes]
"""A sign and a text without line feeds."""


@dataclass(frozen=True)
class Edited:
    """One file of a random change: hunks of rows, and how many untouched lines stand before each hunk."""

    path: str
    hunks: tuple[tuple[int, tuple[Row, ...]], ...]


def diff_of(files: Sequence[Edited]) -> bytes:
    """What git would write for `files`."""
    out: list[bytes] = []
    for file in files:
        path = file.path.encode()
        out.append(b"diff --git a/%s b/%s\nindex 1111111..2222222 100644\n--- a/%s\n+++ b/%s\n" % ((path,) * 4))
        old = new = 1
        for gap, rows in file.hunks:
            old += gap
            new += gap
            olds = sum(sign != "+" for sign, _ in rows)
            news = sum(sign != "-" for sign, _ in rows)
            numbers = (old - (olds == 0), olds, new - (news == 0), news)
            out.append(b"@@ -%d,%d +%d,%d @@ def scope():\n" % numbers)
            out.extend(sign.encode() + text + b"\n" for sign, text in rows)
            old += olds
            new += news
    return b"".join(out)


def new_file(path: str, lines: Sequence[bytes]) -> FileDiff:
    """A file that is added with `lines`."""
    body = b"".join(b"+" + line + b"\n" for line in lines)
    header = b"diff --git a/%s b/%s\nnew file mode 100644\nindex 0000000..2222222\n--- /dev/null\n+++ b/%s\n"
    name = path.encode()
    (file,) = parse_diff(header % (name, name, name) + b"@@ -0,0 +1,%d @@\n" % len(lines) + body)
    return file


TEXTS = st.one_of(
    st.sampled_from(
        [b"", b"    return None", b"def f(a, b):", b"}", b"\t", b"# \xe4\xb8\xad\xe6\x96\x87", b"F1 x", b"1|+|x"]
    ),
    st.binary(max_size=60).map(lambda data: data.replace(b"\n", b"")),
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass").replace(b"\n", b"")),
    st.sampled_from([b"A" * 900, b"\xf0\x9f\x98\x80" * 80, b"x" * 5_000, b"=+-/" * 200]),
)
ROWS = st.lists(st.tuples(st.sampled_from(["+", "-", " "]), TEXTS), min_size=1, max_size=40).filter(
    lambda rows: any(sign != " " for sign, _ in rows)
)
PATHS = st.from_regex(r"[a-z]{1,6}(/[a-z_]{1,8}){0,3}\.(py|go|c|txt)", fullmatch=True)


@st.composite
def changes(draw: st.DrawFn) -> tuple[FileDiff, ...]:
    """A change of a few files, as parsed from the diff that git would write."""
    paths = draw(st.lists(PATHS, min_size=1, max_size=8, unique=True))
    hunks = st.tuples(st.integers(0, 2_000), ROWS.map(tuple))
    files = [Edited(path, tuple(draw(st.lists(hunks, min_size=1, max_size=4)))) for path in sorted(paths)]
    return parse_diff(diff_of(files))


@dataclass(frozen=True)
class ShownLine:
    """One changed line as a request shows it; `number` is None for a deleted one."""

    path: str
    sign: str
    number: int | None
    text: str


_FILE = re.compile(r"^F\d+ (.*)$")
_NUMBERED = re.compile(r"^(\d+)\|([+ ])\|(.*)$", re.DOTALL)


def lines_shown(user: str) -> list[ShownLine]:
    """The changed lines in a request's user message, read from anywhere in it, cut at line feeds alone."""
    shown: list[ShownLine] = []
    path = ""
    for row in user.split("\n"):
        if name := _FILE.match(row):
            path = json.loads(name[1]) if name[1].startswith('"') else name[1]
        elif row.startswith("|-|"):
            shown.append(ShownLine(path, "-", None, row[3:]))
        elif (numbered := _NUMBERED.match(row)) and numbered[2] == "+":
            shown.append(ShownLine(path, "+", int(numbered[1]), numbered[3]))
    return shown
