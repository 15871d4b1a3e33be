"""`pause`, `resume`: whether the workers take up jobs at all."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.store import ask_jobs
from worker.core.markdown import visible
from worker.ports import Jobs
from worker.settings import Settings


def pause(
    reason: Annotated[str, typer.Argument(help="Why, in words: `why`, `jobs` and the status page show it.")],
) -> None:
    """Let no worker take up a job until `resume`; deliveries are stored, and what runs goes on."""

    async def ask(store: Jobs, _: Settings) -> None:
        await store.pause(reason.strip())
        print(f"Paused: {visible(await store.paused())}. Jobs are stored and wait; `kimi-review resume` goes on.")

    ask_jobs(ask)


def resume() -> None:
    """Let the workers take up jobs again."""

    async def ask(store: Jobs, _: Settings) -> None:
        was = await store.paused()
        await store.resume()
        print(f"Goes on; it was paused: {visible(was)}." if was else "It was not paused.")

    ask_jobs(ask)
