"""What git calls binary for one NUL, and what it is."""

from __future__ import annotations

import random

import pytest

from worker.core.sources import Kind, kind_of, may_be_source

CODE = "<?php\n// größer als früher\nsystem($_GET['c']); /* \0 */\n"
WIDE = CODE.replace("\0", "")


@pytest.mark.parametrize("path", ["a.php", "A.PHP", "web/x.inc", "Makefile", "bin/run", ".env"])
def test_one_nul_in_a_source_leaves_it_text(path: str) -> None:
    assert may_be_source(path)
    assert kind_of(path, CODE.encode()) is Kind.TEXT
    assert kind_of(path, CODE.encode("latin-1")) is Kind.TEXT


@pytest.mark.parametrize("path", ["logo.png", "lib/x.so", "data.tar", "a.php/logo.gif"])
def test_what_is_named_like_a_binary_file_is_not_looked_into(path: str) -> None:
    assert not may_be_source(path)


def test_a_source_that_is_stuffed_with_nuls_is_doubtful() -> None:
    assert kind_of("a.php", CODE.encode() + b"\0" * 50) is Kind.DOUBTFUL
    assert kind_of("run", b"#!/bin/sh\n" + b"\0" * 50) is Kind.DOUBTFUL


def test_a_program_without_a_suffix_is_binary() -> None:
    assert kind_of("bin/tool", b"\x7fELF" + random.Random(7).randbytes(2_000)) is Kind.BINARY


@pytest.mark.parametrize("mark", ["utf-16-le", "utf-16-be"])
def test_text_in_utf_16_is_what_git_calls_it(mark: str) -> None:
    for text in (WIDE, "Größe, Ζεύς, Наука: – “x” €\r\n"):
        assert kind_of("a.cs", ("\ufeff" + text).encode(mark)) is Kind.BINARY


@pytest.mark.parametrize("text", [WIDE, "x" * 2_000 + WIDE])
def test_code_in_ascii_does_not_pass_for_utf_16_by_its_first_bytes(text: str) -> None:
    hidden = "\ufeff".encode("utf-16-le") + "\ufeff// nothing\n".encode("utf-16-le") * 9 + text.encode()
    assert kind_of("a.php", hidden) is not Kind.BINARY
