"""`batch`: many changes queued once at low priority, and worked off by a running service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.program import until
from tests.fakes.shell import Shell
from tests.fakes.town import REPOSITORY, Town, town


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with town(tmp_path_factory.mktemp("town"), {"LLM_MAX_CONCURRENT_REQUESTS": "7"}) as found:
        yield found


@pytest.fixture
def shell(place: Town, tmp_path: Path) -> Shell:
    """A shell on the same machine as the service, in a folder of its own."""
    environment = {name: value for name, value in place.program.environment.items() if name != "KIMI_REVIEW_HOME"}
    return Shell(tmp_path, Path(place.program.environment["KIMI_REVIEW_HOME"]), environment)


def status(shell: Shell) -> dict[int, str]:
    """States by the change's number."""
    value = json.loads(shell("batch", "status", "--json").stdout)
    return {row["number"]: row["state"] for row in value["jobs"]}


def test_a_file_is_queued_worked_off_and_adds_nothing_when_given_again(
    place: Town, shell: Shell, tmp_path: Path
) -> None:
    first, second = place.change(), place.change()
    closed = place.change(state="closed")
    (tmp_path / "changes").write_text(
        f"# the old ones\n{place.github.git_url}/{REPOSITORY}/pull/{first}  # by URL\n\n"
        f"{REPOSITORY}#{second}\n{REPOSITORY}#{first}\n{REPOSITORY}#{closed}\n{REPOSITORY}#404\n"
    )
    unasked = shell("batch", "changes")
    assert (unasked.returncode, unasked.stderr) == (
        2,
        "kimi-review: Nothing was queued: there is nobody to ask. Add --yes.\n",
    )
    assert "4 changes: 2 to review, 0 with a job already." in unasked.stdout
    assert "list prices" in unasked.stdout
    assert status(shell) == {}
    done = shell("batch", "changes", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 queued." in done.stdout
    assert f"#{closed}: the change is closed" in done.stdout
    until(lambda: status(shell) == {first: "done", second: "done"}, "both are done", log=lambda: place.program.log)
    place.assert_one_review(first)
    place.assert_one_review(second)
    again = shell("batch", "changes", "--yes")
    assert (again.returncode, again.stderr) == (0, "")
    assert "0 to review, 2 with a job already." in again.stdout
    assert "`kimi-review jobs` shows how far" in again.stdout
    assert len(status(shell)) == 2
    assert "2 of 2 reviews ended: 2 done" in shell("batch", "status").stdout


def test_the_open_changes_of_a_repository_since_a_day_are_queued(place: Town, shell: Shell) -> None:
    old = place.change(updated_at="2020-01-01T00:00:00Z")
    fresh = place.change(updated_at="2020-03-01T00:00:00Z")
    known = set(status(shell))
    done = shell("batch", "--repository", REPOSITORY, "--since", "2020-02-01", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert set(status(shell)) - known == {fresh}
    assert old not in status(shell)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "one change a line"),
        (("nowhere",), "cannot be read"),
        (("wrong",), "line 1, 3"),
        (("--repository", "acme/shop"), "--since"),
        (("--repository", "acme/shop", "--since", "yesterday"), "7d"),
    ],
)
def test_wrong_use_is_one_line_that_says_what_to_write(
    shell: Shell, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "wrong").write_text("shop\nacme/shop#1\nhttps://evil.example/acme/shop/pull/1\n")
    done = shell("batch", *arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


def test_a_repository_that_nobody_may_see_is_told_by_the_forge(shell: Shell) -> None:
    done = shell("batch", "--repository", "acme/none", "--since", "7d", "--yes")
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 1
    assert "acme/none" in done.stderr


def test_metrics_and_status_page_tell_what_the_batch_took(place: Town) -> None:
    text = place.program.get("/metrics").text
    for line in (
        'kimi_review_queue_messages{priority="batch"} ',
        "kimi_review_model_requests_in_flight 0.0",
        'kimi_review_model_limit{kind="concurrency",source="settings"} 7.0',
        "kimi_review_model_cost_usd_total{month=",
    ):
        assert line in text
    page = place.program.get("/").text
    assert "<small>settings</small>" in page
    assert "Spending in 20" in page
    assert f"{REPOSITORY}#1" in page
