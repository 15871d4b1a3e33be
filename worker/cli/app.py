"""The command `kimi-review`: all its commands in one table."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from worker import __version__
from worker.cli.output import reader_may_leave, write_any_character
from worker.exits import told_clearly

COMMANDS = {
    # A list of commands cuts longer lines.
    "serve": ("serve", "Everything on one machine, Redis included."),
    "api": ("serve", "The HTTP service alone; needs REDIS_URL."),
    "worker": ("serve", "One worker process alone; needs REDIS_URL."),
    "upkeep": ("serve", "The timer alone; needs REDIS_URL."),
    "review": ("review", "Review one change now."),
    "plan": ("review", "Chunks, tokens, ledger; no model is asked."),
    "batch": ("batch", "Queue many reviews at low priority."),
    "demo": ("demo", "A review of real commits; no key needed."),
    "check": ("check", "A row for all that must be right."),
    "why": ("jobs", "Why a change was, or was not, reviewed."),
    "jobs": ("jobs", "List jobs, newest first."),
    "pause": ("fleet", "Let no worker take up a job."),
    "resume": ("fleet", "Let the workers take up jobs again."),
    "settings": ("settings", "The text of .env.example."),
    "dead": ("jobs", "Jobs that were given up: list, show, retry, drop."),
}
"""Name → module of this package that holds a function or a group of that name, and its line in the list."""


class _Commands(TyperGroup):
    """Ends well when its reader leaves; typer itself would end with 1, which says that there are findings."""

    def invoke(self, ctx: Any) -> Any:  # the type is of typer's own, private copy of click
        with reader_may_leave():
            return super().invoke(ctx)
        return None


def app_with(wanted: Iterable[str]) -> typer.Typer:
    """The command line; the commands that are not `wanted` are lines in its list and no more.

    Importing all of them takes most of a second, which whoever asks for one of them would wait.
    """
    app = typer.Typer(
        name="kimi-review",
        cls=_Commands,
        help="Review pull requests with Kimi: nothing dropped, nothing lost, nothing posted twice.",
        no_args_is_help=True,
        add_completion=False,
        # Our own errors are one line; a fault of ours shows the plain traceback without the values of variables.
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        callback=version,
        invoke_without_command=True,
    )
    for name, (module, line) in COMMANDS.items():
        command = getattr(import_module(f"worker.cli.{module}"), name) if name in wanted else _only_listed
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name, short_help=line)(command)
    return app


def _only_listed() -> None:
    """Stands for a command that was not asked for."""


def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and end.", is_eager=True)] = False,
) -> None:
    if show:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Exit codes: 0 done, 1 findings, 2 usage, 3 not everything reviewed, 4 provider or forge failed, 78 settings."""
    # Options before the command take no value, so the first word that is none names the command.
    wanted = [word for word in sys.argv[1:] if not word.startswith("-")][:1]
    write_any_character()
    with told_clearly():
        app_with(wanted)()
