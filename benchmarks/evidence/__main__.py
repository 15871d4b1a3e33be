"""Share of definitions of names on changed lines that a request holds: plain diff, `git diff -W`, and our evidence.

Two releases of each package come from the package index by pip and become two commits. Changed Python files
are packed into chunks of about 16,000 tokens; truth comes from Python's own parser.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.evidence.truth import Module, Place, Repository, names_on, read_module
from worker.checkout import open_local
from worker.core.diff.model import FileDiff
from worker.core.diff.parse import parse_diff
from worker.core.evidence.blocks import render
from worker.core.planning.plan import Chunk, ChunkFile
from worker.core.planning.rendering import render_file
from worker.providers.tokens import o200k_counter
from worker.review.evidence import EvidenceSource

RANGES = (
    ("celery", "5.4.0", "5.5.0"),
    ("httpx", "0.27.0", "0.28.0"),
    ("starlette", "0.37.0", "0.46.0"),
    ("redis", "5.2.0", "6.0.0"),
    ("rich", "13.0.0", "14.0.0"),
)
CHUNK_TOKENS = 16_000
BUDGETS = (0.5, 1.0, 1.5, 2.0)
"""Evidence tokens allowed, as a multiple of the diff's own."""


@dataclass
class Score:
    """Sums over chunks. A name counts once for each file of a chunk that has it on a changed line."""

    anywhere: int = 0
    meant: int = 0
    tokens: int = 0

    def add(self, other: Score) -> None:
        self.anywhere += other.anywhere
        self.meant += other.meant
        self.tokens += other.tokens


@dataclass
class Tally:
    """What could be shown, and what each way of asking shows of it."""

    anywhere: int = 0
    meant: int = 0
    chunks: int = 0
    wait_s: float = 0.0
    ways: dict[str, Score] = field(default_factory=dict)

    def add(self, way: str, score: Score) -> None:
        self.ways.setdefault(way, Score()).add(score)


def unpack(package: str, version: str, folder: Path) -> Path:
    """Fetch one release as a wheel and unpack it."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    target = folder / f"{package}-{version}"
    subprocess.run([*pip, "-d", str(target / "wheel"), f"{package}=={version}"], check=True, capture_output=True)
    (wheel,) = (target / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target / "tree")
    return target / "tree"


def commit_both(package: str, old: Path, new: Path, folder: Path) -> Path:
    """A repository whose two commits are the two releases."""
    repository = folder / f"{package}.git"
    git = ["git", f"--git-dir={repository}", "-c", "user.name=b", "-c", "user.email=b@example.org", "-c", "gc.auto=0"]
    subprocess.run([*git[:2], "init", "--quiet", "--bare"], check=True)
    for tree in (old, new):
        for command in (["add", "--all", "--force", "."], ["commit", "--quiet", "-m", tree.parent.name]):
            subprocess.run([*git, f"--work-tree={tree}", "-c", "core.bare=false", *command], check=True)
    return repository


def with_whole_functions(repository: Path) -> bytes:
    """The diff as `git diff -W` widens it."""
    git = ["git", f"--git-dir={repository}", "diff", "-W", "--find-renames", "--full-index", "HEAD~1", "HEAD"]
    return subprocess.run(git, check=True, capture_output=True).stdout


def chunks_of(files: Sequence[FileDiff], count: Callable[[str], int]) -> Iterator[Chunk]:
    """Whole files, in order, until a chunk has its tokens."""
    kept: list[ChunkFile] = []
    size = 0
    for file in files:
        part = ChunkFile(f"F{len(kept) + 1}", file, file.hunks)
        tokens = count(render_file(part))
        if kept and size + tokens > CHUNK_TOKENS:
            yield Chunk(str(size), tuple(kept), size, 0)
            kept, size = [], 0
            part = ChunkFile("F1", file, file.hunks)
        kept.append(part)
        size += tokens
    if kept:
        yield Chunk(str(size), tuple(kept), size, 0)


def shown_lines(chunk: Chunk) -> set[Place]:
    return {
        Place(file.path, line.new_number)
        for file in chunk.files
        for hunk in file.hunks
        for line in hunk.lines()
        if line.new_number is not None
    }


Wanted = list[tuple[set[Place], set[Place]]]


def wanted_by(chunk: Chunk, repository: Repository, texts: Mapping[tuple[str, str], bytes]) -> Wanted:
    """For each name on a changed line that the repository defines: where at all, and where it is meant."""
    wanted: Wanted = []
    for file in chunk.files:
        lines = [line for hunk in file.hunks for line in hunk.lines() if line.sign != " "]
        new = frozenset(line.new_number for line in lines if line.new_number is not None)
        old = frozenset(line.old_number for line in lines if line.new_number is None and line.old_number is not None)
        names = names_on(texts.get(("new", file.path), b""), new) | names_on(texts.get(("old", file.path), b""), old)
        for name in sorted(names):
            if places := repository.anywhere(name):
                wanted.append((places, repository.meant(name, file.path)))
    return wanted


def score(wanted: Wanted, shown: set[Place], tokens: int) -> Score:
    return Score(
        sum(1 for places, _ in wanted if places & shown), sum(1 for _, meant in wanted if meant & shown), tokens
    )


async def measure(repository_path: Path, trees: tuple[Path, Path], sample: int, seed: int, tally: Tally) -> None:
    count = o200k_counter()
    texts: dict[tuple[str, str], bytes] = {}
    modules: dict[str, Module] = {}
    for side, tree in zip(("old", "new"), trees, strict=True):
        for path in tree.rglob("*.py"):
            name = str(path.relative_to(tree))
            texts[side, name] = path.read_bytes()
            if side == "new" and (module := read_module(name, texts[side, name])) is not None:
                modules[name] = module
    truth = Repository(modules)
    wide = await asyncio.to_thread(with_whole_functions, repository_path)
    whole = {file.path: file for file in parse_diff(wide)}
    async with open_local(repository_path, "HEAD~1..HEAD") as tree:
        snapshot = await tree.snapshot()
        # A new or deleted file is shown whole by any of the ways, and a rename alone names nothing.
        files = [file for file in parse_diff(snapshot.diff) if file.status == "modified" and file.path.endswith(".py")]
        chunks = list(chunks_of(files, count))
        source = EvidenceSource(tree, snapshot, count)
        with closing(source):
            for chunk in random.Random(seed).sample(chunks, min(sample, len(chunks))):
                wanted = wanted_by(chunk, truth, texts)
                tally.chunks += 1
                tally.anywhere += len(wanted)
                tally.meant += sum(1 for _, meant in wanted if meant)
                plain = shown_lines(chunk)
                tokens = sum(count(render_file(file)) for file in chunk.files)
                tally.add("plain diff", score(wanted, plain, tokens))
                wider = [ChunkFile(file.id, whole[file.path], whole[file.path].hunks) for file in chunk.files]
                wide_chunk = Chunk("wide", tuple(wider), 0, 0)
                wide_tokens = sum(count(render_file(file)) for file in wider)
                tally.add("git diff -W", score(wanted, shown_lines(wide_chunk), wide_tokens))
                for budget in BUDGETS:
                    started = time.perf_counter()
                    found = await source.find(chunk, budget_tokens=int(tokens * budget))
                    tally.wait_s += time.perf_counter() - started
                    evidence = {
                        Place(block.path, line)
                        for block in found.blocks
                        for line in range(block.start_line, block.end_line + 1)
                    }
                    total = tokens + count(render(found.blocks))
                    tally.add(f"evidence, at most {budget:g}x more", score(wanted, plain | evidence, total))


def report(name: str, tally: Tally) -> None:
    plain = tally.ways["plain diff"].tokens
    asked = tally.chunks * len(BUDGETS)
    print(
        f"\n{name}: {tally.chunks} chunks, {tally.anywhere:,} names defined in the repository, {tally.meant:,} of them"
    )
    print(f"resolved by scope or import; {tally.wait_s / max(asked, 1):.2f} s to gather for a chunk")
    print(f"  {'':32}{'any definition':>16}{'the one meant':>16}{'tokens':>10}")
    for way, found in tally.ways.items():
        print(
            f"  {way:32}{found.anywhere / max(tally.anywhere, 1):>15.1%} {found.meant / max(tally.meant, 1):>15.1%}"
            f"{found.tokens / max(plain, 1):>9.2f}x"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=12, help="chunks of each package")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--package", action="append", help="only these of the ranges")
    options = parser.parse_args()
    total = Tally()
    with tempfile.TemporaryDirectory() as scratch:
        for package, old, new in RANGES:
            if options.package and package not in options.package:
                continue
            trees = (unpack(package, old, Path(scratch)), unpack(package, new, Path(scratch)))
            repository = commit_both(package, *trees, Path(scratch))
            tally = Tally()
            asyncio.run(measure(repository, trees, options.sample, options.seed, tally))
            report(f"{package} {old} → {new}", tally)
            total.chunks += tally.chunks
            total.anywhere += tally.anywhere
            total.meant += tally.meant
            total.wait_s += tally.wait_s
            for way, found in tally.ways.items():
                total.add(way, found)
    report("all", total)


if __name__ == "__main__":
    main()
