"""Program trees that work side by side: this one, an earlier revision, and what the next release may look like."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("worker", "tasks", "prompts")
NEXT = "99.0.0"

Edit = tuple[str, str, str]
"""Path, a text that stands there once, and what stands there in the other release."""


@dataclass(frozen=True, slots=True)
class Release:
    """`folder` holds the packages; whoever runs with it as PYTHONPATH runs this release."""

    name: str
    folder: Path

    def knows(self, setting: str) -> bool:
        """Whether a variable of the environment is one of its settings: it would not start with a stranger."""
        return re.search(rf"^    {setting.lower()}: ", self._text("worker/settings.py"), re.MULTILINE) is not None

    def _text(self, path: str) -> str:
        return (self.folder / path).read_text("utf-8")


def this_release(folder: Path) -> Release:
    """A copy, so that nobody's editing changes a program that runs."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return Release("this", folder)


def release_at(revision: str, folder: Path) -> Release:
    """The program as it was at a git revision."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", revision, *PACKAGES], capture_output=True, check=False)
    if archive.returncode:
        raise SystemExit(f"git archive {revision}: {archive.stderr.decode('utf-8', 'replace').strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return Release(revision, folder)


def next_release(folder: Path) -> Release:
    """Fields in records and checkpoints, a decision, a setting and a version that this program does not know."""
    return _changed(this_release(folder), "next", _ADDITIONS)


def next_record_version(folder: Path) -> Release:
    """Besides: a state, checkpoints and messages that this program cannot read, under a higher record version."""
    return _changed(this_release(folder), "next record version", (*_ADDITIONS, *_BREAKS))


def _changed(release: Release, name: str, edits: Iterable[Edit]) -> Release:
    for path, before, after in edits:
        file = release.folder / path
        text = file.read_text("utf-8")
        assert text.count(before) == 1, f"{path}: {before!r} stands there {text.count(before)} times"
        file.write_text(text.replace(before, after), "utf-8")
    return Release(name, release.folder)


_ADDITIONS: tuple[Edit, ...] = (
    ("worker/__init__.py", '__version__ = "', f'__version__ = "{NEXT}"  # "'),
    # The record: a field that is written once, and one that is counted up.
    ("worker/storage/job_accept.lua", "local made = {\n", "local made = {\n  tenant = 'north',\n"),
    (
        "worker/storage/job_claim.lua",
        "no_longer_left(id, job)\n",
        "no_longer_left(id, job)\n"
        "redis.call('HINCRBY', key, 'looks', 1)\n"
        "decide(id, 'job.weighed', 'by the next release')\n",
    ),
    # The checkpoints: of an answer, of the report, of what was posted.
    (
        "worker/review/records.py",
        "    was_split: bool = False\n",
        '    was_split: bool = False\n    effort: str = "high"\n',
    ),
    (
        "worker/core/report.py",
        "    is_standin: bool = False\n",
        '    is_standin: bool = False\n    tone: str = "plain"\n',
    ),
    ("worker/review/records.py", '    said["summary"] = ', '    said["posted_by"] = "next"\n    said["summary"] = '),
    (
        "worker/settings.py",
        "    review_drafts: bool = Field(",
        '    review_tone: str = Field(default="plain", description="How it is said.")\n'
        "    review_drafts: bool = Field(",
    ),
)

_BREAKS: tuple[Edit, ...] = (
    ("worker/core/job.py", "RECORD_VERSION = 1\n", "RECORD_VERSION = 2\n"),
    ("worker/core/job.py", '    RUNNING = "running"\n', '    RUNNING = "running"\n    EXAMINING = "examining"\n'),
    ("worker/storage/job_record.lua", "  queued = true, ", "  queued = true, examining = true, "),
    ("worker/storage/job_claim.lua", "'publishing' or 'running'", "'publishing' or 'examining'"),
    ("worker/process.py", "(State.QUEUED, State.RUNNING)", "(State.QUEUED, State.RUNNING, State.EXAMINING)"),
    # Checkpoints of both forms are read, and the new one is written.
    (
        "worker/review/records.py",
        "json.dumps(adapter.dump_python(value),",
        'json.dumps({"next": adapter.dump_python(value)},',
    ),
    (
        "worker/review/records.py",
        "        said = json.loads(record)\n",
        "        said = json.loads(record)\n"
        '        said = said["next"] if isinstance(said, dict) and "next" in said else said\n',
    ),
    ("worker/storage/broker.py", "(argument,), {}", '(argument, {"since": "next"}), {}'),
    ("tasks/doorway.py", "if job_id and len(arguments) == 1:", "if job_id:"),
)
