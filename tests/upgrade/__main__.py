"""`make upgrade FROM=<git revision>`: the program as it was then and as it is now, at work on one Redis."""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import redis

from tests.upgrade.crossing import Crossing, crossing, killed_between_units, killed_over_a_post
from tests.upgrade.releases import ROOT, Release, release_at, this_release
from worker.storage.embedded import start

Story = Callable[[Crossing, Release, Release], None]
STORIES: tuple[tuple[str, Story], ...] = (
    ("killed between two units", functools.partial(killed_between_units, plan_alike=False)),
    ("killed over a post that the forge accepted", killed_over_a_post),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make upgrade", description=__doc__)
    parser.add_argument(
        "revision", nargs="?", default="", help="what is upgraded from; default: the newest release tag"
    )
    given = parser.parse_args()
    revision = given.revision or newest_tag()
    if not revision:
        print("There is no release tag yet. Name the revision: make upgrade FROM=<git revision>", file=sys.stderr)
        return 2
    failed = 0
    with tempfile.TemporaryDirectory(prefix="upgrade-") as name, start(Path(name) / "redis") as server:
        folder = Path(name)
        before, now = release_at(revision, folder / "before"), this_release(folder / "now")
        for title, story in STORIES:
            for begins, ends in ((before, now), (now, before)):
                with redis.Redis(unix_socket_path=str(server.socket)) as client:
                    client.flushall()
                place = folder / f"{len(list(folder.iterdir()))}-{begins.folder.name}"
                failed += not told(title, story, begins, ends, place, server.url)
    print(f"{revision} and this tree {'do NOT work' if failed else 'work'} side by side.")
    return 1 if failed else 0


def told(title: str, story: Story, begins: Release, ends: Release, folder: Path, url: str) -> bool:
    """Play one story and say how it went."""
    at = time.monotonic()
    try:
        with crossing(folder, url) as scene:
            story(scene, begins, ends)
    except AssertionError:
        print(f"FAILED  {begins.name}, then {ends.name}: {title}\n{traceback.format_exc()}", flush=True)
        return False
    print(f"ok  {begins.name}, then {ends.name}: {title} ({time.monotonic() - at:.0f} s)", flush=True)
    return True


def newest_tag() -> str:
    """The newest release that this tree comes from, empty when there is none."""
    command = ["git", "-C", str(ROOT), "describe", "--tags", "--abbrev=0"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
