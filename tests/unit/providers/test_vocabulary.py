"""A mounted vocabulary counts as it says, and one that is none is told at the start."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.bootstrap import planning_for
from worker.core.errors import ConfigurationError
from worker.providers.catalogue import lookup
from worker.providers.vocabulary import mounted_counter, ranks_of
from worker.settings import Role, load

BYTES = [bytes([code]) for code in range(256)]
MERGES = [b"he", b"ll", b"hell", b"hello", b" w", b"or", b" wor", b"ld", b" world", "中".encode()[:2], "中".encode()]


def vocabulary(tokens: Iterable[bytes]) -> bytes:
    rows = (b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(tokens))
    return b"".join(rows)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("vocabulary") / "tiktoken.model"
    file.write_bytes(vocabulary([*BYTES, *MERGES]))
    return file


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("hello", 1),
        ("hello world", 2),
        ("hello  world", 3),
        ("hell", 1),
        # Runs of Han are split from what stands beside them, so nothing merges over the border.
        ("中hello中", 3),
        ("12345", 5),
        ("<|endoftext|>", 13),
    ],
)
def test_text_takes_the_tokens_that_the_vocabulary_has_for_it(path: Path, text: str, tokens: int) -> None:
    count = mounted_counter(path)
    assert count(text) == count(text.encode()) == tokens


@pytest.mark.parametrize("unit", ["a", " ", "中", "\r\n", "hello ", "😀"], ids=repr)
def test_long_runs_are_counted(path: Path, unit: str) -> None:
    assert 0 < mounted_counter(path)(unit * 100_000) <= len((unit * 100_000).encode())


@given(st.binary(max_size=200), st.text(max_size=50))
def test_no_text_makes_counting_fail_or_takes_more_tokens_than_bytes(path: Path, data: bytes, text: str) -> None:
    count = mounted_counter(path)
    assert count(data) <= len(data.decode("utf-8", "replace").encode())
    assert count.each([data, text]) == [count(data), count(text)]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "256 of the 256 single bytes"),
        (b"not base64! 0\n", "line 1"),
        (vocabulary(BYTES) + b"aGVsbG8=\n", "line 257"),
        (vocabulary(BYTES) + b"aGVsbG8= x\n", "line 257"),
        (vocabulary(BYTES) + b"aGVsbG8= 300\n", "without a gap"),
        (vocabulary(BYTES) + b"aGVsbG8= 255\n", "without a gap"),
        (vocabulary(BYTES[:-1]), "1 of the 256 single bytes"),
        (b"\x80\x04pickled", "line 1"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "line 1"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_told_when_the_settings_are_read(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    file = tmp_path / "tiktoken.model"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError) as raised:
        load({"LLM_TOKENIZER_FILE": str(file)}, role=Role.PLAN, dotenv=None)
    [line] = raised.value.problems
    assert line.startswith("LLM_TOKENIZER_FILE: ")
    assert problem in line
    assert "tiktoken.model of a Kimi model" in line


def test_a_file_that_is_missing_or_a_folder_is_told_too(tmp_path: Path) -> None:
    for wrong in (tmp_path / "none", tmp_path, "no\0path"):
        with pytest.raises(ConfigurationError, match="LLM_TOKENIZER_FILE: the file cannot be read"):
            load({"LLM_TOKENIZER_FILE": str(wrong)}, role=Role.PLAN, dotenv=None)


def test_planning_counts_by_it_without_a_factor(path: Path) -> None:
    settings = load({"LLM_TOKENIZER_FILE": str(path)}, role=Role.PLAN, dotenv=None)
    planning = planning_for(settings, lookup("kimi-k2.6"))
    assert planning.budget.token_factor == 1.0
    assert planning.count("hello world") == 2
    assert planning.has_own_vocabulary


def test_the_order_of_lines_and_blank_ones_do_not_matter() -> None:
    rows = vocabulary(BYTES).splitlines(keepends=True)
    assert ranks_of(b"\n" + b"".join(reversed(rows)))[b"\x00"] == 0
