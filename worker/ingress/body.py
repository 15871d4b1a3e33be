"""Reads a request's body within bounds of size, time and memory."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from starlette.requests import ClientDisconnect, Request

from worker.core.errors import BadInput

LIMIT_BYTES = 25_000_000
"""GitHub sends no larger payload: https://docs.github.com/en/webhooks/webhook-events-and-payloads#payload-cap"""
TIMEOUT_S = 10.0
"""For the whole body; a forge gives up after ten seconds itself."""
SMALL_BYTES = 1_000_000
"""Nearly every payload is smaller; what is larger takes one of a few places, so that memory stays flat."""


class BodyRefused(BadInput):
    """`status` is the HTTP status that says why."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class BodyReader:
    """Reads bodies of at most `limit` bytes; `places` of those above `SMALL_BYTES` are held at once."""

    def __init__(self, *, limit: int = LIMIT_BYTES, timeout_s: float = TIMEOUT_S, places: int = 4) -> None:
        self._limit = limit
        self._timeout_s = timeout_s
        self._places = asyncio.Semaphore(places)

    async def read(self, request: Request) -> bytes:
        """The whole body. Raises `BodyRefused` with 400, 408, 413 or 503."""
        declared = request.headers.get("content-length", "0")
        if not declared.isascii() or not declared.isdigit():
            raise BodyRefused("Content-Length is not a number.", status=400)
        if int(declared) > self._limit:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._timeout_s), AsyncExitStack() as held:
                return await self._collect(request, held)
        except TimeoutError:
            raise BodyRefused(f"The body did not arrive within {self._timeout_s:g} s.", status=408) from None
        except ClientDisconnect:
            raise BodyRefused("The caller went away before the body was complete.", status=400) from None

    async def _collect(self, request: Request, held: AsyncExitStack) -> bytes:
        body = bytearray()
        has_place = False
        # The length a caller declares is not believed: chunks are counted as they come.
        async for part in request.stream():
            if len(body) + len(part) > self._limit:
                raise self._too_large()
            body += part
            if not has_place and len(body) > SMALL_BYTES:
                if self._places.locked():
                    raise BodyRefused("Too many large bodies at once; send it again.", status=503)
                await held.enter_async_context(self._places)
                has_place = True
        return bytes(body)

    def _too_large(self) -> BodyRefused:
        return BodyRefused(f"The body is larger than {self._limit:,} bytes.", status=413)
