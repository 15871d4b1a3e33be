"""The command `kimi-review`: all its commands in one table."""

from __future__ import annotations

from typing import Annotated

import typer

from worker import __version__
from worker.cli import batch, check, demo, fleet, jobs, review, serve, settings
from worker.cli.exits import told_clearly

app = typer.Typer(
    name="kimi-review",
    help="Review pull requests with Kimi: nothing dropped, nothing lost, nothing posted twice.",
    no_args_is_help=True,
    add_completion=False,
    # Our own errors are one line; a fault of ours shows the plain traceback without the values of variables.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(serve.serve)
app.command()(serve.api)
app.command()(serve.worker)
app.command()(serve.upkeep)
app.command()(review.review)
app.command()(review.plan)
app.command()(batch.batch)
app.command()(demo.demo)
app.command()(check.check)
app.command()(jobs.why)
app.command()(jobs.jobs)
app.add_typer(jobs.dead, name="dead")
app.command()(fleet.pause)
app.command()(fleet.resume)
app.command()(settings.settings)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and end.", is_eager=True)] = False,
) -> None:
    if show:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Exit codes: 0 done, 1 findings, 2 usage, 3 not everything reviewed, 4 provider or forge failed, 78 settings."""
    with told_clearly():
        app()
