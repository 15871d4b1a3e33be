"""Loads the words of each kind of request from the `prompts` package."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from worker.core.exchange import Kind
from worker.core.words import Words


@cache
def words(kind: Kind) -> Words:
    """The words of `kind`: `prompts/<kind>/system.md`, `reminder.md` and `schema.json`."""
    folder = files("prompts").joinpath(kind.value)
    return Words(
        kind=kind,
        system=folder.joinpath("system.md").read_text("utf-8"),
        reminder=folder.joinpath("reminder.md").read_text("utf-8"),
        schema=json.loads(folder.joinpath("schema.json").read_text("utf-8")),
    )
