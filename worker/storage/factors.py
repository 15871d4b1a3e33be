"""What usage taught about a model's tokens: its factor over o200k, shared by the fleet."""

from __future__ import annotations

import redis.asyncio

from worker.core.model_info import clamped_factor, learn
from worker.storage.connection import PREFIX
from worker.storage.faults import answering

KEPT_S = 90 * 86_400
"""A model that nobody asked for a quarter of a year is learned anew."""


class TokenFactors:
    """Two processes that learn at the same moment may lose one of the two lessons; the next answer brings another."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def get(self, model: str) -> float | None:
        """The factor learned for `model`; None when nothing was. Raises `Unreachable`."""
        with answering():
            said = await self._client.get(self._key(model))
        return None if said is None else clamped_factor(float(said))

    async def learned(self, model: str, *, planned_with: float, estimated: int, actual: int) -> None:
        """Take in that `estimated` o200k tokens were billed as `actual` input tokens. Raises `Unreachable`."""
        known = await self.get(model)
        factor = learn(planned_with if known is None else known, estimated=estimated, actual=actual)
        with answering():
            await self._client.set(self._key(model), f"{factor:.4f}", ex=KEPT_S)

    def _key(self, model: str) -> str:
        return f"{PREFIX}:factor:{model}"
