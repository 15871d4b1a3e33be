"""What holds for every diff: git's own of random trees, and what is left of one after bytes were changed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.git_repository import GitRepository, Tree
from tests.unit.core.diff.test_parse import CASES, rebuilt, shown
from worker.core.diff.parse import parse_diff
from worker.core.errors import BadInput

name_part = st.binary(min_size=1, max_size=5).filter(
    lambda name: not set(name) & {0, 0x2F} and name not in (b".", b"..")
)
names = name_part.filter(lambda name: name.lower() not in (b".git", b"git~1"))
line = st.sampled_from(
    [b"", b"a", b"b", b"-- a/x", b"++ b/x", b"@@ -1 +1 @@", b"diff --git a/x b/x", b"\\ No", b"\r", b"\xff"]
)
content = st.builds(
    lambda lines, end: b"\n".join(lines) + end, st.lists(line, max_size=12), st.sampled_from([b"", b"\n"])
)
entry = st.tuples(st.sampled_from(["100644", "100755", "120000"]), content)
trees = st.dictionaries(names, entry, max_size=4)


@pytest.fixture(scope="module")
def repository() -> Iterator[GitRepository]:
    with TemporaryDirectory() as folder:
        yield GitRepository.create(Path(folder))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(base=trees, changes=trees, moved=st.booleans())
def test_every_random_tree_is_rebuilt_from_its_diff(
    repository: GitRepository, base: Tree, changes: Tree, moved: bool
) -> None:
    head = {**base, **changes}
    if moved and base:
        path = min(base)
        head[path + b" moved"] = head.pop(path)
    old, new = repository.plant(base, head)
    parsed = parse_diff(repository.diff(old, new, "--text", "--find-renames"))
    assert {file.raw_path for file in parsed if file.new_path} == {
        path for path in head if base.get(path) != head[path]
    }
    for file in parsed:
        assert rebuilt(file, base) == shown(head, file.new_path)


@pytest.fixture(scope="module")
def diffs(repository: GitRepository) -> list[bytes]:
    small = [(base, head) for base, head, _ in CASES.values() if sum(len(text) for _, text in head.values()) < 5_000]
    commits = repository.plant(*(tree for pair in small for tree in pair))
    return [repository.diff(old, new, "-M") for old, new in zip(commits[::2], commits[1::2], strict=True)]


def test_a_damaged_diff_is_read_or_refused_and_nothing_else(diffs: list[bytes]) -> None:
    dice = random.Random(20240501)
    scraps = [
        b"\n",
        b"+",
        b"-",
        b" ",
        b"@@ -1 +1 @@\n",
        b"diff --git ",
        b"--- ",
        b"\\",
        b'"',
        b"\t",
        b"\0",
        b"GIT binary patch\n",
    ]
    refused = 0
    for _ in range(4_000):
        diff = bytearray(dice.choice(diffs) + dice.choice(diffs))
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(diff) + 1)
            match dice.randrange(4):
                case 0:
                    del diff[at : at + dice.randint(1, 40)]
                case 1:
                    diff[at:at] = dice.choice(scraps)
                case 2:
                    diff[at : at + 1] = bytes([dice.randrange(256)])
                case _:
                    del diff[at:]
        try:
            files = parse_diff(bytes(diff))
        except BadInput as error:
            refused += 1
            assert "line " in str(error)  # noqa: PT017 # only one of two ends raises
            continue
        for file in files:
            for hunk in file.hunks:
                signs = [line.sign for line in hunk.lines()]
                assert hunk.new_lines == sum(sign != "-" for sign in signs)
                assert hunk.old_lines == sum(sign != "+" for sign in signs)
    assert 0 < refused < 4_000


@given(st.binary())
def test_any_bytes_are_read_or_refused(diff: bytes) -> None:
    with suppress(BadInput):
        assert isinstance(parse_diff(diff), tuple)
