"""The stand-in over HTTP: the part of Kimi's API that a review uses, in Kimi's shapes."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import cache

import quicktok
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from worker.core.errors import Unreachable
from worker.core.exchange import STANDIN_MODEL
from worker.standin.brain import answer

WINDOW_TOKENS = 262_144
CHARS_PER_EVENT = 400
HEADERS = {"X-Stand-In": "this is no model"}
STARTS_WITHIN_S = 15.0


def standin_app() -> Starlette:
    """The ASGI application, at `/v1` and without it, so that a forgotten `/v1` does not spoil a demo."""
    routes = []
    for root in ("/v1", ""):
        routes += [
            Route(f"{root}/models", _models),
            Route(f"{root}/users/me/balance", _balance),
            Route(f"{root}/chat/completions", _chat, methods=["POST"]),
            Route(f"{root}/tokenizers/estimate-token-count", _estimate, methods=["POST"]),
        ]
    return Starlette(routes=routes)


@contextmanager
def running_standin(host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve in a thread of this process; gives the base URL. Port 0 takes a free one."""
    with serving(standin_app(), host=host, port=port) as address:
        yield f"{address}/v1"


@contextmanager
def serving(app: Starlette, *, host: str, port: int) -> Iterator[str]:
    """Run any ASGI application in a thread; gives `http://host:port` once it answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(256)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1, access_log=False)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="stand-in", daemon=True)
        thread.start()
        try:
            _wait_until_started(server, thread)
            yield f"http://{host}:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    waiting = threading.Event()
    for _ in range(int(STARTS_WITHIN_S / 0.01)):
        if server.started:
            return
        if not thread.is_alive():
            break
        waiting.wait(0.01)
    raise Unreachable("stand-in: did not start; what stands above in the log says why")


async def _models(_: Request) -> Response:
    row = {
        "id": STANDIN_MODEL,
        "object": "model",
        "owned_by": "kimi-review",
        "context_length": WINDOW_TOKENS,
        "supports_reasoning": False,
    }
    return JSONResponse({"object": "list", "data": [row]}, headers=HEADERS)


async def _balance(_: Request) -> Response:
    data = {"available_balance": 1.0, "voucher_balance": 1.0, "cash_balance": 0.0}
    return JSONResponse({"code": 0, "status": True, "data": data}, headers=HEADERS)


async def _estimate(request: Request) -> Response:
    body = await _body(request)
    if body is None:
        return _refusal("the body must be a JSON object")
    count = await asyncio.to_thread(_tokens, _said(body, "system") + _said(body, "user"))
    return JSONResponse({"code": 0, "status": True, "data": {"total_tokens": count}}, headers=HEADERS)


async def _chat(request: Request) -> Response:
    body = await _body(request)
    if body is None or not isinstance(body.get("messages"), list):
        return _refusal("the body must be a JSON object with messages")
    text = answer(_said(body, "user"), kind=_kind(body))
    prompt_tokens, completion_tokens = await asyncio.to_thread(
        lambda: (_tokens(_said(body, "system") + _said(body, "user")), _tokens(text))
    )
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "cached_tokens": 0,
    }
    if body.get("stream"):
        return StreamingResponse(_events(text, usage), media_type="text/event-stream", headers=HEADERS)
    message = {"role": "assistant", "content": text}
    return JSONResponse(
        {
            **_frame("chat.completion"),
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": usage,
        },
        headers=HEADERS,
    )


async def _events(text: str, usage: dict[str, int]) -> AsyncIterator[bytes]:
    for start in range(0, len(text), CHARS_PER_EVENT):
        yield _event([{"index": 0, "delta": {"content": text[start : start + CHARS_PER_EVENT]}, "finish_reason": None}])
    yield _event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    yield _event([], usage)
    yield b"data: [DONE]\n\n"


def _event(choices: list[dict[str, object]], usage: dict[str, int] | None = None) -> bytes:
    chunk = {**_frame("chat.completion.chunk"), "choices": choices, **({"usage": usage} if usage else {})}
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"


def _frame(kind: str) -> dict[str, object]:
    return {"id": "standin-no-model", "object": kind, "created": 0, "model": STANDIN_MODEL}


async def _body(request: Request) -> dict[str, object] | None:
    try:
        value = await request.json()
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _said(body: dict[str, object], role: str) -> str:
    messages = body.get("messages")
    parts: list[str] = []
    for message in messages if isinstance(messages, list) else []:
        if isinstance(message, dict) and message.get("role") == role:
            content = message.get("content")
            # With images a message is a list of parts; the stand-in reads the text alone.
            pieces = content if isinstance(content, list) else [{"text": content}]
            parts += [
                piece["text"] for piece in pieces if isinstance(piece, dict) and isinstance(piece.get("text"), str)
            ]
    return "\n".join(parts)


def _kind(body: dict[str, object]) -> str:
    """The name of the schema that the answer shall have; empty where none is asked for."""
    answer_format = body.get("response_format")
    schema = answer_format.get("json_schema") if isinstance(answer_format, dict) else None
    name = schema.get("name") if isinstance(schema, dict) else None
    return name if isinstance(name, str) else ""


def _refusal(message: str) -> Response:
    return JSONResponse({"error": {"type": "invalid_request_error", "message": message}}, 400, headers=HEADERS)


def _tokens(text: str) -> int:
    return int(_encoding().count(text.encode("utf-8", "replace")))


@cache
def _encoding() -> quicktok.Encoding:
    """Real counts, since the caller learns from them how large its requests are."""
    return quicktok.get_encoding("o200k_base")
