"""Each kind of request has its words, and its schema keeps to what Moonshot takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import prompts
from worker.core.exchange import Kind
from worker.core.finding import Severity
from worker.review.prompts import words

FOLDER = Path(prompts.__file__).parent
REFUSED = {
    "oneOf",
    "allOf",
    "not",
    "const",
    "pattern",
    "format",
    "exclusiveMinimum",
    "uniqueItems",
    "$schema",
    "examples",
}


def test_every_kind_has_a_folder_of_the_same_shape_and_every_folder_a_kind() -> None:
    folders = {path.name: {file.name for file in path.iterdir()} for path in FOLDER.iterdir() if path.is_dir()}
    folders.pop("__pycache__", None)
    assert folders == {kind.value: {"system.md", "reminder.md", "schema.json"} for kind in Kind}


def nodes(schema: dict[str, object], depth: int = 1) -> Iterator[tuple[int, dict[str, object]]]:
    """Every node of a schema with its level."""
    yield depth, schema
    for child in (*_members(schema, "properties"), schema.get("items")):
        if isinstance(child, dict):
            yield from nodes(child, depth + 1)


def _members(schema: dict[str, object], name: str) -> list[object]:
    value = schema.get(name)
    return list(value.values()) if isinstance(value, dict) else []


@pytest.mark.parametrize("kind", Kind)
def test_schemas_are_flat_and_keep_to_moonshots_subset(kind: Kind) -> None:
    for depth, node in nodes(words(kind).schema):
        assert "type" in node
        assert depth <= 5
        assert not REFUSED & node.keys()
        if node["type"] == "object":
            assert node["additionalProperties"] is False
            assert list(_members({"properties": node["properties"]}, "properties"))
            assert node["required"] == list(node["properties"])  # type: ignore[call-overload]  # a dict by the line above


@pytest.mark.parametrize("kind", Kind)
def test_no_line_of_the_words_looks_like_a_line_under_review(kind: Kind) -> None:
    for text in (words(kind).system, words(kind).reminder):
        assert not re.search(r"^(?:F\d+ |C\d+ |\d+\|.\||\|-\|)", text, re.MULTILINE)
        assert text.endswith("\n")


def test_the_severities_in_the_schema_are_those_of_the_program() -> None:
    text = (FOLDER / "findings" / "schema.json").read_text("utf-8")
    assert f'"enum": [{", ".join(f"{chr(34)}{severity}{chr(34)}" for severity in Severity)}]' in text
