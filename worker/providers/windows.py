"""How large a model's window is: as the settings say, else its server, else the catalogue.

The server is asked rarely, and what it said is kept for the whole fleet. It is believed within reason: a window that
leaves no room for code is passed over, and a refusal ("exceeded model token limit: 131072") outranks a larger promise.
No failure here stops a review: what is too large after all is split when the server says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from worker.core.errors import ConfigurationError, ReviewError
from worker.core.limits import account_of
from worker.core.model_info import LEAST_INPUT_TOKENS, ModelInfo, WindowNote, budget_for, narrowed
from worker.ports import Clock
from worker.providers.account import offers
from worker.providers.catalogue import WINDOW_NAMES, corrected, lookup
from worker.providers.endpoint import Endpoint

log = structlog.get_logger(__name__)

FRESH_S: Final = 6 * 3600.0
"""How long the server's word is good."""
AGAIN_S: Final = 600.0
"""When a server that gave no answer is asked again."""
ANSWER_WITHIN_S: Final = 5.0
"""A review waits no longer for it."""
LOOK_S: Final = 0.1
BY_SETTING: Final = "LLM_CONTEXT_TOKENS"


class WindowNotes(Protocol):
    """The fleet's memory. Every call may raise `Unreachable`."""

    async def read(self, name: str) -> WindowNote: ...

    async def claim(self, name: str, *, for_s: float) -> bool:
        """Whether the caller is the one who asks; it need not tell how that ended."""

    async def heard(self, name: str, row: Mapping[str, object] | None, *, fresh_s: float) -> None:
        """Keep `row`, or what was known when it is None, and ask nobody for `fresh_s` seconds."""

    async def refused(self, name: str, above_tokens: int) -> None: ...


@dataclass(frozen=True, slots=True)
class WindowWishes:
    """LLM_CONTEXT_TOKENS and LLM_MAX_OUTPUT_TOKENS."""

    window_tokens: int | None = None
    output_tokens: int | None = None


def informed(model: ModelInfo, note: WindowNote, wishes: WindowWishes) -> ModelInfo:
    """`model` with the window to plan with: the one place where that is decided."""
    if wishes.window_tokens is not None:
        return replace(model, window_tokens=wishes.window_tokens, window_source=BY_SETTING)
    told = corrected(model, note.row or {})
    limit = note.refused_above_tokens
    said = [narrowed(told, limit), told] if limit is not None and limit < told.window_tokens else [told]
    return next((one for one in said if _has_room(one, wishes.output_tokens)), model)


def _has_room(model: ModelInfo, output_tokens: int | None) -> bool:
    try:
        return budget_for(model, output_tokens=output_tokens).input_tokens >= LEAST_INPUT_TOKENS
    except ConfigurationError:
        return False


@dataclass(frozen=True, slots=True)
class Windows:
    """Of one endpoint's model, for one event loop."""

    endpoint: Endpoint
    wishes: WindowWishes
    notes: WindowNotes
    clock: Clock
    answer_within_s: float = ANSWER_WITHIN_S

    async def model(self) -> ModelInfo:
        """What is known of the model now. Raises `Unreachable` when the store is away, and for nothing else."""
        known = lookup(self.endpoint.model)
        note = WindowNote() if self.wishes.window_tokens is not None else await self._note(known)
        return informed(known, note, self.wishes)

    async def remembered(self) -> WindowNote:
        """What is known without asking. Raises `Unreachable`."""
        return await self.notes.read(self._name)

    async def refused(self, limit_tokens: int) -> None:
        """The server declined a request as larger than its window of `limit_tokens`. Raises `Unreachable`."""
        await self.notes.refused(self._name, limit_tokens)

    @property
    def _name(self) -> str:
        return f"{account_of(self.endpoint.base_url, self.endpoint.api_key)}:{self.endpoint.model}"

    async def _note(self, known: ModelInfo) -> WindowNote:
        note = await self.notes.read(self._name)
        if note.is_fresh:
            return note
        if await self.notes.claim(self._name, for_s=2 * self.answer_within_s):
            return await self._ask(known, note)
        if note.row is not None:
            return note
        # Another review asks at this moment, and all of the first ones should be planned alike.
        ends_at = self.clock.monotonic() + self.answer_within_s
        while not note.is_fresh and self.clock.monotonic() < ends_at:
            await self.clock.sleep(LOOK_S)
            note = await self.notes.read(self._name)
        return note

    async def _ask(self, known: ModelInfo, note: WindowNote) -> WindowNote:
        try:
            offered = await offers(self.endpoint, now=self.clock.now(), within_s=self.answer_within_s)
        except ReviewError as error:
            # The review goes on by what is known, and its requests will tell in words what is wrong with the provider.
            log.info("model.window_not_told", **self.endpoint.described(), error_type=type(error).__name__)
            await self.notes.heard(self._name, None, fresh_s=AGAIN_S)
            return note
        said = offered.get(self.endpoint.model, {})
        row = {name: said[name] for name in WINDOW_NAMES if isinstance(said.get(name), int)}
        await self.notes.heard(self._name, row, fresh_s=FRESH_S)
        note = replace(note, row=row, is_fresh=True)
        self._tell(known, note)
        return note

    def _tell(self, known: ModelInfo, note: WindowNote) -> None:
        """One line where the server and the catalogue differ."""
        told, used = corrected(known, note.row or {}), informed(known, note, self.wishes)
        if told.window_tokens != known.window_tokens:
            log.info(
                "model.window_differs",
                **self.endpoint.described(),
                told_tokens=told.window_tokens,
                catalogue_tokens=known.window_tokens,
                used_tokens=used.window_tokens,
            )
