"""What the documents name exists: commands and their options, settings, metrics, files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from worker.cli.app import COMMANDS, app_with
from worker.settings import example

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
EVERY = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
APP = app_with(COMMANDS)
SETTINGS = set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", example(), re.MULTILINE))
FOREIGN = {
    *(
        "GITHUB_",
        "API_",
        "WORKER_",
        "API_LLM_TEMPERATURE_OVERRIDE",
        "GIT_NO_LAZY_FETCH",
        "YOUR",
        "NAME_FILE",
        "REDIS_PASSWORD",
    ),
}
"""Words in capitals that are no settings of the program: git's, compose's, and patterns."""
_PREFIXES = ("API_", "LLM_", "REVIEW_", "FALLBACK_", "KIMI_REVIEW_", "GITHUB_", "LOG_", "REDIS_", "JOB_", "WORKER_")


def text_of(document: Path) -> str:
    return document.read_text("utf-8")


def code_in(document: Path) -> list[str]:
    """Code spans, and the lines of fenced code."""
    text = text_of(document)
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.split("\n")] + re.findall(r"`([^`]+)`", prose)


@EVERY
def test_every_command_that_is_named_exists_with_its_options(document: Path) -> None:
    for code in code_in(document):
        for line in re.findall(r"kimi-review ([a-z-][^|#;]*)", code):
            words = line.split()
            command = typer.main.get_command(APP)
            while (known := getattr(command, "commands", None)) and words and not words[0].startswith("-"):
                assert words[0] in known, f"`kimi-review {line}`: no command {words[0]}"
                command, words = known[words[0]], words[1:]
            options = {name for parameter in command.params for name in parameter.opts} | {"--help"}
            for word in words:
                if word.startswith("--"):
                    assert word.partition("=")[0] in options, f"`kimi-review {line}`: no option {word}"


@EVERY
def test_every_setting_that_is_named_exists(document: Path) -> None:
    named = set(re.findall(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]*[A-Z0-9])(?:=[^`]*)?`", text_of(document)))
    ours = {name for name in named if name.startswith(_PREFIXES)} - FOREIGN
    assert ours <= SETTINGS | {f"{name}_FILE" for name in SETTINGS}


@EVERY
def test_every_link_to_a_file_of_ours_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text_of(document)):
        assert (document.parent / target).exists(), target


@EVERY
def test_every_file_that_is_named_exists(document: Path) -> None:
    for code in code_in(document):
        for name in re.findall(r"(?<![\w./<{-])(?:worker|tasks|prompts|tests|docs|benchmarks)/[^\s`\"',:;()|]*", code):
            if not set(name) & set("<{*…"):  # those stand for many
                assert (ROOT / name).exists(), name


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for document in DOCUMENTS:
        assert set(re.findall(r"`make ([a-z-]+)", text_of(document))) <= targets


def test_every_metric_that_is_named_is_told_and_the_other_way_round() -> None:
    told = (ROOT / "worker" / "ingress" / "metrics.py").read_text("utf-8")
    operations = text_of(ROOT / "docs" / "operations.md")
    named = {name.removesuffix("_total") for name in re.findall(r"\bkimi_review_[a-z_]+", operations)}
    made = {name.removesuffix("_total") for name in re.findall(r'"(kimi_review_[a-z_]+)"', told)}
    made |= {f"kimi_review_model_{name}" for name in re.findall(r'^        \("([a-z_]+)",', told, re.MULTILINE)}
    assert named == made


def test_every_decision_has_its_line_in_the_list() -> None:
    folder = ROOT / "docs" / "adr"
    listed = text_of(folder / "README.md")
    assert all(f"({page.name})" in listed for page in folder.glob("*.md") if page.name != "README.md")
