"""`review URL`: one change on a forge, reviewed now by the command itself, and posted once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.github import TOKEN, GitHubServer
from tests.fakes.kimi import KEY, KimiServer
from tests.fakes.program import WEBHOOK_SECRET, serving
from tests.fakes.shell import Shell

REPOSITORY = "acme/shop"
BASE = "def total(items):\n    return sum(items)\n"
DEFECT = "def total(items, seen=[]):\n    return sum(items)\n"
"""One finding of the stand-in, at line 1."""


@dataclass
class Desk:
    """A shell between a strict GitHub and a strict Kimi."""

    github: GitHubServer
    kimi: KimiServer
    shell: Shell

    def change(self, text: str = DEFECT) -> int:
        repository = self.github.repository(REPOSITORY)
        base = repository.commit({"shop.py": BASE})
        return self.github.open_pull(REPOSITORY, head=repository.commit({"shop.py": text}, parent=base), base=base)

    def url(self, number: int) -> str:
        return f"{self.github.git_url}/{REPOSITORY}/pull/{number}"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with GitHubServer(tmp_path / "github") as github, KimiServer() as kimi:
        github.create(REPOSITORY)
        settings = {
            "API_LLM_PROVIDER_MODEL": "kimi-k2.6",
            "API_OPENAI_FORCE_BASE_URL": kimi.base_url,
            "API_OPEN_AI_API_KEY": KEY,
            "GITHUB_TOKEN": TOKEN,
            "GITHUB_API_URL": github.api_url,
            "GITHUB_URL": github.git_url,
            "REVIEW_VERIFY": "false",
        }
        folder = tmp_path / "folder"
        folder.mkdir()
        yield Desk(github, kimi, Shell(folder, tmp_path / "home", settings))


def test_it_posts_one_review_and_running_it_again_posts_nothing_new(desk: Desk) -> None:
    number = desk.change()
    first = desk.shell("review", desk.url(number))
    assert (first.returncode, first.stderr) == (0, "")
    assert "2 of 2 changed lines reviewed" in first.stdout
    [review] = desk.github.reviews(REPOSITORY, number)
    assert [comment.line for comment in review.comments] == [1]
    again = desk.shell("review", f"{REPOSITORY}#{number}", "--format", "json")
    assert (again.returncode, again.stderr) == (0, "")
    assert len(json.loads(again.stdout)["findings"]) == 1
    assert len(desk.github.reviews(REPOSITORY, number)) == 1


def test_a_review_can_be_written_as_sarif_and_as_a_page(desk: Desk) -> None:
    number = desk.change()
    sarif = desk.shell("review", desk.url(number), "--dry-run", "--format", "sarif")
    assert (sarif.returncode, sarif.stderr) == (0, "")
    [run] = json.loads(sarif.stdout)["runs"]
    [location] = run["results"][0]["locations"]
    assert location["physicalLocation"]["region"] == {"startLine": 1, "endLine": 1}
    assert run["invocations"][0]["executionSuccessful"] is True
    page = desk.shell("review", desk.url(number), "--dry-run", "--format", "html", "--output", "review.html")
    assert (page.returncode, page.stdout, page.stderr) == (0, "", "")
    assert "2 of 2 changed lines reviewed" in (desk.shell.folder / "review.html").read_text("utf-8")


def test_a_dry_run_prints_the_review_and_posts_nothing(desk: Desk) -> None:
    number = desk.change()
    done = desk.shell("review", desk.url(number), "--dry-run", "--fail-on", "low")
    assert (done.returncode, done.stderr) == (1, "")
    assert "shop.py:1" in done.stdout
    assert desk.github.reviews(REPOSITORY, number) == []
    assert [request for request in desk.github.seen if request.method != "GET"] == []


def test_a_change_that_cannot_be_reviewed_is_one_clear_line(desk: Desk) -> None:
    number = desk.change()
    desk.github.pull(REPOSITORY, number).state = "closed"
    for arguments, code, said in (
        (("review", f"{REPOSITORY}#{number}"), 3, "closed"),
        (("review", f"{REPOSITORY}#404"), 4, "token may not see it"),
        (("review", "acme/none#1"), 4, "token may not see it"),
    ):
        done = desk.shell(*arguments)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert said in done.stderr
    assert desk.kimi.requests == []


def test_a_missing_or_refused_token_names_the_setting(desk: Desk) -> None:
    number = desk.change()
    missing = desk.shell("review", desk.url(number), GITHUB_TOKEN="")
    assert missing.returncode == 78
    assert len(missing.stderr.splitlines()) == 1
    assert "GITHUB_TOKEN" in missing.stderr
    refused = desk.shell("review", desk.url(number), GITHUB_TOKEN="ghp_expired0123456789")
    assert refused.returncode == 4
    assert len(refused.stderr.splitlines()) == 1
    assert "Renew the token" in refused.stderr
    assert "ghp_expired" not in refused.stderr


def test_a_paused_fleet_is_told_and_nothing_waits_for_its_end(desk: Desk) -> None:
    number = desk.change()
    assert desk.shell("pause", "the bill is looked at").returncode == 0
    done = desk.shell("review", desk.url(number))
    assert (done.returncode, done.stdout) == (4, "")
    assert "the bill is looked at" in done.stderr
    assert desk.kimi.requests == []


def test_a_closed_change_can_still_be_looked_at_dry(desk: Desk) -> None:
    number = desk.change()
    desk.github.pull(REPOSITORY, number).state = "closed"
    done = desk.shell("review", desk.url(number), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "shop.py:1" in done.stdout


def test_beside_a_running_serve_it_shares_its_redis_and_posts_once(desk: Desk, tmp_path: Path) -> None:
    number = desk.change()
    settings = {**desk.shell.environment, "GITHUB_WEBHOOK_SECRET": WEBHOOK_SECRET, "REVIEW_SETTLE_S": "0"}
    with serving(tmp_path / "serve", settings) as program:
        beside = Shell(desk.shell.folder, tmp_path / "serve" / "home", settings)
        done = beside("review", desk.url(number), "--format", "json")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["complete"] is True
        assert len(desk.github.reviews(REPOSITORY, number)) == 1
        rows = json.loads(beside("jobs", "--json").stdout)
        assert [(row["number"], row["state"]) for row in rows] == [(number, "done")]
        assert program.job(rows[0]["job"])["state"] == "done"
