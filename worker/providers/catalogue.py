"""What is known of models by name: `catalogue.toml` as values. No logic goes by its figures."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Final

from worker.core.model_info import ModelInfo, Prices

_FILE: Final = "catalogue.toml"

WINDOW_NAMES: Final = ("context_length", "context_window", "max_model_len", "max_context_length")
"""Members of a row of `GET /models` that tell the window: Moonshot and OpenRouter, Groq, vLLM, Mistral."""
BY_MODELS: Final = "GET /models"
LEAST_WINDOW: Final = 1_024
LARGEST_WINDOW: Final = 16_777_216
"""Beyond these it is no model's window, whoever says so."""


@dataclass(frozen=True, slots=True)
class Entry:
    """`note` tells the operator what was assumed; empty where the catalogue knows the model."""

    model: ModelInfo
    note: str = ""


def lookup(name: str) -> ModelInfo:
    """What is known of `name`; for an unknown one, what its family's prefix lets us assume."""
    return describe(name).model


def describe(name: str) -> Entry:
    """As `lookup`, and in words what the operator should know about it."""
    models, prefixes = _catalogue()
    # OpenRouter and its kin write the owner before the name and a variant behind it.
    bare = name.rsplit("/", 1)[-1].split(":", 1)[0].lower()
    if bare in models:
        model = replace(models[bare], name=name)
        if model.is_retired:
            return Entry(model, f"{name} was retired by its vendor and may answer 404")
        return Entry(model)
    prefix = max((prefix for prefix in prefixes if bare.startswith(prefix)), key=len)
    model = replace(prefixes[prefix], name=name)
    like = f"as for {prefix}*" if prefix else "with careful defaults"
    return Entry(
        model,
        f"{name} is not in the catalogue: planned {like}, a window of {model.window_tokens:,} tokens."
        " Set LLM_CONTEXT_TOKENS if that is wrong.",
    )


def corrected(model: ModelInfo, offered: Mapping[str, object]) -> ModelInfo:
    """`model` with what the server says of it in its row of `GET /models`; odd values are passed over."""
    window = _tokens(offered, WINDOW_NAMES)
    if window is None:
        return model
    return replace(
        model,
        window_tokens=window,
        max_output_tokens=min(model.max_output_tokens, window),
        window_source=BY_MODELS,
    )


def _tokens(offered: Mapping[str, object], names: Iterable[str]) -> int | None:
    """The first of the members `names` that can be a number of tokens."""
    for name in names:
        value = offered.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and LEAST_WINDOW <= value <= LARGEST_WINDOW:
            return value
    return None


def known_models() -> tuple[str, ...]:
    """Names of the catalogue that are not retired, in its order: what `auto` may choose from, best known last."""
    models, _ = _catalogue()
    return tuple(name for name, model in models.items() if not model.is_retired)


@cache
def _catalogue() -> tuple[dict[str, ModelInfo], dict[str, ModelInfo]]:
    rows = tomllib.loads(files("worker.providers").joinpath(_FILE).read_text("utf-8"))
    return (
        {name: _model(name, row) for name, row in rows["models"].items()},
        {name: _model(name, row) for name, row in rows["prefixes"].items()},
    )


def _model(name: str, row: dict[str, Any]) -> ModelInfo:
    price = row.get("price")
    return ModelInfo(
        name=name,
        window_tokens=row["window"],
        max_output_tokens=row["max_output"],
        family=row.get("family", "other"),
        prices=Prices(**price) if price else None,
        token_factor=row.get("factor", 1.10),
        is_retired=row.get("retired", False),
        takes_schema=row.get("schema", True),
        takes_images=row.get("images", False),
    )
