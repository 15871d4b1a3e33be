"""What servers said of their models' windows, shared by the fleet."""

from __future__ import annotations

import json
from collections.abc import Mapping

import redis.asyncio

from worker.core.model_info import WindowNote
from worker.storage.connection import PREFIX
from worker.storage.faults import answering

KEPT_S = 30 * 86_400
"""What was heard is of use while the server does not answer."""
REFUSED_S = 7 * 86_400
"""A window may grow: after a week a refused size is tried again."""
ASKING, HEARD = b"asking", b"heard"


class RedisWindowNotes:
    """`name` is an account and a model. Three keys for each: the row, the limit of a refusal, and who asks."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def read(self, name: str) -> WindowNote:
        """Raises `Unreachable`."""
        with answering():
            row, refused, state = await self._client.mget(*(self._key(name, part) for part in ("row", "limit", "turn")))
        return WindowNote(
            row=None if row is None else json.loads(row),
            refused_above_tokens=None if refused is None else int(refused),
            is_fresh=state == HEARD,
        )

    async def claim(self, name: str, *, for_s: float) -> bool:
        """Whether the caller is the one who asks; nobody else is for `for_s` seconds, should it die over it."""
        with answering():
            return bool(await self._client.set(self._key(name, "turn"), ASKING, nx=True, px=round(for_s * 1000)))

    async def heard(self, name: str, row: Mapping[str, object] | None, *, fresh_s: float) -> None:
        """Keep `row`, or what was known when it is None, and let nobody ask for `fresh_s` seconds."""
        with answering():
            if row is not None:
                await self._client.set(self._key(name, "row"), json.dumps(dict(row)), ex=KEPT_S)
            await self._client.set(self._key(name, "turn"), HEARD, px=round(fresh_s * 1000))

    async def refused(self, name: str, above_tokens: int) -> None:
        """Keep the limit that a refusal named."""
        with answering():
            await self._client.set(self._key(name, "limit"), above_tokens, ex=REFUSED_S)

    def _key(self, name: str, part: str) -> str:
        return f"{PREFIX}:window:{part}:{name}"
