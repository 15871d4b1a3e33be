"""The command as a shell sees it: exit codes, one line per error, nothing on stdout that a script did not ask for."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.fakes.git_server import BareRepository, git
from worker.bootstrap import Installation
from worker.core.change import ChangeRef
from worker.core.errors import RateLimited
from worker.core.job import Claim, Intent, State
from worker.providers.tokens import o200k_counter
from worker.settings import Role, load
from worker.storage.connection import connect
from worker.storage.embedded import EmbeddedRedis, start
from worker.storage.foreign import keep_foreign
from worker.storage.jobs import RedisJobs

HEAD = "a" * 40
REF = ChangeRef("github", "acme/api", 7)


class Shell:
    """Runs the command in a folder and a home of its own, with nothing else in the environment."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(home), "KIMI_REVIEW_HOME": str(home)}

    def __call__(self, *arguments: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "worker.cli", *arguments],
            input=stdin,
            cwd=self.folder,
            env=self.environment | {"PYTHONPATH": str(Path(__file__).parents[2])} | environment,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with start(tmp_path_factory.mktemp("home")) as server:
        yield server


@pytest.fixture(scope="module")
def shell(redis: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(tmp_path_factory.mktemp("folder"), redis.folder.parent)


@pytest.fixture(scope="module")
def job(redis: EmbeddedRedis) -> str:
    """One stored job."""

    async def store() -> str:
        client = connect(redis.url)
        try:
            return (await RedisJobs(client).accept(Intent(ref=REF, head=HEAD))).job
        finally:
            await client.aclose()

    return asyncio.run(store())


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("repository") / "r.git"
    path.mkdir()
    git(path, "init", "--quiet", "--bare", "--initial-branch=main")
    bare = BareRepository(path)
    base = bare.commit({"a.py": "x = 1\n"})
    bare.ref("refs/heads/main", base)
    bare.ref("refs/heads/topic", bare.commit({"a.py": "x = 1\ny = x == None\n", "yarn.lock": "z\n"}, parent=base))
    return path


def test_wrong_settings_are_told_one_a_line_with_78_and_without_values(shell: Shell) -> None:
    done = shell("serve", LLM_RPM="planted-value", LOG_LEVEL="planted-value", REVIEW_DRAFT="planted-value")
    assert done.returncode == 78
    lines = done.stderr.splitlines()
    assert all(line.startswith("kimi-review: ") for line in lines)
    told = {line.split(": ")[1] for line in lines}
    assert told >= {
        "LLM_RPM", "LOG_LEVEL", "REVIEW_DRAFT", "API_OPEN_AI_API_KEY", "GITHUB_TOKEN", "GITHUB_WEBHOOK_SECRET",
    }  # fmt: skip
    assert "planted" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_a_dotenv_in_the_working_folder_is_read(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LLM_RPM=none\n")
    there = Shell(tmp_path, Path(shell.environment["KIMI_REVIEW_HOME"]))
    done = there("jobs")
    assert (done.returncode, done.stderr) == (78, "kimi-review: LLM_RPM: is not a whole number. Write digits only.\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan",),
        ("plan", "--range", "main"),
        ("plan", "--diff-file", "/nonexistent"),
        ("plan", "--repo", "/nonexistent", "--range", "a..b"),
        ("plan", "--diff-file", "-", "--range", "a..b"),
        ("why", "what is this"),
        ("why", "https://evil.example/acme/api/pull/7"),
        ("review", "acme/api#7", "--range", "a..b"),
        ("no-such-command",),
        ("jobs", "--state", "no-such-state"),
    ],
)
def test_wrong_use_is_2_and_says_what_to_do(shell: Shell, arguments: tuple[str, ...]) -> None:
    done = shell(*arguments, API_OPEN_AI_API_KEY="sk-0123456789abcdef")
    assert done.returncode == 2
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr


def test_a_plan_as_json_adds_up_and_writes_the_bodies_as_they_would_be_sent(
    shell: Shell, repository: Path, tmp_path: Path
) -> None:
    done = shell(
        "plan", "--repo", str(repository), "--range", "main..topic", "--format", "json", "--render", str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    ledger = plan["ledger"]
    assert ledger["changed_lines"] == 2
    assert ledger["planned_lines"] + sum(row["lines"] for row in ledger["not_reviewed"]) == ledger["changed_lines"]
    assert {path.stem for path in tmp_path.iterdir()} == {chunk["id"] for chunk in plan["chunks"]}
    (body,) = (json.loads(path.read_bytes()) for path in tmp_path.iterdir())
    assert body["model"] == "kimi-k2.6"
    assert body["messages"][1]["content"].startswith("kind: findings\n")
    assert "2|+|y = x == None" in body["messages"][1]["content"]
    assert "temperature" not in body
    # What was written is known to the token, so its bound leaves no more than the margin for another vocabulary.
    texts = [message["content"] for message in body["messages"]] + [json.dumps(body["response_format"])]
    tokens = o200k_counter()("".join(texts))
    (bound,) = (chunk["input_tokens"] for chunk in plan["chunks"])
    assert tokens <= bound <= 1.26 * tokens + 256
    unseen = shell("plan", "--repo", str(repository), "--range", "main..topic", "--format", "json")
    assert bound < json.loads(unseen.stdout)["chunks"][0]["input_tokens"]


def test_a_diff_is_read_from_stdin(shell: Shell, repository: Path) -> None:
    diff = git(repository, "diff", "main...topic").encode() + b"\n"
    done = shell("plan", "--diff-file", "-", "--format", "json", stdin=diff)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ledger"]["changed_lines"] == 2


def test_a_provider_that_does_not_answer_is_4_and_one_line(shell: Shell, repository: Path) -> None:
    done = shell(
        "review", "--repo", str(repository), "--range", "main..topic",
        API_OPENAI_FORCE_BASE_URL="http://127.0.0.1:9/v1", API_LLM_PROVIDER_MODEL="auto",
    )  # fmt: skip
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 1
    assert "API_OPENAI_FORCE_BASE_URL" in done.stderr


@pytest.mark.parametrize(
    "name", ["https://github.com/acme/api/pull/7", "acme/api#7", "github:acme/api#7", "Acme/API#7"]
)
def test_why_finds_a_change_by_any_of_its_names(shell: Shell, job: str, name: str) -> None:
    done = shell("why", name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("queued")
    assert job in done.stdout
    assert "job.queued" in done.stdout
    assert "No worker is running: start" in done.stdout


def test_why_takes_a_job_and_answers_in_json(shell: Shell, job: str) -> None:
    (value,) = json.loads(shell("why", job, "--json").stdout)
    assert (value["job"], value["repository"], value["number"], value["head"]) == (job, "acme/api", 7, HEAD)
    assert value["decisions"]


def test_why_says_until_when_a_job_waits_who_works_and_what_follows_a_failure(shell: Shell, redis_url: str) -> None:
    async def left_in(state: State, number: int, *, wait_s: float = 0.0) -> str:
        client = connect(redis_url)
        try:
            jobs = RedisJobs(client)
            assert await jobs.leads("a worker that lives", for_s=60)
            job = (await jobs.accept(Intent(ChangeRef("github", "acme/told", number), HEAD))).job
            claim = await jobs.claim(job, worker="w", states=(State.QUEUED,))
            assert isinstance(claim, Claim)
            await jobs.release(claim, state, reason="GitHub answers 502.", wait_s=wait_s)
            return job
        finally:
            await client.aclose()

    waiting, failed = asyncio.run(left_in(State.QUEUED, 1, wait_s=3600)), asyncio.run(left_in(State.FAILED, 2))
    told = shell("why", waiting, REDIS_URL=redis_url).stdout
    assert told.startswith("queued: GitHub answers 502.")
    [at] = re.findall(r"goes on at (.+) UTC", told)
    assert 3500 < (datetime.fromisoformat(f"{at}+00:00") - datetime.now(UTC)).total_seconds() < 3700
    assert "In all 1 waiting, 0 being worked on." in told
    assert "No worker is running" not in told
    assert f"kimi-review dead retry {failed}" in shell("why", failed, REDIS_URL=redis_url).stdout


def test_why_says_that_a_running_review_waits_for_its_provider(shell: Shell, redis_url: str) -> None:
    url, key = "http://127.0.0.1:9/v1", "sk-0123456789abcdef"

    async def running() -> str:
        provider = {"API_OPENAI_FORCE_BASE_URL": url, "API_OPEN_AI_API_KEY": key}
        settings = load(provider, role=Role.QUERY, dotenv=None)
        async with Installation(settings, redis_url).services() as services:
            await services.throttle.refused(RateLimited("too fast", retry_after_s=45))
            job = (await services.jobs.accept(Intent(REF, HEAD))).job
            assert isinstance(await services.jobs.claim(job, worker="w", states=(State.QUEUED,)), Claim)
            return job

    job = asyncio.run(running())
    told = shell("why", job, REDIS_URL=redis_url, API_OPENAI_FORCE_BASE_URL=url, API_OPEN_AI_API_KEY=key).stdout
    assert told.startswith("running")
    assert "The provider asked for a pause: requests go on at " in told
    assert "No worker is running" in told, "whoever has it has not been seen for seconds"


def test_why_tells_the_reason_for_which_a_delivery_became_no_job(shell: Shell, redis: EmbeddedRedis) -> None:
    async def ignored() -> None:
        client = connect(redis.url)
        try:
            await RedisJobs(client).note_ignored(ChangeRef("github", "acme/api", 8), "draft")
        finally:
            await client.aclose()

    asyncio.run(ignored())
    done = shell("why", "acme/api#8")
    assert done.stdout.startswith("ignored: draft. It is reviewed once it is ready, or with REVIEW_DRAFTS=true.")
    [value] = json.loads(shell("why", "acme/api#8", "--json").stdout)
    assert (value["job"], value["state"], value["reason"]) == (None, "ignored", "draft")


def test_why_knows_a_repository_that_is_not_reviewed_without_any_delivery(shell: Shell) -> None:
    done = shell("why", "acme/other#1", GITHUB_REPOSITORIES="acme/api")
    assert done.stdout.startswith("ignored: repository not allowed. GITHUB_REPOSITORIES names")


def test_why_says_where_to_look_for_a_change_that_was_never_seen(shell: Shell) -> None:
    done = shell("why", "acme/other#1")
    assert done.returncode == 0
    assert "Recent Deliveries" in done.stdout


def test_jobs_are_listed_and_counted(shell: Shell, job: str) -> None:
    assert [row["job"] for row in json.loads(shell("jobs", "--json").stdout)] == [job]
    assert json.loads(shell("jobs", "--state", "done", "--json").stdout) == []
    assert "1 queued" in shell("jobs").stdout


def test_a_dead_letter_that_is_none_cannot_be_retried_or_dropped(shell: Shell, job: str) -> None:
    for verb in ("retry", "drop"):
        done = shell("dead", verb, job)
        assert done.returncode == 4
        assert "dead list" in done.stderr


def test_the_settings_command_prints_the_example(shell: Shell) -> None:
    text = shell("settings").stdout
    assert text == (Path(__file__).parents[2] / ".env.example").read_text(encoding="utf-8")
    assert load({}, role=Role.QUERY, dotenv=None).log_format == "console"


def test_check_tells_a_row_for_each_thing_and_fails_when_one_does(shell: Shell) -> None:
    done = shell("check", "--json", API_OPENAI_FORCE_BASE_URL="http://127.0.0.1:9/v1")
    value = json.loads(done.stdout)
    rows = {row["name"]: row["ok"] for row in value["rows"]}
    assert done.returncode == 4
    assert value["ok"] is False
    assert rows["settings"]
    assert rows["git"]
    assert rows["redis"]
    assert rows["address and key"] is False


def test_a_paused_fleet_is_said_wherever_somebody_asks_until_it_goes_on(shell: Shell, job: str) -> None:
    reason = "the model is being changed"
    assert shell("pause").returncode == 2
    paused = shell("pause", reason)
    assert (paused.returncode, paused.stdout.split(".")[0]) == (0, f"Paused: {reason}")
    assert reason in shell("jobs").stdout
    assert reason in shell("why", job).stdout
    assert reason in shell("resume").stdout
    assert reason not in shell("jobs").stdout
    assert "It was not paused." in shell("resume").stdout


def test_messages_that_were_none_of_ours_are_listed_beside_the_dead_letters(shell: Shell, redis: EmbeddedRedis) -> None:
    keep_foreign(redis.url, task="evil\x1b[31m.task", reason="unknown task", size=1234)
    shown = shell("dead", "list")
    assert shown.returncode == 0
    assert "unknown task" in shown.stdout
    assert "1,234" in shown.stdout
    assert "\x1b" not in shown.stdout
    found = json.loads(shell("dead", "messages", "--json").stdout)
    assert found["count"] == 1
    assert [(one["reason"], one["size"]) for one in found["messages"]] == [("unknown task", 1234)]


def test_a_reader_that_has_enough_ends_a_command_without_a_word_and_without_the_code_for_findings(shell: Shell) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "worker.cli", "settings"],
            cwd=shell.folder,
            env=shell.environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=closed,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_terminal_that_lacks_a_character_gets_its_number(shell: Shell) -> None:
    diff = "--- a/caf\u00e9.py\n+++ b/caf\u00e9.py\n@@ -1 +1 @@\n-x\n+y\n"
    done = shell("plan", "--diff-file", "-", stdin=diff.encode(), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"caf\xe9.py" in done.stdout


def test_what_cannot_be_written_is_told_before_anything_is_paid_for(shell: Shell, tmp_path: Path) -> None:
    for output in (tmp_path, tmp_path / "no" / "such.html"):
        done = shell("review", "--range", "nonsense", "--output", str(output))
        assert done.returncode == 2
        assert done.stderr.startswith("kimi-review: --output is no file in a folder that exists.")
