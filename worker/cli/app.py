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
# A list of commands cuts longer lines.
app.command(short_help="Everything on one machine, Redis included.")(serve.serve)
app.command(short_help="The HTTP service alone; needs REDIS_URL.")(serve.api)
app.command(short_help="One worker process alone; needs REDIS_URL.")(serve.worker)
app.command(short_help="The timer alone; needs REDIS_URL.")(serve.upkeep)
app.command(short_help="Review one change now.")(review.review)
app.command(short_help="Chunks, tokens, ledger; no model is asked.")(review.plan)
app.command(short_help="Queue many reviews at low priority.")(batch.batch)
app.command(short_help="A review of real commits; no key needed.")(demo.demo)
app.command(short_help="A row for all that must be right.")(check.check)
app.command(short_help="Why a change was, or was not, reviewed.")(jobs.why)
app.command()(jobs.jobs)
app.add_typer(jobs.dead, name="dead")
app.command(short_help="Let no worker take up a job.")(fleet.pause)
app.command()(fleet.resume)
app.command(short_help="The text of .env.example.")(settings.settings)


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
