"""A folder is read as its objects: whatever its configuration would like git to run, does not run."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import worker.checkout.tree
from tests.fakes.git_server import BareRepository, git
from worker.checkout import CheckoutLimits, open_local
from worker.checkout.process import COMPARED_BYTES
from worker.checkout.scratch import scratch_folder
from worker.core.change import Snapshot
from worker.core.errors import BadInput


def snapshot(repository: Path, revisions: str) -> Snapshot:
    async def run() -> Snapshot:
        async with open_local(repository, revisions) as tree:
            found = await tree.snapshot()
            await tree.search("one", revision=found.head)
            await tree.read("a.py", revision=found.head)
            return found

    return asyncio.run(run())


def repository_at(path: Path) -> tuple[Path, str, str]:
    """A work tree with two commits on main; their ids."""
    path.mkdir(parents=True)
    git(path, "init", "--quiet", "--initial-branch=main")
    commits = []
    for text in ("one\n", "two\n"):
        (path / "a.py").write_text(text)
        git(path, "add", "a.py")
        git(path, "commit", "--quiet", "-m", text)
        commits.append(git(path, "rev-parse", "HEAD"))
    return path, commits[0], commits[1]


def test_a_range_shows_what_a_change_of_b_into_a_would_show(tmp_path: Path) -> None:
    repository, first, second = repository_at(tmp_path / "repo")
    git(repository, "checkout", "--quiet", "-b", "side", first)
    (repository / "b.py").write_text("side\n")
    git(repository, "add", "b.py")
    git(repository, "commit", "--quiet", "-m", "side")
    found = snapshot(repository, "main..side")
    assert found.base == first
    assert b"+side" in found.diff
    assert b"two" not in found.diff
    assert snapshot(repository, "HEAD~1..main").head == second


def test_text_too_large_to_compare_is_no_binary_file_and_hides_nothing_below_its_path(tmp_path: Path) -> None:
    repository, _, _ = repository_at(tmp_path / "repo")
    (repository / "place").mkdir()
    (repository / "place/check.py").write_text("check()\n")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "a folder")
    shutil.rmtree(repository / "place")
    (repository / "place").write_bytes(b"a line\n" * (COMPARED_BYTES // 7 + 1))
    (repository / "image").write_bytes(b"\0" * (COMPARED_BYTES + 1))
    (repository / "a.py").write_text("three\n")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "a file in its place")
    found = snapshot(repository, "HEAD~1..HEAD")
    assert b"+three" in found.diff
    assert b"Binary files /dev/null and b/image differ" in found.diff
    reason = "text of more than 52,428,800 bytes, which is not compared by lines"
    assert found.cut == (("place", reason, 0), ("place/check.py", reason, 0))


def test_nothing_that_a_repository_configures_is_run(tmp_path: Path) -> None:
    repository, _, _ = repository_at(tmp_path / "repo")
    owned = tmp_path / "owned"
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\ntouch {owned}\n")
    script.chmod(0o755)
    for key in (
        "core.fsmonitor",
        "core.sshCommand",
        "core.pager",
        "core.askPass",
        "core.gitProxy",
        "core.editor",
        "core.alternateRefsCommand",
        "diff.external",
        "diff.evil.textconv",
        "diff.evil.command",
        "filter.evil.smudge",
        "filter.evil.clean",
        "filter.evil.process",
        "uploadpack.packObjectsHook",
        "credential.helper",
        "gpg.program",
        "alias.diff",
    ):
        git(repository, "config", key, f"!{script}" if key == "alias.diff" else str(script))
    git(repository, "config", "core.hooksPath", str(tmp_path))
    git(repository, "config", "include.path", str(tmp_path / "more"))
    git(repository, "config", "extensions.partialClone", "origin")
    git(repository, "config", "remote.origin.promisor", "true")
    git(repository, "config", "remote.origin.url", f"ext::{script}")
    git(repository, "config", "protocol.ext.allow", "always")
    (repository / ".git/info/attributes").write_text("*.py diff=evil filter=evil\n")
    (repository / ".gitattributes").write_text("*.py diff=evil filter=evil\n")
    for hook in ("post-checkout", "pre-commit", "post-index-change", "reference-transaction", "fsmonitor-watchman"):
        (repository / ".git/hooks").mkdir(exist_ok=True)
        (repository / ".git/hooks" / hook).symlink_to(script)
    assert b"-one\n+two\n" in snapshot(repository, "HEAD~1..HEAD").diff
    missing = "1" * 40
    with pytest.raises(BadInput):
        snapshot(repository, f"{missing}..HEAD")
    assert not owned.exists()


def test_configuration_of_the_repository_does_not_alter_the_diff(tmp_path: Path) -> None:
    repository, first, second = repository_at(tmp_path / "repo")
    plain = snapshot(repository, f"{first}..{second}").diff
    for key, value in {
        "diff.noprefix": "true",
        "diff.mnemonicPrefix": "true",
        "diff.context": "0",
        "diff.algorithm": "patience",
        "diff.renames": "false",
        "diff.colorMoved": "default",
        "color.ui": "always",
        "color.diff": "always",
        "diff.orderFile": str(repository / "a.py"),
        "diff.submodule": "log",
        "core.quotePath": "false",
        "core.abbrev": "4",
    }.items():
        git(repository, "config", key, value)
    git(repository, "replace", second, first)
    assert snapshot(repository, f"{first}..{second}").diff == plain


@pytest.mark.parametrize(
    ("revisions", "words"),
    [
        ("main...side", "two dots"),
        ("main", "no range"),
        ("", "no range"),
        ("..main", "both ends"),
        ("main..", "both ends"),
        ("a..b..c", "both ends"),
        ("nowhere..main", "'nowhere' names no commit"),
        ("main..--upload-pack=x", "names no commit"),
        ("main..HEAD:a.py", "names no commit"),
        ("main..-h", "names no commit"),
    ],
)
def test_a_range_that_cannot_be_is_told_with_its_cure(tmp_path: Path, revisions: str, words: str) -> None:
    repository, _, _ = repository_at(tmp_path / "repo")
    with pytest.raises(BadInput, match=words):
        snapshot(repository, revisions)


def test_a_folder_that_is_no_repository_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="not a git repository"):
        snapshot(tmp_path / "empty", "a..b")
    with pytest.raises(BadInput, match="not a directory"):
        snapshot(tmp_path / "missing", "a..b")


@pytest.mark.parametrize("name", ["with space", "$HOME", 'quo"te', "back\\slash", "new\nline", "ü", "a:b"])
def test_the_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    repository, _, _ = repository_at(tmp_path / name)
    assert b"-one\n+two\n" in snapshot(repository, "HEAD~1..HEAD").diff


def test_a_subfolder_a_second_work_tree_and_a_bare_clone_are_the_repository_too(tmp_path: Path) -> None:
    repository, _, _ = repository_at(tmp_path / "repo")
    (repository / "sub").mkdir()
    git(repository, "worktree", "add", "--quiet", str(tmp_path / "second"), "-b", "second")
    git(tmp_path, "clone", "--quiet", "--bare", str(repository), str(tmp_path / "bare"))
    plain = snapshot(repository, "HEAD~1..HEAD").diff
    for folder in (repository / "sub", tmp_path / "second", tmp_path / "bare", repository / ".git"):
        assert snapshot(folder, "HEAD~1..HEAD").diff == plain


def test_a_shallow_clone_shows_what_it_has_and_says_what_it_lacks(tmp_path: Path) -> None:
    repository, first, _ = repository_at(tmp_path / "repo")
    (repository / "a.py").write_text("three\n")
    git(repository, "commit", "--quiet", "-am", "three")
    git(tmp_path, "clone", "--quiet", "--depth=2", f"file://{repository}", str(tmp_path / "shallow"))
    assert b"-two\n+three\n" in snapshot(tmp_path / "shallow", "HEAD~1..HEAD").diff
    with pytest.raises(BadInput):
        snapshot(tmp_path / "shallow", f"{first}..HEAD")


def test_a_partial_clone_says_which_command_fills_it(tmp_path: Path) -> None:
    repository, _, _ = repository_at(tmp_path / "repo")
    git(repository, "config", "uploadpack.allowFilter", "true")
    clone = ["clone", "--quiet", "--bare", "--filter=blob:none", f"file://{repository}", str(tmp_path / "partial")]
    git(tmp_path, *clone)
    with pytest.raises(BadInput, match="refetch"):
        snapshot(tmp_path / "partial", "HEAD~1..HEAD")


def test_a_path_is_found_in_a_revision_of_few_files_and_of_too_many_to_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, _, _ = repository_at(tmp_path / "repo")

    async def found() -> list[bytes | None]:
        async with open_local(repository, "HEAD~1..HEAD") as tree:
            paths = ("a.py", "b.py", "../repo/a.py", "a.py/", ":(top)a.py")
            texts = [await tree.read(path, revision=tree.head) for path in paths]
            return [*texts, await tree.read("a.py", revision=tree.head, limit_bytes=3)]

    few = asyncio.run(found())
    assert few == [b"two\n", None, None, None, None, None]
    monkeypatch.setattr(worker.checkout.tree, "_LISTING_BYTES", 10)
    assert asyncio.run(found()) == few


def test_a_damaged_object_is_told_with_what_to_do(tmp_path: Path) -> None:
    repository, _, _ = repository_at(tmp_path / "repo")
    blob = git(repository, "rev-parse", "HEAD:a.py").strip()
    loose = repository / ".git/objects" / blob[:2] / blob[2:]
    loose.chmod(0o600)
    loose.write_bytes(b"not zlib")
    with pytest.raises(BadInput, match="git fsck"):
        snapshot(repository, "HEAD~1..HEAD")


def test_reading_a_folder_writes_nothing_into_it(tmp_path: Path) -> None:
    repository, _, _ = repository_at(tmp_path / "repo")
    before = {path: path.stat().st_mtime_ns for path in repository.rglob("*")}
    snapshot(repository, "HEAD~1..HEAD")
    assert {path: path.stat().st_mtime_ns for path in repository.rglob("*")} == before


def test_many_files_and_one_very_long_line_stay_within_the_limits(tmp_path: Path) -> None:
    path = tmp_path / "big.git"
    path.mkdir()
    git(path, "init", "--quiet", "--bare")
    repository = BareRepository(path)
    root = repository.commit({"a": "another\n"})
    blob = repository.blob(b"x\n")
    rows = "".join(f"100644 blob {blob}\tf{number}\n" for number in range(20_000))
    tree = git(
        path, "mktree", stdin=rows.encode() + f"100644 blob {repository.blob(b'y' * 5_000_000)}\tlong\n".encode()
    )
    head = git(path, "commit-tree", tree, "-p", root, "-m", "many")

    async def run() -> None:
        async with open_local(path, f"{root}..{head}", limits=CheckoutLimits(diff_bytes=1_000_000)) as opened:
            found = await opened.snapshot()
            shown = found.diff.count(b"\ndiff --git ") + found.diff.startswith(b"diff --git ")
            assert len(found.diff) <= 1_000_000
            assert shown + len(found.cut) == 20_002
            assert ("long", 1) in {(name, lines) for name, _, lines in found.cut}

    asyncio.run(run())


def test_names_reach_git_as_they_are_where_the_machine_knows_ascii_alone(tmp_path: Path) -> None:
    path = tmp_path / "répo"
    path.mkdir()
    git(path, "init", "--quiet", "--bare")
    repository = BareRepository(path)
    root = repository.commit({"é.py": "def größe(): pass\n"})
    repository.ref("refs/heads/ältere", root)
    head = repository.commit({"é.py": "def größe(): pass\nx = größe()\n"}, parent=root)
    code = (
        "import asyncio, pathlib, sys\n"
        "import worker.checkout.tree\n"
        "from worker.checkout import open_local\n"
        "worker.checkout.tree._LISTING_BYTES = 10\n"
        "async def run():\n"
        "    async with open_local(pathlib.Path(sys.argv[1]), sys.argv[2]) as tree:\n"
        "        found = await tree.search('gr\\xf6\\xdfe(', revision=tree.head)\n"
        "        data = await tree.read('\\xe9.py', revision=tree.head)\n"
        "        print(sys.getfilesystemencoding(), [match.line for match in found], len(data))\n"
        "asyncio.run(run())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), f"ältere..{head}"],
        env={"PATH": os.environ["PATH"], "LC_ALL": "C", "PYTHONUTF8": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("ascii [1, 2] 34\n", "")


def test_a_machine_without_git_is_told_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/env").symlink_to(shutil.which("env") or "/usr/bin/env")
    code = (
        "import asyncio, pathlib\n"
        "from worker.checkout import open_local\n"
        "from worker.core.errors import ConfigurationError\n"
        "async def run():\n"
        "    async with open_local(pathlib.Path('.'), 'a..b'):\n"
        "        pass\n"
        "try:\n"
        "    asyncio.run(run())\n"
        "except ConfigurationError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PATH": str(tmp_path / "bin")}, capture_output=True, text=True, check=False
    )
    assert done.stdout == "git was not found: install git 2.38 or newer.\n", done.stderr


def test_what_a_killed_review_left_is_swept_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    hour_ago = time.time() - 3600
    (tmp_path / "precious").mkdir()
    (tmp_path / "kimi-review-range-link").symlink_to(tmp_path / "precious")
    left = (tmp_path / "kimi-review-range-left", tmp_path / "kimi-review-demo-left")
    for folder in (*left, tmp_path / "kimi-review-range-young", tmp_path / "kimi-review-other"):
        (folder / "objects").mkdir(parents=True)
    for name in (*(folder.name for folder in left), "kimi-review-other", "precious"):
        os.utime(tmp_path / name, (hour_ago, hour_ago))
    with scratch_folder("range") as held:
        os.utime(held, (hour_ago, hour_ago))
        assert not any(folder.exists() for folder in left)
        with scratch_folder("demo"):
            assert held.exists(), "somebody works there"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "kimi-review-other",
        "kimi-review-range-link",
        "kimi-review-range-young",
        "precious",
    ]
