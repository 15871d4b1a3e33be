"""The parser against git itself: names, modes, counts and bytes must be what git's other outputs say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pytest
from dulwich.diff_tree import tree_changes
from dulwich.objects import Commit
from dulwich.repo import Repo

from tests.fakes.git_repository import GitRepository, RawEntry, Tree
from worker.core.diff.model import FileDiff, Hunk
from worker.core.diff.parse import parse_diff

FILE, EXECUTABLE, SYMLINK, SUBMODULE = "100644", "100755", "120000", "160000"
A, B = b"1" * 40, b"2" * 40


def files(**contents: bytes) -> Tree:
    return {name.encode(): (FILE, content) for name, content in contents.items()}


def named(name: bytes, content: bytes, mode: str = FILE) -> Tree:
    return {name: (mode, content)}


def numbered(first: int, last: int, end: bytes = b"\n") -> bytes:
    return b"".join(b"line %d%s" % (number, end) for number in range(first, last + 1))


LONG = numbered(1, 60)
CHANGED = LONG.replace(b"line 5\n", b"five\n").replace(b"line 50\n", b"fifty\nand more\n")
BINARY = bytes(range(256)) * 4

# name → (base, head, further options of git diff)
CASES: dict[str, tuple[Tree, Tree, tuple[str, ...]]] = {
    "one line changed": (files(x=b"a\n"), files(x=b"b\n"), ()),
    "several hunks": (files(x=LONG), files(x=CHANGED), ()),
    "no context": (files(x=LONG), files(x=CHANGED), ("-U0",)),
    "much context": (files(x=LONG), files(x=CHANGED), ("-U1000",)),
    "inter hunk context": (files(x=LONG), files(x=CHANGED), ("--inter-hunk-context=50",)),
    "function context": (files(x=LONG), files(x=CHANGED), ("-W",)),
    "file added": ({}, files(x=b"a\nb\n"), ()),
    "file deleted": (files(x=b"a\nb\n"), {}, ()),
    "empty file added": ({}, files(x=b""), ()),
    "empty file deleted": (files(x=b""), {}, ()),
    "file emptied": (files(x=b"a\n"), files(x=b""), ()),
    "empty file filled": (files(x=b""), files(x=b"a\n"), ()),
    "no final newline before": (files(x=b"a\nb"), files(x=b"a\nb\n"), ()),
    "no final newline after": (files(x=b"a\nb\n"), files(x=b"a\nb"), ()),
    "no final newline on both sides": (files(x=b"a\nb"), files(x=b"a\nc"), ()),
    "no final newline in context": (files(x=b"a\nb\nc"), files(x=b"0\na\nb\nc"), ()),
    "added without final newline": ({}, files(x=b"a"), ()),
    "deleted without final newline": (files(x=b"a"), {}, ()),
    "CRLF": (files(x=numbered(1, 9, b"\r\n")), files(x=numbered(1, 9, b"\r\n").replace(b"5", b"V")), ()),
    "CRLF becomes LF": (files(x=b"a\r\nb\r\n"), files(x=b"a\nb\n"), ()),
    "lone CR": (files(x=b"a\rb\rc\n"), files(x=b"a\rB\rc\n"), ()),
    "only CR": (files(x=b"a\rb"), files(x=b"a\rc\r"), ()),
    "form feed and vertical tab": (files(x=b"a\f\nb\v\n"), files(x=b"a\f\nc\v\x1c\x1d\n"), ()),
    "U+2028 and U+0085 in a line": (
        files(x="a\u2028b\u0085c\n".encode()),
        files(x="a\u2028B\u0085c\u2029\n".encode()),
        (),
    ),
    "not UTF-8": (files(x=b"caf\xe9\n"), files(x=b"caf\xe8\xff\xfe\n"), ()),
    "UTF-16 as text": (files(x="a\n".encode("utf-16")), files(x="b\n".encode("utf-16")), ("--text",)),
    "NUL bytes as text": (files(x=b"a\0b\nc\n"), files(x=b"a\0\0b\nc\n"), ("--text",)),
    "very long line": (files(x=b"x" * 100_000 + b"\n"), files(x=b"y" * 100_000 + b"\n"), ()),
    "blank lines only": (files(x=b"\n\n\n"), files(x=b"\n\n\n\n\n"), ()),
    "white space only": (files(x=b" \n\t\n"), files(x=b"\t\n \n"), ()),
    "content like file headers": (
        files(x=b"a\n-- a/y\n++ b/y\n@@ -1 +1 @@\n"),
        files(x=b"a\n++ b/z\n-- a/z\ndiff --git a/q b/q\n@@ -1,9 +1,9 @@\n"),
        (),
    ),
    "deleted lines like a header": (files(x=b"-- a/x\n++ b/x\nk\n"), files(x=b"k\n"), ()),
    "added lines like a header": (files(x=b"k\n"), files(x=b"-- a/x\n++ b/x\n@@ -1 +1 @@\nk\n"), ()),
    "a diff in a file": (files(x=b"k\n"), files(x=b"diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"), ()),
    "content like a signature": (files(x=b"a\n- \n2.39\n"), files(x=b"a\n"), ()),
    "content with backslashes": (
        files(x=b"\\ No newline at end of file\na\n"),
        files(x=b"\\ No newline at end of file\n"),
        (),
    ),
    "section heading with @@": (
        files(x=b"def f(): # @@ -1 +1 @@\n" + numbered(1, 9)),
        files(x=b"def f(): # @@ -1 +1 @@\n" + numbered(1, 8) + b"n\n"),
        (),
    ),
    "blank in a name": (named(b"a b", b"1\n"), named(b"a b", b"2\n"), ()),
    "blank at the end of a name": (named(b"a ", b"1\n"), named(b"a ", b"2\n"), ()),
    "prefix in a name": (named(b"x b/x", b"1\n"), named(b"x b/x", b"2\n"), ()),
    "prefix in an empty file's name": ({}, named(b"x b/x b/x", b""), ()),
    "prefix in a name, mode only": (named(b"a b/a b", b"1\n"), named(b"a b/a b", b"1\n", EXECUTABLE), ()),
    "prefix in a binary's name": (named(b"a b/a b", BINARY), named(b"a b/a b", BINARY + b"x"), ()),
    "tab in a name": (named(b"a\tb", b"1\n"), named(b"a\tb", b"2\n"), ()),
    "newline in a name": (named(b"a\nb", b"1\n"), named(b"a\nb", b"2\n"), ()),
    "quotes and backslashes in a name": (named(b'a"b\\c', b"1\n"), named(b'a"b\\c', b"2\n"), ()),
    "every control character in a name": (
        named(bytes(range(1, 32)) + b"\x7f", b"1\n"),
        named(bytes(range(1, 32)) + b"\x7f", b"2\n"),
        (),
    ),
    "UTF-8 in a name": (named("ä/日本.txt".encode(), b"1\n"), named("ä/日本.txt".encode(), b"2\n"), ()),
    "UTF-8 in a name, not quoted": (
        named("ä 日".encode(), b"1\n"),
        named("ä 日".encode(), b"2\n"),
        ("-c", "core.quotePath=false"),
    ),
    "a name that is not UTF-8": (named(b"\xff\xe9", b"1\n"), named(b"\xff\xe9", b"2\n"), ()),
    "a name like an option": (named(b"--cached", b"1\n"), named(b"--cached", b"2\n"), ()),
    "a name like dev null": (named(b"dev/null", b"1\n"), named(b"dev/null", b"2\n"), ()),
    "octal in a binary's name": (named(b"\xc3\xa4 b/\xc3\xa4", BINARY), named(b"\xc3\xa4 b/\xc3\xa4", BINARY * 2), ()),
    "pure rename": (files(x=LONG), files(y=LONG), ("-M",)),
    "rename with a hunk": (files(x=LONG), files(y=CHANGED), ("-M",)),
    "rename to a quoted name": (files(x=LONG), named(b'y "\xff" \n', CHANGED), ("-M",)),
    "rename with blanks": (named(b"a b", LONG), named(b"c d b/e", LONG), ("-M",)),
    "rename and mode": (named(b"x", LONG), named(b"y", CHANGED, EXECUTABLE), ("-M",)),
    "rename of a binary": (files(x=BINARY * 9), files(y=BINARY * 9 + b"more"), ("-M",)),
    "rename of a symlink": (named(b"x", b"target/of/it", SYMLINK), named(b"y", b"target/of/it", SYMLINK), ("-M",)),
    "copy": (files(x=LONG), files(x=LONG, y=LONG), ("-C", "--find-copies-harder")),
    "copy with a hunk": (files(x=LONG), files(x=LONG, y=CHANGED), ("-C", "--find-copies-harder")),
    "rename both ways": (files(x=LONG, y=BINARY), files(x=BINARY, y=LONG), ("-M", "-B")),
    "rewrite": (files(x=LONG), files(x=numbered(100, 180)), ("-B",)),
    "renames off": (files(x=LONG), files(y=CHANGED), ("--no-renames",)),
    "mode only": (named(b"x", b"a\n"), named(b"x", b"a\n", EXECUTABLE), ()),
    "mode and content": (named(b"x", b"a\n"), named(b"x", b"b\n", EXECUTABLE), ()),
    "mode of an empty file": (named(b"x", b""), named(b"x", b"", EXECUTABLE), ()),
    "mode of a binary": (named(b"x", BINARY), named(b"x", BINARY + b"x", EXECUTABLE), ()),
    "file becomes symlink": (named(b"x", b"a\nb\n"), named(b"x", b"target", SYMLINK), ()),
    "symlink becomes file": (named(b"x", b"target", SYMLINK), named(b"x", b"a\nb\n"), ()),
    "empty file becomes symlink": (named(b"x", b""), named(b"x", b"t", SYMLINK), ()),
    "file becomes submodule": (named(b"x", b"a\n"), named(b"x", A, SUBMODULE), ()),
    "submodule becomes file": (named(b"x", A, SUBMODULE), named(b"x", b"a\n"), ()),
    "binary becomes symlink": (named(b"x", BINARY), named(b"x", b"t", SYMLINK), ()),
    "file becomes directory": (named(b"x", b"a\n"), named(b"x/y", b"a\n"), ("--no-renames",)),
    "symlink added": ({}, named(b"x", b"target", SYMLINK), ()),
    "symlink changed": (named(b"x", b"one", SYMLINK), named(b"x", b"two", SYMLINK), ()),
    "symlink with a newline": (named(b"x", b"one", SYMLINK), named(b"x", b"two\nthree\n", SYMLINK), ()),
    "submodule added": ({}, named(b"x", A, SUBMODULE), ()),
    "submodule changed": (named(b"x", A, SUBMODULE), named(b"x", B, SUBMODULE), ()),
    "submodule deleted": (named(b"x", A, SUBMODULE), {}, ()),
    "binary added": ({}, named(b"x", BINARY), ()),
    "binary changed": (named(b"x y", BINARY), named(b"x y", BINARY + b"x"), ()),
    "binary deleted": (named(b"x", BINARY), {}, ()),
    "binary patch": (named(b"x", BINARY), named(b"x", BINARY[::-1]), ("--binary",)),
    "binary patch added": ({}, {b"x y": (FILE, BINARY), b"z": (FILE, b"a\n")}, ("--binary",)),
    "binary patch by delta": (named(b"x", BINARY * 40), named(b"x", BINARY * 40 + b"tail"), ("--binary",)),
    "binary between text": (
        {b"a": (FILE, b"1\n"), b"b": (FILE, BINARY), b"c": (FILE, b"1\n")},
        {b"a": (FILE, b"2\n"), b"b": (FILE, BINARY[1:]), b"c": (FILE, b"2\n")},
        ("--binary",),
    ),
    "full index": (files(x=LONG), files(x=CHANGED), ("--full-index",)),
    "no prefix": (files(x=LONG), files(x=CHANGED), ("--no-prefix",)),
    "no prefix and a directory named a": (named(b"a/x", b"1\n"), named(b"a/x", b"2\n"), ("--no-prefix",)),
    "no prefix, file added": ({}, named(b"b/x", b"1\n"), ("--no-prefix",)),
    "mnemonic prefixes": (named(b"d/x", LONG), named(b"d/x", CHANGED), ("-c", "diff.mnemonicPrefix=true")),
    "prefixes of one's own": (named(b"d/x", b"1\n"), named(b"d/x", b"2\n"), ("--src-prefix=old/", "--dst-prefix=new/")),
    "patience": (files(x=LONG), files(x=CHANGED), ("--patience",)),
    "many files": (
        {b"d%d/f" % number: (FILE, b"%d\n" % number) for number in range(60)},
        {b"d%d/f" % number: (FILE, b"%d!\n" % number) for number in range(1, 61)},
        (),
    ),
}


@dataclass(frozen=True)
class Case:
    repository: GitRepository
    base: str
    head: str
    trees: tuple[Tree, Tree]
    options: tuple[str, ...]
    settings: tuple[str, ...]

    @cached_property
    def diff(self) -> bytes:
        return self.repository.git(*self.settings, "diff", "--no-color", *self.options, self.base, self.head)

    @property
    def pairing(self) -> tuple[str, ...]:
        """The options that decide which files are paired; the others would make git write a patch."""
        return tuple(
            option
            for option in self.options
            if option[:2] in ("-M", "-B", "-C") or "-renames" in option or "copies" in option
        )

    def raw(self) -> list[RawEntry]:
        return self.repository.raw(self.base, self.head, *self.pairing)

    def numstat(self) -> dict[bytes, tuple[int, int] | None]:
        return self.repository.numstat(self.base, self.head, *self.pairing)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    repository = GitRepository.create(tmp_path_factory.mktemp("cases"))
    commits = iter(repository.plant(*(tree for base, head, _ in CASES.values() for tree in (base, head))))
    planted = {}
    for name, (base, head, options) in CASES.items():
        settings = options if options[:1] == ("-c",) else ()
        planted[name] = Case(repository, next(commits), next(commits), (base, head), options[len(settings) :], settings)
    return planted


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, planted: dict[str, Case]) -> Case:
    return planted[request.param]


# Path, mode, blob: one side of a change as dulwich tells it.
Side = tuple[bytes, str, bytes]


def apply(hunks: tuple[Hunk, ...], old: bytes) -> bytes:
    """The new content by the hunks; fails where the old one is not what they say."""
    source = lines_of(old)
    result: list[bytes] = []
    at = 0
    for hunk in hunks:
        begin = hunk.old_start - 1 if hunk.old_lines else hunk.old_start
        result += source[at:begin]
        at = begin
        assert len(result) + 1 == (hunk.new_start if hunk.new_lines else hunk.new_start + 1)
        for line in hunk.lines():
            content = line.text + (b"\n" if line.has_newline else b"")
            if line.sign != "+":
                assert source[at] == content
                at += 1
            if line.sign != "-":
                result.append(content)
    return b"".join(result + source[at:])


def lines_of(content: bytes) -> list[bytes]:
    lines = [line + b"\n" for line in content.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def shown(tree: Tree, path: bytes | None) -> bytes:
    """A file's content as a diff shows it."""
    if path is None:
        return b""
    mode, content = tree[path]
    return b"Subproject commit " + content + b"\n" if mode == SUBMODULE else content


def rebuilt(file: FileDiff, base: Tree) -> bytes:
    old = shown(base, file.old_path)
    if file.status == "type-changed":
        # A deletion and an addition: the second starts from nothing.
        gone = tuple(hunk for hunk in file.hunks if hunk.new_lines == 0)
        assert apply(gone, old) == b""
        return apply(tuple(hunk for hunk in file.hunks if hunk.old_lines == 0), b"")
    return apply(file.hunks, old)


def test_files_are_what_git_s_raw_output_says(case: Case) -> None:
    parsed = {file.raw_path: file for file in parse_diff(case.diff)}
    raw = case.raw()
    assert set(parsed) == {entry.new_path for entry in raw}
    for entry in raw:
        file = parsed[entry.new_path]
        assert file.old_path == (None if entry.status == "A" else entry.old_path)
        assert file.new_path == (None if entry.status == "D" else entry.new_path)
        expected = {"A": "added", "D": "deleted", "T": "type-changed", "R": "renamed", "C": "copied", "M": "modified"}
        if entry.status == "M" and entry.old_blob == entry.new_blob:
            assert file.status == "mode-changed"
        else:
            assert file.status == expected[entry.status[0]]
        if entry.status[0] in "RC":
            assert file.similarity == int(entry.status[1:])
        if file.old_blob is not None and file.new_blob is not None:
            assert entry.old_blob.startswith(file.old_blob)
            assert entry.new_blob.startswith(file.new_blob)
            assert (file.old_mode or "000000", file.new_mode or "000000") == (entry.old_mode, entry.new_mode)


def test_counts_are_what_git_s_numstat_says(case: Case) -> None:
    numstat = case.numstat()
    for file in parse_diff(case.diff):
        counted = numstat[file.raw_path]
        if counted is None:
            # Of a binary that was moved and not changed, the patch says nothing that tells it from text.
            assert file.is_binary or "--text" in case.options or file.similarity == 100
        else:
            assert (file.added, file.removed) == counted
        lines = [line for hunk in file.hunks for line in hunk.lines()]
        assert file.added == sum(line.sign == "+" for line in lines)
        assert file.removed == sum(line.sign == "-" for line in lines)


def test_hunks_make_the_new_blob_of_the_old_one(case: Case) -> None:
    base, head = case.trees
    for file in parse_diff(case.diff):
        if not file.is_binary:
            assert rebuilt(file, base) == shown(head, file.new_path)


def test_every_byte_of_a_body_is_git_s_own(case: Case) -> None:
    diff = case.diff
    at = 0
    for file in parse_diff(diff):
        for hunk in file.hunks:
            found = diff.find(b" @@", at)
            begin = diff.find(hunk.body, found)
            assert begin >= 0
            at = begin + len(hunk.body)


def test_the_suite_has_at_least_sixty_cases() -> None:
    assert len(CASES) >= 60


def test_dulwich_sees_the_same_changes_and_blobs(case: Case) -> None:
    with Repo(str(case.repository.root)) as store:
        objects = store.object_store
        trees = []
        for commit_id in (case.base, case.head):
            commit = objects[commit_id.encode()]
            assert isinstance(commit, Commit)
            trees.append(commit.tree)
        seen: dict[bytes, list[Side | None]] = {}
        for change in tree_changes(objects, *trees):
            sides = [
                None if side is None or side.path is None else (side.path, f"{side.mode:06o}", side.sha)
                for side in (change.old, change.new)
            ]
            path = sides[1][0] if sides[1] else sides[0][0] if sides[0] else b""
            # A change of type is two of dulwich's changes.
            before = seen.get(path, [None, None])
            seen[path] = [before[0] or sides[0], before[1] or sides[1]]
        parsed = parse_diff(case.repository.diff(case.base, case.head, "--no-renames"))
        assert {file.raw_path for file in parsed} == set(seen)
        for file in parsed:
            old, new = seen[file.raw_path]
            assert (file.old_path, file.new_path) == (old and old[0], new and new[0])
            if file.old_mode and file.new_mode:
                assert (file.old_mode, file.new_mode) == (old and old[1], new and new[1])
            if not file.is_binary and SUBMODULE not in (file.old_mode, file.new_mode):
                contents = [b"" if side is None else objects[side[2]].as_raw_string() for side in (old, new)]
                base = {} if file.old_path is None else {file.old_path: (FILE, contents[0])}
                assert rebuilt(file, base) == contents[1]
