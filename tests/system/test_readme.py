"""The README's first real review, typed as it stands there, against a strict GitHub and a strict Kimi."""

from __future__ import annotations

import re
from pathlib import Path

from tests.fakes.github import TOKEN, GitHubServer
from tests.fakes.kimi import KEY, KimiServer
from tests.fakes.program import WEBHOOK_SECRET, serving
from tests.fakes.shell import Shell

ROOT = Path(__file__).parents[2]
REPOSITORY = "owner/name"


def steps() -> list[list[str]]:
    """The five commands, word by word, without their comments."""
    text = (ROOT / "README.md").read_text("utf-8")
    found = re.search(r"^## The first real review in five commands\n```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    # As a shell sees it, and unlike shlex: only a word that begins with # begins a comment.
    return [re.sub(r"\s#.*", "", line).split() for line in found[1].splitlines()]


def test_the_five_commands_of_the_readme_end_in_a_review(tmp_path: Path) -> None:
    install, copy, check, serve, review = steps()
    assert (install, copy[0], serve) == (["make", "install"], "cp", [".venv/bin/kimi-review", "serve"])
    folder = tmp_path / "checkout"
    folder.mkdir()
    with GitHubServer(tmp_path / "github") as github, KimiServer() as kimi:
        repository = github.create(REPOSITORY)
        base = repository.commit({"shop.py": "x = 1\n"})
        for number in range(1, 8):
            head = repository.commit({"shop.py": f"x = {number}\ny = x == None\n"}, parent=base)
            assert github.open_pull(REPOSITORY, head=head, base=base) == number
        filled_in = {"API_OPEN_AI_API_KEY": KEY, "GITHUB_TOKEN": TOKEN, "GITHUB_WEBHOOK_SECRET": WEBHOOK_SECRET}
        # Where the real ones are: nothing else than these addresses differs from the README.
        filled_in |= {
            "API_OPENAI_FORCE_BASE_URL": kimi.base_url, "GITHUB_URL": github.git_url, "GITHUB_API_URL": github.api_url,
        }  # fmt: skip
        example = (ROOT / copy[1]).read_text("utf-8")
        lines = [line for line in example.split("\n") if line.partition("=")[0].strip("# ") not in filled_in]
        (folder / copy[2]).write_text("\n".join([*lines, *(f"{name}={value}" for name, value in filled_in.items())]))
        with serving(folder, {}):
            shell = Shell(folder, folder / "home")
            checked = shell(*check[1:])
            assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout
            assert "FAIL" not in checked.stdout
            reviewed = shell(*review[1:])
            assert (reviewed.returncode, reviewed.stderr) == (0, ""), reviewed.stdout
        [posted] = github.reviews(REPOSITORY, 7)
        assert [comment.line for comment in posted.comments] == [2]
