"""What was built before the change is known by its text at the base, whatever rows the change touches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.fakes.changes import Edited, diff_of
from worker.core.change import Snapshot
from worker.core.diff.model import FileDiff
from worker.core.diff.parse import parse_diff
from worker.core.errors import Unreachable
from worker.core.exchange import Kind
from worker.core.model_info import Budget
from worker.ports import Flow, Match
from worker.providers.tokens import o200k_counter
from worker.review.built import LEAST_CHANGED, MOST_READ, built_at_base
from worker.review.planning import Planning, Subject
from worker.review.prompts import words

BUNDLE = b"function add(a, b) {\n  return a + b;\n}\n" * 200 + b"module.exports = __nccwpck_require__(7);\n"
MINIFIED = b"var a=1;" * 50 + b"\n"


class Base:
    """A tree that holds `files` at the base."""

    def __init__(self, files: dict[str, bytes], *, is_away: bool = False) -> None:
        self.files = files
        self.is_away = is_away
        self.read_paths: list[str] = []

    async def snapshot(self) -> Snapshot:
        return Snapshot(head="h", base="b", diff=b"")

    async def read(self, path: str, *, revision: str, limit_bytes: int = 1_000_000) -> bytes | None:
        assert revision == "b"
        self.read_paths.append(path)
        if self.is_away:
            raise Unreachable("git is away")
        text = self.files.get(path)
        return text if text is None or len(text) <= limit_bytes else None

    async def search(self, literal: str, *, revision: str, limit: int = 20) -> Sequence[Match]:
        return ()

    async def grep(self, pattern: str, *, revision: str) -> Sequence[Match]:
        return ()


def edited(*paths: str, rows: int = LEAST_CHANGED) -> tuple[FileDiff, ...]:
    return parse_diff(diff_of([Edited(path, ((900, (("+", b"  call(1);"),) * rows),)) for path in paths]))


def found(tree: Base | None, *files: FileDiff) -> frozenset[str]:
    return asyncio.run(built_at_base(tree, "b", files))


def test_a_bundle_and_a_minified_file_are_known_by_what_they_were() -> None:
    tree = Base({"dist/a.js": BUNDLE, "dist/b.js": MINIFIED * 10, "dist/c.js": b"call(1)\n" * 900, "lib/d.js": BUNDLE})
    assert found(tree, *edited("dist/a.js", "dist/b.js", "dist/c.js", "lib/d.js")) == {"dist/a.js", "dist/b.js"}


def test_few_changed_lines_are_reviewed_whatever_the_file_is() -> None:
    tree = Base({"dist/a.js": BUNDLE})
    assert found(tree, *edited("dist/a.js", rows=LEAST_CHANGED - 1)) == frozenset()
    assert tree.read_paths == []


def test_what_cannot_be_read_is_reviewed_and_a_hostile_number_of_files_is_not_read() -> None:
    assert found(None, *edited("dist/a.js")) == frozenset()
    assert found(Base({"dist/a.js": BUNDLE}, is_away=True), *edited("dist/a.js")) == frozenset()
    assert found(Base({"dist/a.js": b"x" * 6_000_000}), *edited("dist/a.js")) == frozenset()
    tree = Base({})
    found(tree, *edited(*(f"dist/{number}.js" for number in range(100))))
    assert len(tree.read_paths) == MOST_READ


@pytest.mark.parametrize(("former", "reason"), [(BUNDLE, "generated file"), (b"call(1)\n" * 900, None)])
def test_the_ledger_names_a_bundle_of_which_the_change_shows_no_mark(former: bytes, reason: str | None) -> None:
    diff = diff_of([Edited("dist/a.js", ((900, (("+", b"  call(1);"),) * 30),))])
    budget = Budget(window_tokens=262_144, output_tokens=65_536, token_factor=1.1, chunk_tokens=20_000)
    planning = Planning(budget=budget, words=words(Kind.FINDINGS), count=o200k_counter())
    subject = Subject(name="local", flow=Flow(change="local", repository="local"))
    snapshot = Snapshot(head="h", base="b", diff=diff)
    plan = asyncio.run(planning.plan(subject, snapshot, tree=Base({"dist/a.js": former}))).plan
    assert [row.reason for row in plan.ledger.not_reviewed] == ([reason] if reason else [])
    assert len(plan.chunks) == (0 if reason else 1)
