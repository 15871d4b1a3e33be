"""Only the command that was asked for is imported, and the list tells of all of them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from worker.cli.app import COMMANDS, app_with


@pytest.mark.parametrize("wanted", [[], ["settings"], list(COMMANDS)])
def test_the_list_is_the_same_whatever_was_imported_for_it(wanted: list[str]) -> None:
    said = CliRunner().invoke(app_with(wanted), ["--help"]).stdout
    listed = said.partition("Commands:\n")[2].splitlines()
    assert [line.split(maxsplit=1) for line in listed] == [[name, line] for name, (_, line) in COMMANDS.items()]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["settings"]])
def test_a_command_that_asks_no_service_starts_without_the_rest_of_the_program(arguments: list[str]) -> None:
    program = (
        "import sys; from worker.cli.app import main; sys.argv = ['kimi-review', *sys.argv[1:]]\n"
        "try: main()\n"
        "except SystemExit: print(*sorted(sys.modules), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    loaded = set(ended.stderr.split())
    assert "worker.cli.app" in loaded
    assert not {"worker.bootstrap", "celery", "httpx", "git", "starlette"} & loaded
