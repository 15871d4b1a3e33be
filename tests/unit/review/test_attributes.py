"""Marks of the base's `.gitattributes`, at the root and in folders, held against git's own reading of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.fakes.git_repository import GitRepository
from worker.core.change import Snapshot
from worker.core.planning.globs import Attributes
from worker.ports import Match
from worker.review.attributes import MOST_FOLDERS, attributes_of_base, folders_of

FILES = {
    ".gitattributes": "*.gen linguist-generated\n/top.js linguist-generated\nlib/*.js linguist-vendored\n",
    "lib/.gitattributes": "*.gen -linguist-generated\nours.js linguist-vendored=false\n/made.js linguist-generated\n",
    "lib/deep/.gitattributes": "*.gen linguist-generated=true\ninner/** linguist-generated\n",
    "lib/deep/inner/.gitattributes": "kept.py !linguist-generated\n",
    "other/.gitattributes": "# nothing\n\n[attr]mine linguist-generated\n* text=auto\n",
}
PATHS = (
    "top.js",
    "sub/top.js",
    "a.gen",
    "lib/a.gen",
    "lib/ours.js",
    "lib/theirs.js",
    "lib/made.js",
    "lib/deep/made.js",
    "lib/deep/a.gen",
    "lib/deep/inner/a.py",
    "lib/deep/inner/kept.py",
    "lib/deep/inner/more/a.py",
    "library/a.gen",
    "other/a.gen",
)


class Texts:
    """A tree of one revision, in memory; `asked` has the paths that were read."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files
        self.asked: list[str] = []

    async def snapshot(self) -> Snapshot:
        return Snapshot(head="h", base="b", diff=b"")

    async def read(self, path: str, *, revision: str, limit_bytes: int = 1_000_000) -> bytes | None:
        assert revision == "b"
        self.asked.append(path)
        text = self.files.get(path)
        return None if text is None else text.encode()

    async def search(self, literal: str, *, revision: str, limit: int = 20) -> Sequence[Match]:
        return ()

    async def grep(self, pattern: str, *, revision: str) -> Sequence[Match]:
        return ()


def marks_by_git(root: Path) -> dict[str, tuple[str, str]]:
    repository = GitRepository.create(root)
    for path, text in FILES.items():
        repository.write(path, text.encode())
    rows = repository.git("check-attr", "-z", "linguist-generated", "linguist-vendored", "--", *PATHS)
    words = rows.decode().split("\0")[:-1]
    said = {(words[at], words[at + 1]): words[at + 2] for at in range(0, len(words), 3)}
    return {path: (said[path, "linguist-generated"], said[path, "linguist-vendored"]) for path in PATHS}


def test_every_mark_is_what_git_makes_of_it(tmp_path: Path) -> None:
    words = {"set": True, "unset": False, "unspecified": None, "true": True, "false": False}
    attributes = asyncio.run(attributes_of_base(Texts(FILES), "b", PATHS))
    ours = {path: attributes.marks(path) for path in PATHS}
    theirs = marks_by_git(tmp_path / "r")
    assert {path: (marks.generated, marks.vendored) for path, marks in ours.items()} == {
        path: (words[generated], words[vendored]) for path, (generated, vendored) in theirs.items()
    }
    assert ours["lib/deep/a.gen"].generated is True
    assert ours["lib/a.gen"].generated is False


def test_only_folders_above_changed_files_are_looked_into() -> None:
    tree = Texts(FILES)
    attributes = asyncio.run(attributes_of_base(tree, "b", ["lib/a.gen"]))
    assert tree.asked == [".gitattributes", "lib/.gitattributes"]
    assert attributes.marks("lib/a.gen").generated is False


def test_a_change_of_very_many_folders_reads_the_upper_ones_and_those_with_most_files() -> None:
    tree = Texts(FILES)
    paths = [f"d{number}/x.py" for number in range(2 * MOST_FOLDERS)] + ["d99/y.py", "d99/e/z.py"]
    asyncio.run(attributes_of_base(tree, "b", paths))
    assert len(tree.asked) == MOST_FOLDERS
    assert tree.asked[:2] == [".gitattributes", "d99/.gitattributes"]
    assert "d99/e/.gitattributes" not in tree.asked


@pytest.mark.parametrize(("tree", "base"), [(None, "b"), (Texts(FILES), "")])
def test_without_a_repository_or_a_base_there_are_no_marks(tree: Texts | None, base: str) -> None:
    assert asyncio.run(attributes_of_base(tree, base, PATHS)) == Attributes()


def test_the_root_comes_first_and_a_folder_before_those_within() -> None:
    assert folders_of(["a/b/c.py", "z.py", "a/d/e/f.py"]) == ["", "a", "a/b", "a/d", "a/d/e"]
    assert folders_of([]) == [""]
