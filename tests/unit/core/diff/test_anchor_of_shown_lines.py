"""Quotes of lines that the model saw masked or escaped."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.diff.anchor import resolve
from worker.core.diff.model import FileDiff
from worker.core.diff.parse import parse_diff
from worker.core.finding import Anchor, Claim, Severity
from worker.core.planning.rendering import render_hunk

KEY = b"AKIA" + b"Q7WERTYUIOPASDFG"
OTHER_KEY = b"AKIA" + b"Z7WERTYUIOPASDFG"
TOKEN = b"ghp_" + b"a1" * 20


def file_of(*rows: bytes) -> FileDiff:
    """A file of which every row was added."""
    head = b"diff --git a/x b/x\nnew file mode 100644\n--- /dev/null\n+++ b/x\n@@ -0,0 +1,%d @@\n" % len(rows)
    [file] = parse_diff(head + b"".join(b"+%s\n" % row for row in rows))
    return file


def anchor_of(file: FileDiff, quote: str, line: int | None) -> Anchor | None:
    return resolve(Claim("F1", line, line, quote, Severity.HIGH, "bug", "title", "body"), file)


def shown_rows(file: FileDiff) -> list[str]:
    return [row.split("|", 2)[2] for row in render_hunk(file.hunks[0]).split("\n")[1:-1]]


@pytest.mark.parametrize(
    "line",
    [
        b"key = '%s'" % KEY,
        KEY,
        b"pair = ('%s', '%s')" % (KEY, TOKEN),
        b"beep = '\x1b[31m\x07'",
        b"\x0c",
        b"nul = '\x00'",
        b"a\rb",
        b"mixed \x1b " + TOKEN,
        b"latin = '\xe9t\xe9 \x1b'",
        "weit = 'über\x1b'".encode(),
    ],
)
@pytest.mark.parametrize("hint", [2, 1, 3, 4])
def test_a_line_quoted_as_it_was_shown_is_found(line: bytes, hint: int) -> None:
    file = file_of(b"first = 1", line, b"third = 3", b"fourth = 4")
    assert anchor_of(file, shown_rows(file)[1], hint) == Anchor("x", "RIGHT", 2, 2)


def test_a_line_quoted_with_its_escapes_undone_is_found_too() -> None:
    file = file_of(b"first = 1", b"beep = '\x1b[31m'", b"beep = '\x1b[32m'")
    assert anchor_of(file, "beep = '\x1b[32m'", 2) == Anchor("x", "RIGHT", 3, 3)


def test_a_masked_line_is_told_from_one_that_differs_elsewhere() -> None:
    file = file_of(b"one = '%s'" % KEY, b"two = '%s'" % OTHER_KEY, b"one = os.environ['ONE']")
    quotes = shown_rows(file)
    assert quotes[0] == "one = '«masked: AWS key»'"
    assert [anchor_of(file, quote, None) for quote in quotes] == [Anchor("x", "RIGHT", n, n) for n in (1, 2, 3)]


def test_lines_that_are_masked_alike_are_told_apart_by_their_number_or_not_at_all() -> None:
    file = file_of(b"key = '%s'" % KEY, b"", b"", b"", b"key = '%s'" % OTHER_KEY)
    quote = shown_rows(file)[0]
    assert anchor_of(file, quote, 5) == Anchor("x", "RIGHT", 5, 5)
    assert anchor_of(file, quote, None) is None


def test_the_rows_of_a_private_key_are_found_with_the_line_before_them() -> None:
    rows = [b"-----BEGIN PRIVATE KEY-----", b"MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", b"-----END PRIVATE KEY-----"]
    file = file_of(b"key = '''", *rows, b"'''")
    assert anchor_of(file, "\n".join(shown_rows(file)[:4]), 1) == Anchor("x", "RIGHT", 1, 4)


ODD = st.sampled_from([KEY, TOKEN, b"\x00", b"\x1b[0m", b"\x0b", b"\r", b"\xff\xfe", b"\xe2\x80\xa8", b"\\ No newline"])
LINES = st.lists(
    st.tuples(st.lists(ODD, min_size=1, max_size=3), st.binary(max_size=12).filter(lambda text: b"\n" not in text)),
    min_size=1,
    max_size=8,
)


@given(LINES)
def test_every_shown_line_that_is_like_no_other_is_found_at_its_number(lines: list[tuple[list[bytes], bytes]]) -> None:
    rows = [b"name%d = " % number + b" ".join(odd) + text for number, (odd, text) in enumerate(lines)]
    file = file_of(*rows)
    for number, row in enumerate(shown_rows(file), start=1):
        assert re.match(rf"name{number - 1} = ", row)
        assert anchor_of(file, row, number) == Anchor("x", "RIGHT", number, number)
