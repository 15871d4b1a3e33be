"""What one review asks a model: each question by a name of its own, each answer bought once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from worker.core.exchange import Answer, Prompt
from worker.ports import Flow, Model
from worker.review.lease import Permit
from worker.review.records import SavedAnswer


@dataclass(frozen=True, slots=True)
class Asking:
    """`saved` holds what earlier attempts bought, by name; `save` stores what this one buys.

    `permit` is checked before each question, and by the clock before each of its requests. What it raises ends all.
    """

    model: Model
    flow: Flow
    saved: Mapping[str, bytes]
    save: Callable[[str, bytes], Awaitable[None]]
    permit: Permit

    async def once(self, name: str, prompt: Callable[[], Prompt]) -> Answer:
        """The answer saved under `name`, else the model's, saved. Raises as `Model.complete` and `permit` do."""
        if (record := self.saved.get(name)) is not None:
            return SavedAnswer.load(record).answer()
        await self.permit.check()
        answer = await self.complete(prompt())
        await self.save(name, SavedAnswer.of(answer).dump())
        return answer

    async def complete(self, prompt: Prompt) -> Answer:
        """The model's answer, unsaved. Raises as `Model.complete` does, and `LeaseLost` instead of a request."""
        return await self.model.complete(prompt, flow=self.flow, last_check=self.permit.check_clock)
