"""`demo`: a finished review and what to type next, also where the clone has no history to show."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.git_server import BareRepository, git
from tests.fakes.shell import Shell
from worker.cli.demo_history import two_commits
from worker.core.errors import BadInput

FAULTY = "def add(item, to=[]):\n    to.append(item)\n    return to\n"


def bare_repository(path: Path) -> BareRepository:
    path.mkdir()
    git(path, "init", "--quiet", "--bare", "--initial-branch=main")
    return BareRepository(path)


@pytest.fixture
def shallow(tmp_path: Path) -> Path:
    """A clone of depth 1 of a repository with three commits."""
    origin = bare_repository(tmp_path / "origin.git")
    first = origin.commit({"README": "x\n"})
    second = origin.commit({"README": "x\n", "src/shop.py": FAULTY}, parent=first)
    origin.ref("refs/heads/main", origin.commit({"README": "y\n", "src/shop.py": FAULTY}, parent=second))
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{origin.path}", str(clone))
    return clone


def test_the_history_that_a_shallow_clone_lacks_adds_its_own_files(shallow: Path, tmp_path: Path) -> None:
    made, base, head = two_commits(shallow, tmp_path / "made")
    assert git(made, "diff", "--name-status", base, head) == "A\tsrc/shop.py"
    assert git(made, "rev-parse", f"{head}^{{tree}}") == git(shallow, "rev-parse", "HEAD^{tree}")
    assert git(shallow, "rev-list", "--count", "--all") == "1"


def test_a_repository_without_source_files_is_told_so(tmp_path: Path) -> None:
    origin = bare_repository(tmp_path / "origin.git")
    origin.ref("refs/heads/main", origin.commit({"README": "x\n"}))
    with pytest.raises(BadInput, match="--repo"):
        two_commits(origin.path, tmp_path / "made")


def test_it_ends_with_a_posted_review_and_what_to_type_next(shallow: Path, tmp_path: Path) -> None:
    done = Shell(shallow, tmp_path / "home")("demo")
    assert (done.returncode, done.stderr) == (0, "")
    for said in ("one commit alone", "it is no model", "src/shop.py:1", "3 of 3 changed lines reviewed", "1 review"):
        assert said in done.stdout
    assert "What to type next" in done.stdout
    assert "kimi-review check" in done.stdout
