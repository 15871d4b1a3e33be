"""What one review asks a model: each question by a name of its own, each answer bought once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from worker.core.exchange import Answer, Prompt
from worker.ports import Flow, Model
from worker.review.records import SavedAnswer


@dataclass(frozen=True, slots=True)
class Asking:
    """`saved` holds what earlier attempts bought, by name; `save` stores what this one buys.

    `check_current` is awaited before each request and raises `Superseded` or `LeaseLost` to end everything.
    """

    model: Model
    flow: Flow
    saved: Mapping[str, bytes]
    save: Callable[[str, bytes], Awaitable[None]]
    check_current: Callable[[], Awaitable[None]]

    async def once(self, name: str, prompt: Callable[[], Prompt]) -> Answer:
        """The answer saved under `name`, else the model's, saved. Raises as `Model.complete` and `check_current` do."""
        if (record := self.saved.get(name)) is not None:
            return SavedAnswer.load(record).answer()
        await self.check_current()
        answer = await self.model.complete(prompt(), flow=self.flow)
        await self.save(name, SavedAnswer.of(answer).dump())
        return answer
