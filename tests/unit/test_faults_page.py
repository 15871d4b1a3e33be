"""docs/faults.md promises ends and names their proofs: each of them must be a test that is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    line
    for line in (ROOT / "docs" / "faults.md").read_text("utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| what goes wrong")
]


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree.body if isinstance(node, functions) and node.name.startswith("test_"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:60])
def test_every_row_has_an_end_in_words_and_names_tests_that_are_there(row: str) -> None:
    fault, end, proof = (cell.strip() for cell in row.strip("|").split(" | "))
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", proof)
    assert fault
    assert end
    assert named
    assert len(named) == proof.count("`") / 2, "each proof is `path::test`"
    for path, name in named:
        assert (ROOT / path).is_file(), path
        assert name in names_in(path), f"{path} has no {name}"


def test_the_page_has_rows_for_each_part_of_the_program() -> None:
    assert len(ROWS) >= 50
