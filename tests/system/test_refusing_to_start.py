"""Settings that cannot work end the program before it listens: exit 78, all problems at once, and never a value."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.fakes.program import COMMAND

COMPLETE = {
    "API_OPENAI_FORCE_BASE_URL": "http://127.0.0.1:9/v1",
    "API_OPEN_AI_API_KEY": "sk-test-0123456789abcdef",
    "GITHUB_TOKEN": "ghp_falseTokenOfTheTestsWhichOpensNothing1",
    "GITHUB_WEBHOOK_SECRET": "a-webhook-secret-of-the-tests",
}


def serve(folder: Path, **changed: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "KIMI_REVIEW_HOME": str(folder / "home")}
    return subprocess.run(
        [str(COMMAND), "serve", "--port", "0"],
        cwd=folder,
        env=environment | COMPLETE | changed,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("secret", ["", "k9-Zq", "changeme", "x" * 15])
def test_a_service_without_a_webhook_secret_that_protects_does_not_start(tmp_path: Path, secret: str) -> None:
    done = serve(tmp_path, GITHUB_WEBHOOK_SECRET=secret)
    assert done.returncode == 78
    [line] = done.stderr.splitlines()
    assert "GITHUB_WEBHOOK_SECRET" in line
    assert not secret or secret not in line


def test_eight_mistakes_in_the_dotenv_are_told_at_once_by_name_with_the_right_name_and_no_value(tmp_path: Path) -> None:
    mistakes = {
        "API_OPENAI_FORCE_BASE_URL": "ftp://planted-value",
        "LLM_RPM": "planted-value",
        "LLM_EXTRA_BODY": "{planted-value",
        "LOG_FORMAT": "planted-value",
        "REVIEW_MAX_COMMENTS": "-7777",
        "REVIEW_MIN_SEVERITY": "planted-value",
        "GITHUB_APP_ID": "planted-value",
        "GITHUB_WEBHOOK_SECRT": "planted-value",
    }
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in mistakes.items()))
    done = serve(tmp_path, API_OPENAI_FORCE_BASE_URL="")
    assert done.returncode == 78
    told = done.stderr.splitlines()
    for name in mistakes:
        assert any(line.startswith(f"kimi-review: {name}: ") for line in told), f"{name} is not told:\n{done.stderr}"
    assert any("Did you mean GITHUB_WEBHOOK_SECRET?" in line for line in told)
    assert "planted-value" not in done.stderr + done.stdout
    assert "7777" not in done.stderr + done.stdout


def test_a_worker_that_celery_itself_starts_ends_in_the_same_words(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(COMMAND.with_name("celery")), "-A", "worker.main", "worker"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)} | COMPLETE | {"LLM_RPM": "planted-value"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 78
    assert [line.split(": ")[:2] for line in done.stderr.splitlines()] == [
        ["kimi-review", "LLM_RPM"],
        ["kimi-review", "REDIS_URL"],
    ]


def test_a_service_that_finds_no_git_does_not_start(tmp_path: Path) -> None:
    done = serve(tmp_path, PATH=str(tmp_path))
    assert done.returncode == 78
    [line] = done.stderr.splitlines()
    assert line.startswith("kimi-review: PATH: leads to no git")
