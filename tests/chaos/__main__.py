"""`make chaos`: a long storm, its seed printed."""

from __future__ import annotations

import argparse
import secrets
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
    parser.add_argument("--keep", type=Path, help="folder for logs and state; a temporary one otherwise")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    plan = Plan(seed=given.seed, changes=given.changes, workers=given.workers, limit_s=given.limit_s)
    if given.keep is not None:
        given.keep.mkdir(parents=True)
        outcome = Storm(plan, given.keep).rage()
    else:
        with tempfile.TemporaryDirectory(prefix="storm-") as folder:
            outcome = Storm(plan, Path(folder)).rage()
    print(outcome.text())
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
