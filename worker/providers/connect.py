"""An endpoint → the adapter that speaks its API."""

from __future__ import annotations

from worker.core.model_info import ModelInfo
from worker.core.retry import decide as by_error_class
from worker.ports import Clock, Throttle
from worker.providers.anthropic import AnthropicModel
from worker.providers.endpoint import Endpoint
from worker.providers.openai_compatible import OpenAICompatibleModel
from worker.providers.remote import Deadlines, Decide, RemoteModel, TellWindow, Wishes
from worker.providers.table import Dialect

ADAPTERS: dict[Dialect, type[RemoteModel]] = {"openai": OpenAICompatibleModel, "anthropic": AnthropicModel}


def connect(
    endpoint: Endpoint,
    *,
    info: ModelInfo,
    throttle: Throttle,
    clock: Clock,
    wishes: Wishes | None = None,
    deadlines: Deadlines | None = None,
    is_standin: bool = False,
    refused: set[str] | None = None,
    tell_window: TellWindow | None = None,
    decide: Decide = by_error_class,
) -> RemoteModel:
    """The model at `endpoint`, ready to be asked; nothing is sent yet. `info` describes `endpoint.model`."""
    return ADAPTERS[endpoint.dialect](
        endpoint,
        info=info,
        throttle=throttle,
        clock=clock,
        wishes=wishes,
        deadlines=deadlines,
        is_standin=is_standin,
        refused=refused,
        tell_window=tell_window,
        decide=decide,
    )
