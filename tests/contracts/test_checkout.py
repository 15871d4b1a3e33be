"""What any tree shows of a change, whether it was fetched from a forge or read from a folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from tests.fakes.git_server import BareRepository, GitServer
from worker.checkout import CheckoutLimits, MirrorCheckout, open_local
from worker.core.change import Change, ChangeRef
from worker.core.diff.parse import parse_diff
from worker.ports import Remote, Tree

T = TypeVar("T")
Open = Callable[[str, str, CheckoutLimits], AbstractAsyncContextManager[Tree]]


class Bench:
    """A repository to write into, and one way of opening a change of it."""

    def __init__(self, repository: BareRepository, open_tree: Open) -> None:
        self.repository = repository
        self._open = open_tree

    def ask(self, base: str, head: str, question: Callable[[Tree], Awaitable[T]], **limits: int) -> T:
        """What `question` gets from the tree of a change from `base` to `head`."""

        async def run() -> T:
            async with self._open(base, head, CheckoutLimits(**limits)) as tree:
                return await question(tree)

        return asyncio.run(run())

    def diff(self, base: str, head: str) -> bytes:
        async def question(tree: Tree) -> bytes:
            return (await tree.snapshot()).diff

        return self.ask(base, head, question)


@pytest.fixture(params=["mirror", "mirror-without-filter", "local"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with GitServer(tmp_path / "forge", allows_filter=request.param != "mirror-without-filter") as server:
        repository = server.create("owner/name")

        @asynccontextmanager
        async def from_forge(base: str, head: str, limits: CheckoutLimits) -> AsyncIterator[Tree]:
            repository.ref("refs/heads/main", base)
            repository.pull(7, head)
            change = Change(ChangeRef("github", "owner/name", 7), head=head, base=base, base_branch="main")
            checkout = MirrorCheckout(tmp_path / "mirrors", limits)
            async with checkout.open(change, Remote(server.url_of("owner/name"))) as tree:
                yield tree

        @asynccontextmanager
        async def from_folder(base: str, head: str, limits: CheckoutLimits) -> AsyncIterator[Tree]:
            async with open_local(repository.path, f"{base}..{head}", limits=limits) as tree:
                yield tree

        yield Bench(repository, from_folder if request.param == "local" else from_forge)


def test_the_diff_stands_between_the_merge_base_and_the_head(bench: Bench) -> None:
    root = bench.repository.commit({"a.txt": "one\n", "b.txt": "two\n"})
    main = bench.repository.commit({"b.txt": "moved on\n"}, parent=root)
    head = bench.repository.commit({"a.txt": "ONE\n"}, parent=root)

    async def question(tree: Tree) -> None:
        snapshot = await tree.snapshot()
        assert (snapshot.base, snapshot.head, snapshot.cut) == (root, head, ())
        assert b"-one\n+ONE\n" in snapshot.diff
        assert b"b.txt" not in snapshot.diff

    bench.ask(main, head, question)


def test_a_merge_of_the_base_into_the_head_does_not_show_the_bases_own_work(bench: Bench) -> None:
    root = bench.repository.commit({"a.txt": "one\n"})
    main = bench.repository.commit({"b.txt": "theirs\n"}, parent=root)
    mine = bench.repository.commit({"c.txt": "mine\n"}, parent=main)
    assert b"theirs" not in bench.diff(main, mine)


def test_a_change_without_content_is_an_empty_diff(bench: Bench) -> None:
    root = bench.repository.commit({"a.txt": "one\n"})
    head = bench.repository.commit({}, parent=root, message="nothing")
    assert bench.diff(root, head) == b""


def test_unrelated_histories_show_the_difference_of_their_trees(bench: Bench) -> None:
    one = bench.repository.commit({"a.txt": "one\n"})
    other = bench.repository.commit({"b.txt": "other\n"})
    diff = bench.diff(one, other)
    assert b"-one\n" in diff
    assert b"+other\n" in diff


def test_renames_modes_symlinks_submodules_and_binaries_are_told_in_gits_words(bench: Bench) -> None:
    text = "".join(f"line {number}\n" for number in range(40))
    root = bench.repository.commit({"old.txt": text, "run.sh": "x\n", "pic": b"\0\1"})
    head = bench.repository.commit(
        {
            "old.txt": None,
            "new.txt": text + "more\n",
            "run.sh": "x\n",
            "pic": b"\0\2",
            "link": "/etc/passwd",
            "sub": "1" * 40,
            ".gitmodules": '[submodule "sub"]\n\tpath = sub\n\turl = ext::sh -c "touch owned"\n',
        },
        parent=root,
        modes={"run.sh": "100755", "link": "120000", "sub": "160000"},
    )
    diff = bench.diff(root, head)
    for words in (
        b"rename from old.txt\nrename to new.txt\n",
        b"old mode 100644\nnew mode 100755\n",
        b"new file mode 120000\n",
        b"+Subproject commit 1111111111111111111111111111111111111111\n",
        b"Binary files a/pic and b/pic differ\n",
    ):
        assert words in diff


def test_a_symlink_is_read_as_its_targets_text(bench: Bench) -> None:
    root = bench.repository.commit({"a": "x\n"})
    head = bench.repository.commit({"link": "/etc/passwd"}, parent=root, modes={"link": "120000"})
    assert bench.ask(root, head, lambda tree: tree.read("link", revision=head)) == b"/etc/passwd"


def test_a_path_that_names_no_blob_reads_as_nothing(bench: Bench) -> None:
    root = bench.repository.commit({"a.txt": "x\n", "src/b.txt": "y\n"})
    head = bench.repository.commit({"sub": "1" * 40}, parent=root, modes={"sub": "160000"})

    async def question(tree: Tree) -> None:
        outside = ["../../etc/passwd", "/etc/passwd", "src/../a.txt", "./a.txt", "a.txt\0b"]
        for path in [*outside, "src", "src/", "", "*.txt", ":(glob)**", "sub", "missing", "-h"]:
            assert await tree.read(path, revision=head) is None, path

    bench.ask(root, head, question)


def test_odd_paths_are_read_and_searched_as_exactly_themselves(bench: Bench) -> None:
    names = [
        b"new\nline",
        b'quo"te',
        b"tab\there",
        b"\xff\xfe.py",
        b"--help",
        b":(top)x",
        b"[a]*?",
        b" lead",
        "ü.py".encode(),
    ]
    root = bench.repository.commit({"base": "x\n"})
    head = bench.repository.commit({name: b"needle in " + name + b"\n" for name in names}, parent=root)

    async def question(tree: Tree) -> None:
        for name in names:
            path = name.decode("utf-8", "surrogateescape")
            assert await tree.read(path, revision=head) == b"needle in " + name + b"\n"
        found = await tree.search("needle", revision=head, limit=50)
        assert {match.path.encode("utf-8", "surrogateescape") for match in found} == set(names)

    bench.ask(root, head, question)


def test_both_sides_of_a_change_can_be_read(bench: Bench) -> None:
    root = bench.repository.commit({"a.txt": "old\n"})
    head = bench.repository.commit({"a.txt": "new\n"}, parent=root)

    async def question(tree: Tree) -> None:
        assert await tree.read("a.txt", revision=root) == b"old\n"
        assert await tree.read("a.txt", revision=head) == b"new\n"
        assert await tree.read("a.txt", revision=head, limit_bytes=3) is None

    bench.ask(root, head, question)


def test_a_search_finds_literals_and_runs_no_pattern(bench: Bench) -> None:
    root = bench.repository.commit({"a.py": "def f(x):\n    return x\n", "b.bin": b"\0f(x)"})
    head = bench.repository.commit({"c.py": "f(x)\nfax\n-O\n"}, parent=root)

    async def question(tree: Tree) -> None:
        found = await tree.search("f(x)", revision=head)
        assert [(match.path, match.line, match.text) for match in found] == [
            ("a.py", 1, "def f(x):"),
            ("c.py", 1, "f(x)"),
        ]
        assert await tree.search("f.x", revision=head) == ()
        assert [match.text for match in await tree.search("-O", revision=head)] == ["-O"]
        assert await tree.search("f(x)", revision=head, limit=1) == found[:1]
        assert await tree.search("", revision=head) == ()

    bench.ask(root, head, question)


def test_attributes_of_a_change_change_nothing_about_its_diff(bench: Bench) -> None:
    root = bench.repository.commit({"a.py": "one\n", ".gitattributes": "* -diff\n*.py diff=evil filter=evil -text\n"})
    head = bench.repository.commit({"a.py": "two\n", ".gitattributes": "* binary\n"}, parent=root)
    assert b"-one\n+two\n" in bench.diff(root, head)


def test_a_diff_beyond_its_limit_ends_at_a_file_and_names_the_rest_with_their_lines(bench: Bench) -> None:
    root = bench.repository.commit({"a": "x\n"})
    head = bench.repository.commit({f"f{number}.txt": "line\n" * 200 for number in range(5)}, parent=root)

    async def question(tree: Tree) -> None:
        snapshot = await tree.snapshot()
        assert snapshot.diff.count(b"diff --git ") == 2
        assert snapshot.diff.count(b"\n+line") == 400
        assert [(path, lines) for path, _, lines in snapshot.cut] == [(f"f{number}.txt", 200) for number in (2, 3, 4)]
        assert "3,000 bytes" in snapshot.cut[0][1]

    bench.ask(root, head, question, diff_bytes=3_000)


def test_a_nul_hides_no_line_of_a_source(bench: Bench) -> None:
    code = b"<?php\n" + b"echo 1;\n" * 40
    wide = "\ufeffclass A {}\r\n"
    root = bench.repository.commit(
        {
            "a.php": code,
            "old.js": code + b"// \0\n",
            "w.cs": wide.encode("utf-16-le"),
            "pic.png": b"\x89PNG\0",
            "t.py": "x\n",
        }
    )
    head = bench.repository.commit(
        {
            "a.php": code.replace(b"echo 1;\n", b"system($x); /* \0 */\n", 1),
            "old.js": None,
            "new.js": code + b"// \0\nmore();\n",
            "gone/deploy": b'#!/bin/sh\nrm -r "$1" # \0\n',
            "stuffed.php": b"<?php f(); /*" + b"\0" * 99,
            "w.cs": (wide + "class B {}\r\n").encode("utf-16-le"),
            "pic.png": b"\x89PNG\0\0",
            "tool": b"\x7fELF" + bytes(range(256)),
            "t.py": "y\n",
        },
        parent=root,
    )

    async def question(tree: Tree) -> None:
        snapshot = await tree.snapshot()
        files = {file.path: file for file in parse_diff(snapshot.diff)}
        assert b"+system($x); /* \0 */\n" in snapshot.diff
        assert b'+rm -r "$1" # \0\n' in snapshot.diff
        assert (files["new.js"].status, files["new.js"].added, files["new.js"].removed) == ("renamed", 1, 0)
        assert files["t.py"].changed == 2
        assert {path for path, file in files.items() if file.is_binary} == {"stuffed.php", "w.cs", "pic.png", "tool"}
        assert [(path, lines) for path, _, lines in snapshot.cut] == [("stuffed.php", 0)]

    bench.ask(root, head, question)


def test_sources_with_a_nul_that_are_too_large_together_are_named(bench: Bench) -> None:
    root = bench.repository.commit({"a.txt": "x\n"})
    head = bench.repository.commit({"a.txt": "y\n", "a.php": b"<?php /*\0*/\n" + b"f();\n" * 500}, parent=root)

    async def question(tree: Tree) -> None:
        snapshot = await tree.snapshot()
        assert b"+y\n" in snapshot.diff
        assert [path for path, _, _ in snapshot.cut] == ["a.php"]

    bench.ask(root, head, question, diff_bytes=1_500)
