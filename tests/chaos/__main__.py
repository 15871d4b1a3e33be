"""`make chaos`: a long storm, its seed printed."""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.storm import Plan, Storm


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--limit-s", type=float, default=3600.0)
    parser.add_argument(
        "--keep", type=Path, help="folder for logs and state; else one that stays only when something went wrong"
    )
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    plan = Plan(seed=given.seed, changes=given.changes, workers=given.workers, limit_s=given.limit_s)
    folder = given.keep or Path(tempfile.mkdtemp(prefix="storm-"))
    folder.mkdir(parents=True, exist_ok=given.keep is None)
    outcome = Storm(plan, folder).rage()
    print(outcome.text())
    if outcome.wrong:
        print(f"logs and state: {folder}")
        return 1
    if given.keep is None:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
