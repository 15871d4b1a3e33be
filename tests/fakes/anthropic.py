"""A small strict Messages API on loopback, as Claude's and Kimi's Anthropic-style paths speak it."""

from __future__ import annotations

import json
from collections import deque
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any

from tests.fakes.loopback import Loopback, Quiet
from worker.standin.brain import answer as standin_answer

KEY = "sk-ant-test-0123456789"
KNOWN = frozenset({"model", "max_tokens", "system", "messages", "stream", "thinking", "metadata"})


class AnthropicServer:
    """`path` is where messages are taken: `/v1/messages`, `/coding/v1/messages`, `/anthropic/v1/messages`."""

    def __init__(self, *, path: str = "/v1/messages", model: str = "claude-sonnet-4-5", refuses: str = "") -> None:
        self.path = path
        self.model = model
        self.refuses = refuses
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self._script: deque[tuple[int, dict[str, Any]]] = deque()
        self._server = Loopback(_Handler, self)

    def __enter__(self) -> AnthropicServer:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()

    @property
    def address(self) -> str:
        return self._server.address

    def script(self, *answers: tuple[int, dict[str, Any]]) -> None:
        """(status, body) for the next requests, one each; with status 200 the body replaces parts of the answer:
        `content`, `stop_reason`, `thinking`, `error`."""
        self._script.extend(answers)

    def next_answer(self) -> tuple[int, dict[str, Any]]:
        return self._script.popleft() if self._script else (200, {})


class _Handler(Quiet, BaseHTTPRequestHandler):
    owner: AnthropicServer

    def do_POST(self) -> None:
        fake = self.owner
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        fake.requests.append((headers, body))
        problem = self._problem(headers, body)
        status, answer = problem or fake.next_answer()
        if status != 200:
            self._send(status, "application/json", json.dumps(answer).encode())
            return
        self._send(200, "text/event-stream", _stream(body, answer))

    def _problem(self, headers: dict[str, str], body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        fake = self.owner
        if self.path != fake.path:
            return 404, failure("not_found_error", "Not Found")
        if headers.get("x-api-key") != KEY:
            return 401, failure("authentication_error", "invalid x-api-key")
        if headers.get("anthropic-version") != "2023-06-01":
            return 400, failure("invalid_request_error", "anthropic-version: header is required")
        unknown = sorted(set(body) - KNOWN) or sorted({fake.refuses} & set(body))
        if unknown:
            return 400, failure("invalid_request_error", f"{unknown[0]}: Extra inputs are not permitted")
        if body["model"] != fake.model:
            return 404, failure("not_found_error", f"model: {body['model']}")
        if not isinstance(body.get("max_tokens"), int) or body.get("stream") is not True:
            return 400, failure("invalid_request_error", "max_tokens: Field required")
        thinking = body.get("thinking")
        if thinking and thinking["type"] == "enabled" and not 1024 <= thinking["budget_tokens"] < body["max_tokens"]:
            return 400, failure("invalid_request_error", "thinking.budget_tokens: must be below max_tokens")
        return None

    def _send(self, status: int, content_type: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def failure(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


def _stream(body: dict[str, Any], answer: dict[str, Any]) -> bytes:
    content = answer.get("content")
    if content is None:
        said = body["messages"][0]["content"]
        content = standin_answer(said if isinstance(said, str) else said[0]["text"])
    usage = {"input_tokens": 40, "cache_read_input_tokens": 50, "cache_creation_input_tokens": 10, "output_tokens": 1}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"model": body["model"], "content": [], "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "ping"},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "thinking_delta", "thinking": answer.get("thinking", "Let me look.")},
        },
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    ]
    for start in range(0, len(content), 50):
        delta = {"type": "text_delta", "text": content[start : start + 50]}
        events.append({"type": "content_block_delta", "index": 1, "delta": delta})
    if "error" in answer:
        events.append(failure(answer["error"], "in the stream"))
    else:
        reason = answer.get("stop_reason", "end_turn")
        events.append({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 25}})
        events.append({"type": "message_stop"})
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()
