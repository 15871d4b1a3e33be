"""A program as its users run it, between a strict GitHub and a strict Kimi: what system tests drive from outside."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.fakes.github import TOKEN, GitHubServer, Pull
from tests.fakes.kimi import KEY, KimiServer
from tests.fakes.program import WEBHOOK_SECRET, Program, serving

REPOSITORY = "acme/shop"
BASE = "def total(items):\n    return sum(items)\n"
LEASE_S = 5.0
DEFECT = "def total(items, seen=[]):\n    return sum(items)\n"
"""One finding of the stand-in, at line 1."""


@dataclass
class Town:
    github: GitHubServer
    kimi: KimiServer
    program: Program

    def change(self, text: str = DEFECT, *, repository: str = REPOSITORY, **more: Any) -> int:
        """Open a change of one file; its number. `more` are fields of `Pull`."""
        bare = self.github.repository(repository)
        base = bare.commit({"shop.py": BASE})
        return self.github.open_pull(repository, head=bare.commit({"shop.py": text}, parent=base), base=base, **more)

    def crowd(self, count: int, *, repository: str) -> list[int]:
        """Open so many changes at once, all of the same commit; their numbers."""
        bare = self.github.repository(repository)
        base = bare.commit({"shop.py": BASE})
        head = bare.commit({"shop.py": DEFECT}, parent=base)
        bare.ref("refs/heads/main", base)
        rows = [f"{head} refs/pull/{number}/head\n" for number in range(1, count + 1)]
        # One file in place of a git process for each ref.
        (bare.path / "packed-refs").write_text("# pack-refs with: peeled fully-peeled\n" + "".join(sorted(rows)))
        for number in range(1, count + 1):
            self.github.pulls[repository, number] = Pull(repository, number, [head], base)
        return list(range(1, count + 1))

    def push(self, number: int, text: str, *, repository: str = REPOSITORY) -> str:
        pull = self.github.pull(repository, number)
        head = self.github.repository(repository).commit({"shop.py": text}, parent=pull.head)
        self.github.push(repository, number, head)
        return head

    def deliver(self, number: int, *, repository: str = REPOSITORY, **more: Any) -> httpx.Response:
        return self.github.deliver(
            self.program.webhook_url, secret=WEBHOOK_SECRET, repository=repository, number=number, **more
        )

    def job_of(self, number: int, *, repository: str = REPOSITORY, **more: Any) -> str:
        """Deliver and be told the job."""
        answer = self.deliver(number, repository=repository, **more)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job"])

    def counted(self, outcome: str, reason: str) -> float:
        """How many deliveries /metrics counts for a reason."""
        labels = rf'kimi_review_deliveries_total{{forge="github",outcome="{outcome}",reason="{re.escape(reason)}"}}'
        found = re.search(labels + r" (\S+)", self.program.get("/metrics").text)
        return float(found[1]) if found else 0.0

    def assert_one_review(self, number: int, *, repository: str = REPOSITORY) -> None:
        """One visible review of the newest head, its one comment in its place."""
        [review] = self.github.reviews(repository, number)
        assert review.commit == self.github.pull(repository, number).head
        assert [comment.line for comment in review.comments] == [1]


@contextmanager
def town(
    folder: Path,
    environment: Mapping[str, str] | None = None,
    *,
    repositories: Sequence[str] = (REPOSITORY,),
    kimi: KimiServer | None = None,
) -> Iterator[Town]:
    """`serve` with its own home; `environment` is added to the settings that connect it."""
    with GitHubServer(folder / "github") as github, kimi or KimiServer() as served:
        for repository in repositories:
            github.create(repository)
        settings = {
            "API_LLM_PROVIDER_MODEL": "kimi-k2.6",
            "API_OPENAI_FORCE_BASE_URL": served.base_url,
            "API_OPEN_AI_API_KEY": KEY,
            "GITHUB_TOKEN": TOKEN,
            "GITHUB_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "GITHUB_API_URL": github.api_url,
            "GITHUB_URL": github.git_url,
            "REVIEW_SETTLE_S": "0",
            "REVIEW_VERIFY": "false",
            "JOB_LEASE_S": f"{LEASE_S:.0f}",
            "LOG_FORMAT": "json",
        }
        with serving(folder / "serve", settings | dict(environment or {})) as program:
            yield Town(github, served, program)
