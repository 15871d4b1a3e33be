"""Diffs that no `git diff` of two commits wrote: other programs' output, mail, and broken text."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fakes.git_repository import GitRepository
from worker.core.diff.parse import parse_diff
from worker.core.errors import BadInput

HEADER = b"diff --git a/x b/x\nindex 1111111..2222222 100644\n--- a/x\n+++ b/x\n"
ONE = HEADER + b"@@ -1 +1 @@\n-a\n+b\n"


def test_nothing_is_no_change() -> None:
    assert parse_diff(b"") == parse_diff(b" \n\n") == ()


@pytest.mark.parametrize(
    ("diff", "line", "cure"),
    [
        (b"hello\n", 1, "git diff"),
        (b"\xff\xfed\0i\0f\0f\0", 1, "--output"),
        (b"\x1b[1mdiff --git a/x b/x\x1b[m\n", 1, "--no-color"),
        (ONE[:-1], 7, "whole"),
        (ONE[:-3], 7, "whole"),
        (HEADER + b"@@ -1,9 +1 @@\n-a\n+b\n", 8, "whole"),
        (HEADER + b"@@ -1 +1 @@\n-a\n+b\n+c\n", 8, "more lines"),
        (HEADER + b"@@ -1 +1 @@\n-a\n+b\n-- c\n", 8, "more lines"),
        (HEADER + b"@@ -1,2 +1,2 @@\n-a\nb\n+c\n d\n", 7, "fewer lines"),
        (HEADER + b"@@ -1 +1 @@\n\\ No newline at end of file\n-a\n+b\n", 6, "fewer lines"),
        (HEADER + b"@@ -1 @@\n-a\n", 5, "hunk"),
        (HEADER + b"@@ -1 +1 @@\n-a\n+b\n@@ nonsense\n", 8, "hunk header"),
        (HEADER + b"@@ -1,2 +1,1 @@\n-a\n+b\n+c\n", 8, "add up"),
        (HEADER, 5, "whole"),
        (HEADER[:30], 2, "whole"),
        (b"diff --git a/x b/x\nindex 1111111..2222222 100644\n", 3, "whole"),
        (b"diff --git a/x b/x\nindex 1111111..2222222 100644\n--- a/x\n", 4, "whole"),
        (b"diff --git a/x b/x\n@@ -1 +1 @@\n-a\n+b\n", 2, "---"),
        (b"diff --git a/x b/y z b/w\nold mode 100644\nnew mode 100755\n", 1, "prefixes"),
        (b"diff --git a/x b/x\nGIT binary patch\nliteral 9\nzabc\n", 3, "cut off"),
        (b"@@ -1 +1 @@\n-a\n+b\n", 1, "belongs to no file"),
        (b" -a\n@@ -1 +1 @@\n-a\n+b\n" + ONE, 2, "belongs to no file"),
        (b"diff --cc x\nindex 1,2..3\n--- a/x\n+++ b/x\n@@@ -1,1 -1,1 +1,1 @@@\n- a\n -b\n++c\n", 1, "BASE...HEAD"),
        (b"* Unmerged path x\n", 1, "resolve"),
        (b"diff --git a/x b/x\n--- /dev/null\n+++ /dev/null\n@@ -0,0 +1 @@\n+a\n", 1, "/dev/null"),
        (b"Only in old: y\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", 1, "-ruN"),
    ],
)
def test_what_cannot_be_read_whole_is_refused_with_its_line_and_the_cure(diff: bytes, line: int, cure: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse_diff(diff)
    assert f"line {line}:" in str(refused.value)
    assert cure in str(refused.value)


def test_a_diff_cut_anywhere_is_refused_or_is_its_first_files_whole() -> None:
    diff = ONE + ONE.replace(b"x", b"yy") + b"diff --git a/z b/z\nold mode 100644\nnew mode 100755\n"
    whole = parse_diff(diff)
    for length in range(len(diff)):
        try:
            files = parse_diff(diff[:length])
        except BadInput:
            continue
        assert files == whole[: len(files)]


def test_a_plain_diff_has_no_git_lines(tmp_path: Path) -> None:
    for side, content in (("old", b"a\nb\n"), ("new", b"a\nc\n")):
        (tmp_path / side / "d").mkdir(parents=True)
        (tmp_path / side / "d" / "x y").write_bytes(content)
    (tmp_path / "old" / "gone").write_bytes(b"1\n")
    (tmp_path / "new" / "come").write_bytes(b"2\n")
    (tmp_path / "old" / "bin").write_bytes(b"\0\1")
    (tmp_path / "new" / "bin").write_bytes(b"\0\2")
    done = subprocess.run(
        ["diff", "-ruN", "old", "new"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
    )
    files = {file.path: file for file in parse_diff(done.stdout)}
    assert {path: file.status for path, file in files.items()} == {
        "d/x y": "modified",
        "gone": "deleted",
        "come": "added",
        "bin": "modified",
    }
    assert files["bin"].is_binary
    assert (files["d/x y"].added, files["d/x y"].removed) == (1, 1)


def test_a_single_plain_file_keeps_its_names() -> None:
    [file] = parse_diff(b"--- x.c\t2024-01-01 00:00:00\n+++ x.c\t2024-01-02 00:00:00\n@@ -1 +1 @@\n-a\n+b\n")
    assert (file.old_path, file.new_path, file.status) == (b"x.c", b"x.c", "modified")


def test_plain_files_that_follow_each_other_are_not_one_hunk() -> None:
    plain = b"--- %s\n+++ %s\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
    files = parse_diff(plain % (b"a/x", b"b/x") + plain % (b"a/y", b"b/y"))
    assert [file.path for file in files] == ["x", "y"]
    assert [file.changed for file in files] == [2, 2]


def test_a_mail_from_format_patch_is_read(tmp_path: Path) -> None:
    repository = GitRepository.create(tmp_path)
    repository.write("x", b"a\n-- \n")
    repository.commit()
    repository.write("x", b"a\n")
    repository.write("y", b"- item\n")
    repository.commit("subject\n\n--- a/no\n+++ b/no\nOnly in words: of a message\n")
    mail = repository.git("format-patch", "--stdout", "HEAD~1")
    shown = repository.git("show", "HEAD")
    logged = repository.git("log", "-p", "-2")
    assert [(file.path, file.changed) for file in parse_diff(mail)] == [("x", 1), ("y", 1)]
    assert parse_diff(shown) == parse_diff(mail)
    assert [file.path for file in parse_diff(logged)] == ["x", "y", "x"]


def test_a_diff_whose_lines_all_end_in_crlf_is_read() -> None:
    [file] = parse_diff(ONE.replace(b"\n", b"\r\n"))
    assert file.path == "x"
    assert [line.text for line in file.hunks[0].lines()] == [b"a\r", b"b\r"]


def test_a_byte_order_mark_is_passed_over() -> None:
    assert parse_diff(b"\xef\xbb\xbf" + ONE) == parse_diff(ONE)


def test_context_lines_whose_blank_was_stripped_are_context() -> None:
    [file] = parse_diff(HEADER + b"@@ -1,3 +1,3 @@\n\n-a\n+b\n\n")
    assert [(line.sign, line.text) for line in file.hunks[0].lines()] == [
        (" ", b""),
        ("-", b"a"),
        ("+", b"b"),
        (" ", b""),
    ]


def test_a_submodule_s_log_names_the_submodule() -> None:
    diff = b"Submodule lib/x 1111111..2222222:\n  > a commit\n" + ONE
    assert [(file.path, file.new_mode) for file in parse_diff(diff)] == [("lib/x", "160000"), ("x", "100644")]


def test_unequal_names_without_a_rename_are_both_kept() -> None:
    [file] = parse_diff(
        b"diff --git a/old/x b/new/x\nindex 1111111..2222222 100644\n--- a/old/x\n+++ b/new/x\n@@ -1 +1 @@\n-a\n+b\n"
    )
    assert (file.old_path, file.new_path) == (b"old/x", b"new/x")


def test_reading_takes_time_in_proportion_to_length() -> None:
    hunk = b"@@ -%d,9 +%d,10 @@ def f():\n" + b" context line\n" * 8 + b"-removed\n+added\n+more\n"
    diff = HEADER + b"".join(hunk % (at * 20, at * 20 + at) for at in range(1, 10_001))
    started = time.process_time()
    [file] = parse_diff(diff)
    assert len(file.hunks) == 10_000
    # Generous for a loaded machine: 120,000 lines take some 60 ms.
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "diff",
    [
        b"diff --git " + b"a " * 200_000 + b"\n",
        ONE + b"--- x\n" * 100_000,
        b"Binary files " + b" and " * 100_000 + b" differ\n",
        b'diff --git "' + b"\\" * 300_001 + b"\n",
        ONE + b"Submodule " + b"abcdef0.." * 50_000 + b"\n",
        (b"diff --git a/x b/x\nold mode 100644\nnew mode 100755\n") * 20_000,
        HEADER + b"@@ -1,100000 +1,100000 @@\n" + b"\n" * 100_000,
        (b"--- x\n+++ x\n@@ -1 +1 @@\n-a\n+b\n") * 20_000,
    ],
)
def test_hostile_text_does_not_take_long(diff: bytes) -> None:
    started = time.process_time()
    with suppress(BadInput):
        parse_diff(diff)
    assert time.process_time() - started < 3


def test_a_coloured_diff_is_refused_also_where_one_line_of_it_has_no_colour() -> None:
    """git colours neither `Binary files` lines nor context."""
    coloured = (
        b"\x1b[1mdiff --git a/a.png b/a.png\x1b[m\n\x1b[1mindex 1234567..89abcde 100644\x1b[m\n"
        b"Binary files a/a.png and b/a.png differ\n"
        b"\x1b[1mdiff --git a/a.py b/a.py\x1b[m\n\x1b[1mindex 1234567..89abcde 100644\x1b[m\n"
        b"\x1b[1m--- a/a.py\x1b[m\n\x1b[1m+++ b/a.py\x1b[m\n"
        b"\x1b[36m@@ -1 +1 @@\x1b[m\n\x1b[31m-a\x1b[m\n\x1b[32m+b\x1b[m\n"
    )
    with pytest.raises(BadInput, match="--no-color"):
        parse_diff(coloured)


@pytest.mark.parametrize(
    "said",
    [
        b"diff -r 000000000000 img/a b.png\nBinary file img/a b.png has changed\n",
        b"Index: img/a b.png\n===================\nCannot display: file marked as a binary type.\nsvn:mime-type = x\n",
    ],
)
def test_a_binary_file_of_mercurial_or_subversion_is_named(said: bytes) -> None:
    text = b"--- a.py\n+++ a.py\n@@ -1 +1 @@\n-a\n+b\n"
    for diff in (said, said + text, text + said):
        found = {file.path: file for file in parse_diff(diff)}
        assert found["img/a b.png"].is_binary
        assert sum(file.changed for file in found.values()) == (2 if text in diff else 0)
