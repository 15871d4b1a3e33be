"""For the demo in a clone of one commit: the history that it lacks, made of its own files."""

from __future__ import annotations

from pathlib import Path

from worker.checkout.failures import last_words
from worker.checkout.process import Bounds, GitRunner
from worker.core.errors import BadInput
from worker.standin.checks import faults_in

FILES = 12
TELLING_FILES = 4
LARGEST_BYTES = 20_000
_STEP = Bounds(total_s=60)
_SOURCES = (b".py", b".js", b".ts", b".tsx", b".go", b".rs", b".java", b".rb", b".php", b".c", b".cc", b".cpp", b".cs")
_AUTHOR = ("-c", "user.name=kimi-review demo", "-c", "user.email=demo@localhost")


def two_commits(where: Path, folder: Path) -> tuple[Path, str, str]:
    """A repository in `folder`, and its two commits: HEAD of `where` without a few files, then with them.

    `where` is only read. Raises `BadInput` when it has no commit, or no source file to show.
    """
    theirs = GitRunner(where, is_git_dir=False)
    tree = _text(theirs, "rev-parse", "--verify", "--end-of-options", "HEAD^{tree}")
    objects = _text(theirs, "rev-parse", "--path-format=absolute", "--git-path", "objects")
    bare = folder / "history.git"
    bare.mkdir(parents=True)
    ours = GitRunner(bare)
    _said(ours, "init", "--quiet", "--bare", "--template=", "--initial-branch=main")
    (bare / "objects" / "info" / "alternates").write_text(f"{objects}\n")
    chosen = _telling(ours, tree)
    if not chosen:
        raise BadInput("There is no source file to review. Give --repo with a git repository that has a history.")
    _said(ours, "read-tree", tree)
    gone = b"".join(b"0 " + b"0" * len(tree) + b"\t" + path + b"\0" for path in chosen)
    _said(ours, "update-index", "-z", "--index-info", stdin=gone)
    base = _text(ours, *_AUTHOR, "commit-tree", "-m", "Without a few files", _text(ours, "write-tree"))
    head = _text(ours, *_AUTHOR, "commit-tree", "-m", "With them", "-p", base, tree)
    _said(ours, "update-ref", "refs/heads/main", head)
    return bare, base, head


def _telling(git: GitRunner, tree: str) -> list[bytes]:
    """Paths of source files of `tree`: first a few in which the stand-in's checks strike, then others."""
    sources: list[tuple[bytes, bytes]] = []
    for row in _said(git, "ls-tree", "-r", "-z", "-l", tree).split(b"\0"):
        facts, _, path = row.partition(b"\t")
        words = facts.split()
        if path.endswith(_SOURCES) and words[1] == b"blob" and 0 < int(words[3]) <= LARGEST_BYTES:
            sources.append((words[2], path))
    contents = _contents(git, [sha for sha, _ in sources])
    striking = [path for sha, path in sources if _strikes(contents[sha], path)][:TELLING_FILES]
    others = [path for _, path in sources if path not in striking]
    return (striking + others)[:FILES]


def _contents(git: GitRunner, blobs: list[bytes]) -> dict[bytes, bytes]:
    answer = _said(git, "cat-file", "--batch", stdin=b"".join(sha + b"\n" for sha in blobs))
    found: dict[bytes, bytes] = {}
    at = 0
    for sha in blobs:
        header_end = answer.index(b"\n", at)
        size = int(answer[at:header_end].split()[2])
        found[sha] = answer[header_end + 1 : header_end + 1 + size]
        at = header_end + size + 2
    return found


def _strikes(content: bytes, path: bytes) -> bool:
    name = path.decode("utf-8", "replace")
    return any(any(faults_in(line, path=name)) for line in content.decode("utf-8", "replace").split("\n"))


def _said(git: GitRunner, *arguments: str, stdin: bytes = b"") -> bytes:
    done = git.run(arguments, bounds=_STEP, stdin=stdin)
    if done.code != 0:
        raise BadInput(f"git cannot make the demo's history of this repository: {last_words(done.errors)}")
    return done.output


def _text(git: GitRunner, *arguments: str) -> str:
    return _said(git, *arguments).decode().removesuffix("\n")
