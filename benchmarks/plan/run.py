"""Compares our diff preparation with PR-Agent's on the diffs between releases of large packages.

Everything is fetched from the package index into `benchmarks/.cache`: two releases of each package, and
PR-Agent into an environment of its own (it needs Python 3.12 or newer: set PEER_PYTHON). Each side runs
in a process of its own, in turn, on the same bytes, with the same token counter. Seconds are of the
processor, over all threads, so that what else the machine does weighs little, and of the clock, which counts
on a machine that has nothing else to do; the best of all runs counts for either side. Memory is the peak of the whole
process, and the part of it that the work takes: above what is resident when interpreter, modules and token ranks,
which either side has the same of, are loaded and the diff is not yet read.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CACHE = HERE.parent / ".cache"
PEER = "pr-agent==0.49.0"


@dataclass(frozen=True)
class Case:
    package: str
    old: str
    new: str
    runs: int
    """Of either side; more of the short ones, which chance moves more."""


CASES = (
    Case("django", "4.2", "5.2", runs=25),
    Case("transformers", "4.20.0", "4.50.0", runs=7),
)


STEPS = {"ours": ("parse", "plan"), "one": ("parse", "one_prompt"), "three": ("parse", "three_prompts")}
ALL_OF_THEIRS = ("parse", "one_prompt", "three_prompts")


def main() -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    peer = peer_python()
    print(f"{os.cpu_count()} cores; load at the start: {', '.join(f'{load:.1f}' for load in os.getloadavg())}\n")
    print(
        "| diff | rows | side | CPU s | wall s | rows/CPU s | peak MB | work MB | added shown | removed shown |"
        " disclosed |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for case in CASES:
        compare(case, diff_of(case), peer)


def compare(case: Case, diff: Path, peer: Path) -> None:
    rows = diff.read_bytes().count(b"\n")
    added, removed = changed_lines(case)
    ours, theirs = [], []
    for _ in range(case.runs):
        ours.append(side([sys.executable, str(HERE / "ours.py"), str(diff)]))
        theirs.append(side([str(peer), str(HERE / "peer.py"), str(diff)]))
    name = f"{case.package} {case.old} → {case.new}"

    mine, whole = ours[0], theirs[0]
    told = (mine["added"] + mine["removed"] + sum(mine["disclosed"].values())) / (added + removed)
    shown = (mine["added"] / added, mine["removed"] / removed)
    row(name, rows, "ours: parse, plan", best(ours, STEPS["ours"]), mine, shown, f"{told:.1%}")
    for label in ("one", "three"):
        it = whole[label]
        shown = (it["added"] / added, it["removed"] / removed)
        named = f"{len(it['named']):,} files named"
        row(name, rows, f"PR-Agent: parse, {label}", best(theirs, STEPS[label]), whole, shown, named)
    row(name, rows, "PR-Agent: parse, one, three", best(theirs, ALL_OF_THEIRS), whole, None, "")
    times = [
        f"{theirs_s / ours_s:.1f}"
        for steps in (ALL_OF_THEIRS, STEPS["three"])
        for theirs_s, ours_s in zip(best(theirs, steps), best(ours, STEPS["ours"]), strict=True)
    ]
    print(
        f"\n{name}: {times[0]} times the speed of its three functions by the processor, {times[1]} by the clock;"
        f" {times[2]} and {times[3]} times that of parsing and three prompts;"
        f" {mine['peak_kb'] / whole['peak_kb']:.2f} of its peak memory, {mine['work_kb'] / whole['work_kb']:.2f} of"
        f" what the work takes above interpreter, modules and token ranks. {mine['chunks']} units,"
        f" {1 - mine['fill']:.1%} waste in packed ones,"
        f" {mine['overflows']} overflows; the ledger {'adds up' if mine['ledger'] else 'DOES NOT ADD UP'}.\n"
    )


def best(runs: list[dict[str, Any]], steps: tuple[str, ...]) -> tuple[float, float]:
    """Seconds of the processor and of the clock, each the least of all runs."""
    cpu_s, wall_s = (min(sum(run[clock][step] for step in steps) for run in runs) for clock in ("cpu_s", "wall_s"))
    return cpu_s, wall_s


def row(
    name: str,
    rows: int,
    label: str,
    seconds: tuple[float, float],
    it: dict[str, Any],
    shown: tuple[float, float] | None,
    told: str,
) -> None:
    parts = f"{shown[0]:.1%} | {shown[1]:.1%}" if shown else " | "
    peak, work = it["peak_kb"] / 1024, it["work_kb"] / 1024
    print(
        f"| {name} | {rows:,} | {label} | {seconds[0]:.2f} | {seconds[1]:.2f} | {rows / seconds[0]:,.0f} | {peak:.0f}"
        f" | {work:.0f} | {parts} | {told} |",
        flush=True,
    )


def side(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.strip().rsplit("\n", 1)[-1])
    return result


def changed_lines(case: Case) -> tuple[int, int]:
    """Added and removed lines as git counts them."""
    rows = [line.split(b"\t") for line in between_releases(case, "--numstat").splitlines()]
    numbers = [(int(row[0]), int(row[1])) for row in rows if row[0] != b"-"]
    return sum(added for added, _ in numbers), sum(removed for _, removed in numbers)


def diff_of(case: Case) -> Path:
    """The diff between two releases, made once."""
    target = CACHE / f"{case.package}-{case.old}-{case.new}.diff"
    if not target.exists():
        target.write_bytes(between_releases(case, "--patch"))
    return target


def between_releases(case: Case, form: str) -> bytes:
    old, new = unpacked(case.package, case.old), unpacked(case.package, case.new)
    command = ["git", "diff", "--no-index", "--no-color", "--find-renames", form, old.name, new.name]
    # git diff --no-index ends with 1 when there are differences.
    return subprocess.run(command, cwd=CACHE, capture_output=True, check=False).stdout


def unpacked(package: str, version: str) -> Path:
    folder = CACHE / f"{package}-{version}"
    if not folder.exists():
        wheels = CACHE / "wheels" / f"{package}-{version}"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels)]
        subprocess.run([*pip, f"{package}=={version}"], check=True)
        (wheel,) = wheels.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    return folder


def peer_python() -> Path:
    """The interpreter of an environment that holds PR-Agent and our token counter."""
    folder = CACHE / "pr-agent"
    python = folder / "bin" / "python"
    if not python.exists():
        names = (os.environ.get("PEER_PYTHON", ""), "python3.12", "python3.13")
        base = next((name for name in names if runs(name)), None)
        if base is None and sys.version_info >= (3, 12):
            venv.create(folder, with_pip=True)
        elif base is None:
            sys.exit("PR-Agent needs Python 3.12 or newer: set PEER_PYTHON to one.")
        else:
            subprocess.run([base, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", PEER, "quicktok-v1"], check=True)
    return python


def runs(python: str) -> bool:
    """Whether it is there and starts: a version manager puts names on the path for interpreters that it refuses."""
    return bool(shutil.which(python)) and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0


if __name__ == "__main__":
    main()
