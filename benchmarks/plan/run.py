"""Compares our diff preparation with PR-Agent's on the diffs between releases of large packages.

Everything is fetched from the package index into `benchmarks/.cache`: two releases of each package, and
PR-Agent into an environment of its own (it needs Python 3.12 or newer: set PEER_PYTHON). Each side runs
in a process of its own, in turn, on the same bytes, with the same token counter. Seconds are of the
processor, over all threads, so that what else the machine does weighs little; the best of three runs
counts for either side.
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
RUNS = 3
PEER = "pr-agent==0.49.0"


@dataclass(frozen=True)
class Case:
    package: str
    old: str
    new: str


CASES = (
    Case("django", "4.2", "5.2"),
    Case("transformers", "4.20.0", "4.50.0"),
)


def main() -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    peer = peer_python()
    print(
        "| diff | rows | side | CPU s | rows/CPU s | peak MB | above start | added shown | removed shown | disclosed |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for case in CASES:
        compare(case, diff_of(case), peer)


def compare(case: Case, diff: Path, peer: Path) -> None:
    rows = diff.read_bytes().count(b"\n")
    added, removed = changed_lines(case)
    ours, theirs = [], []
    for _ in range(RUNS):
        ours.append(side([sys.executable, str(HERE / "ours.py"), str(diff)]))
        theirs.append(side([str(peer), str(HERE / "peer.py"), str(diff)]))
    name = f"{case.package} {case.old} → {case.new}"

    mine = min(ours, key=lambda it: it["seconds"]["parse"] + it["seconds"]["plan"])
    my_s = mine["seconds"]["parse"] + mine["seconds"]["plan"]
    told = (mine["added"] + mine["removed"] + sum(mine["disclosed"].values())) / (added + removed)
    row(name, rows, "ours: parse, plan", my_s, mine, (mine["added"] / added, mine["removed"] / removed), f"{told:.1%}")
    for kind, label in (("one_prompt", "one"), ("three_prompts", "three")):
        best = min(theirs, key=lambda it: it["seconds"]["parse"] + it["seconds"][kind])
        seconds = best["seconds"]["parse"] + best["seconds"][kind]
        shown = (best[label]["added"] / added, best[label]["removed"] / removed)
        row(name, rows, f"PR-Agent: parse, {label}", seconds, best, shown, f"{len(best[label]['named']):,} files named")
    whole = min(theirs, key=lambda it: sum(it["seconds"].values()))
    whole_s = sum(whole["seconds"].values())
    row(name, rows, "PR-Agent: parse, one, three", whole_s, whole, None, "")
    three_s = min(it["seconds"]["parse"] + it["seconds"]["three_prompts"] for it in theirs)
    print(
        f"\n{name}: {whole_s / my_s:.1f} times the speed of its three functions, {three_s / my_s:.1f} times that of"
        f" parsing and three prompts; {mine['peak_kb'] / whole['peak_kb']:.2f} of its peak memory"
        f" ({(mine['peak_kb'] - mine['base_kb']) / (whole['peak_kb'] - whole['base_kb']):.2f} above what either program"
        f" takes before it reads the diff). {mine['chunks']} units, {1 - mine['fill']:.1%} waste in packed ones,"
        f" {mine['overflows']} overflows; the ledger {'adds up' if mine['ledger'] else 'DOES NOT ADD UP'}.\n"
    )


def row(
    name: str, rows: int, label: str, seconds: float, it: dict[str, Any], shown: tuple[float, float] | None, told: str
) -> None:
    parts = f"{shown[0]:.1%} | {shown[1]:.1%}" if shown else " | "
    peak, above = it["peak_kb"] / 1024, (it["peak_kb"] - it["base_kb"]) / 1024
    print(
        f"| {name} | {rows:,} | {label} | {seconds:.2f} | {rows / seconds:,.0f} | {peak:.0f} | {above:.0f}"
        f" | {parts} | {told} |",
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
        base = os.environ.get("PEER_PYTHON") or shutil.which("python3.12") or shutil.which("python3.13")
        if base is None and sys.version_info >= (3, 12):
            venv.create(folder, with_pip=True)
        elif base is None:
            sys.exit("PR-Agent needs Python 3.12 or newer: set PEER_PYTHON to one.")
        else:
            subprocess.run([base, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", PEER, "quicktok-v1"], check=True)
    return python


if __name__ == "__main__":
    main()
