"""A strict Kimi on loopback: it refuses what the real one refuses, counts by its own clock, and fails on request.

with KimiServer(limits=KimiLimits(concurrency=2)) as kimi:
    kimi.script(Fault(status=429, body=rate_limited("max RPM: 3")), Fault(reset_after_events=2))
    ...                                   # the first two requests fail so, the others are answered
    kimi.base_url, kimi.requests, kimi.violations
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Literal

import quicktok

from tests.fakes.loopback import Loopback, Quiet
from tests.fakes.message_content import IMAGE_TOKENS, content_problem, images_of, text_of
from worker.standin.brain import answer as standin_answer

KEY = "sk-test-0123456789abcdef"
WINDOW_TOKENS = 262_144
WINDOW_S = 60.0
ACCOUNT = "Your account org-78cd08fac9804d20bac9a1f02fc1e6a5 <ak-f94zcrj6ax1111aqsyq1>"

FORBIDDEN = ("temperature", "top_p", "n", "presence_penalty", "frequency_penalty")
KNOWN = frozenset(
    {
        "model", "messages", "stream", "stream_options", "max_completion_tokens", "max_tokens", "response_format",
        "prompt_cache_key", "thinking", "reasoning_effort", "tools", "tool_choice", "safety_identifier",
    }
)  # fmt: skip
NOT_IN_SCHEMAS = frozenset(
    {"oneOf", "allOf", "not", "const", "pattern", "format", "exclusiveMinimum", "uniqueItems", "$schema", "examples"}
)

Brain = Callable[[dict[str, Any]], str]
"""Request body → the answer's content."""


@dataclass(frozen=True, slots=True)
class KimiLimits:
    """The account's limits; None is none. Minutes are sliding windows of `window_s`, days of `day_s` seconds."""

    concurrency: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    tpd: int | None = None
    window_s: float = WINDOW_S
    day_s: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What one request gets instead of, or within, its answer. `status` other than 200 sends `body` and ends."""

    status: int = 200
    body: str | dict[str, Any] = ""
    """With status 200 and not empty: sent as it is instead of a stream."""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = ""
    """Empty: application/json for a dict, text/html for text that begins with `<`, else text/plain."""
    delay_s: float = 0.0
    """Before the status line."""
    first_byte_delay_s: float = 0.0
    """Between headers and the first event."""
    silence_after_events: int | None = None
    """Stops sending after so many events and keeps the connection open until the client leaves."""
    reset_after_events: int | None = None
    """Sends a TCP reset after so many events."""
    end_after_events: int | None = None
    """Ends the stream properly after so many events."""
    packet_bytes: int | None = None
    """Sends the stream in packets of so many bytes: splits characters and line ends."""
    line_end: str = "\n"
    has_usage: Literal["chunk", "choice", "none"] = "chunk"
    has_done: bool = True
    finish: str = "stop"
    content: str | None = None
    """The answer instead of the brain's."""
    reasoning: str = "Let me look at the lines."
    comments: bool = False
    """Sends `: keep-alive` comments between the events."""
    heartbeats: int = 0
    """So many comments, `pace_s` apart, before the first event."""
    pace_s: float = 0.0
    """Between events."""
    error_event: dict[str, Any] | None = None
    """Sent as an event after the first content."""
    reports_tokens: int | None = None
    """`prompt_tokens` instead of the true count."""


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived. `at_s` and `ended_at_s` are monotonic seconds."""

    method: str
    path: str
    headers: Mapping[str, str]
    raw: bytes
    body: dict[str, Any]
    at_s: float
    status: int
    input_tokens: int
    """As this server counts them."""


class KimiServer:
    """Real HTTP on 127.0.0.1, each connection in a thread. Everything recorded can be read while it runs."""

    def __init__(
        self,
        *,
        key: str = KEY,
        models: tuple[str, ...] = ("kimi-k2.6", "kimi-k2.7-code", "kimi-k3"),
        window_tokens: int = WINDOW_TOKENS,
        token_factor: float = 1.0,
        limits: KimiLimits | None = None,
        brain: Brain | None = None,
        default: Fault | None = None,
        balance: float = 12.5,
        usages: dict[str, Any] | None = None,
        refuses: tuple[str, ...] = (),
        declines: str = "",
    ) -> None:
        """`token_factor` times the o200k count is what this server counts. `default` shapes every unscripted answer.

        `usages` is what a Code Plan answers at `/usages`; `refuses` names members that this model does not take.
        A request whose words hold `declines` meets the content filter.
        """
        self.key = key
        self.models = models
        self.window_tokens = window_tokens
        self.token_factor = token_factor
        self.limits = limits or KimiLimits()
        self.brain: Brain = brain or standin_brain
        self.default = default or Fault()
        self.balance = balance
        self.usages = usages
        self.refuses = refuses
        self.declines = declines
        self.received: list[Received] = []
        self.ended_at_s: dict[int, float] = {}
        """Index in `received` → when its answer had been sent in full; absent for one that never was."""
        self.left_at_s: dict[int, float] = {}
        """The same of every stream, however it ended."""
        self.scripted: set[int] = set()
        """Indices in `received` of those that met a fault of `script`."""
        self.violations: list[str] = []
        """One line for each request above a limit: what the throttle must keep at zero."""
        self.most_running = 0
        self._script: deque[Fault] = deque()
        self._lock = threading.Lock()
        self._running = 0
        self._admitted: deque[tuple[float, int]] = deque()
        self._server = Loopback(_Handler, self)

    def __enter__(self) -> KimiServer:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()

    @property
    def address(self) -> str:
        """`http://127.0.0.1:port`, without `/v1`."""
        return self._server.address

    @property
    def base_url(self) -> str:
        return f"{self.address}/v1"

    @property
    def is_stopping(self) -> bool:
        return self._server.is_stopping

    @property
    def requests(self) -> list[Received]:
        """The chat completions, refused ones included, in the order they came."""
        with self._lock:
            return [request for request in self.received if request.path.endswith("/chat/completions")]

    @property
    def answered(self) -> list[Received]:
        return [request for request in self.requests if request.status == 200]

    def script(self, *faults: Fault) -> None:
        """The next chat completions meet these, one each; after them `default` again."""
        with self._lock:
            self._script.extend(faults)

    # ------------------------------------------------------------------------------- used by the handler

    def next_fault(self) -> Fault | None:
        with self._lock:
            return self._script.popleft() if self._script else None

    def leave(self) -> None:
        with self._lock:
            self._running -= 1

    def record(self, request: Received) -> int:
        """Its index in `received`."""
        with self._lock:
            self.received.append(request)
            return len(self.received) - 1

    def admit(self, tokens: int) -> str:
        """Why the account may not have this request now, in Moonshot's words.

        Empty when it may; it then counts, and runs until `leave`.
        """
        limits = self.limits
        now_s = time.monotonic()
        with self._lock:
            while self._admitted and self._admitted[0][0] <= now_s - limits.day_s:
                self._admitted.popleft()
            minute = [row for row in self._admitted if row[0] > now_s - limits.window_s]
            spent = sum(tokens for _, tokens in minute)
            day = sum(tokens for _, tokens in self._admitted)
            text = ""
            if limits.concurrency is not None and self._running >= limits.concurrency:
                text = f"reached max organization concurrency: {limits.concurrency}, please try again after 1 seconds"
            elif limits.rpm is not None and len(minute) >= limits.rpm:
                text = f"reached organization max RPM: {limits.rpm}, please try again after 1 seconds"
            elif limits.tpm is not None and spent + tokens > limits.tpm:
                text = f"reached organization TPM rate limit, current: {spent + tokens}, limit: {limits.tpm}"
            elif limits.tpd is not None and day + tokens > limits.tpd:
                text = f"reached organization TPD rate limit, current: {day + tokens}, limit: {limits.tpd}"
            if text:
                self.violations.append(text)
            else:
                self._admitted.append((now_s, tokens))
                self._running += 1
                self.most_running = max(self.most_running, self._running)
            return text

    def count(self, text: str) -> int:
        """Tokens of a text as this server counts them."""
        return int(_ENCODING.count(text.encode("utf-8", "replace")) * self.token_factor)

    def count_input(self, body: dict[str, Any]) -> int:
        """Texts, the schema, and a few tokens around each message."""
        contents = [message.get("content") for message in body.get("messages") or () if isinstance(message, dict)]
        texts = [text_of(content) for content in contents]
        images = sum(len(images_of(content)) for content in contents)
        schema = json.dumps(body["response_format"]) if body.get("response_format") else ""
        return sum(self.count(text) + 8 for text in texts) + self.count(schema) + IMAGE_TOKENS * images

    def wait(self, seconds: float) -> None:
        """Sleep, but not past the server's end."""
        self._server.wait(seconds)


_ENCODING = quicktok.get_encoding("o200k_base")


def standin_brain(body: dict[str, Any]) -> str:
    """Answers as the stand-in does, whichever model is asked for."""
    return standin_answer(said(body, "user"))


def canned(text: str) -> Brain:
    """Always the same answer."""
    return lambda _: text


def said(body: dict[str, Any], role: str) -> str:
    return "\n".join(text_of(message["content"]) for message in body["messages"] if message["role"] == role)


def error(kind: str, message: str) -> dict[str, Any]:
    """Moonshot's usual envelope."""
    return {"error": {"type": kind, "message": message}}


def rate_limited(what: str) -> dict[str, Any]:
    """`what` as in "organization max RPM: 3, please try again after 1 seconds"."""
    return error("rate_limit_reached_error", f"{ACCOUNT} request reached {what}")


def overloaded() -> dict[str, Any]:
    return error("engine_overloaded_error", "The engine is currently overloaded, please try again later")


def no_balance() -> dict[str, Any]:
    return error(
        "exceeded_current_quota_error",
        f"{ACCOUNT} is suspended due to insufficient balance, please recharge your account or check your plan and"
        " billing details",
    )


class _Handler(Quiet, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: KimiServer
    _is_running = False

    def do_GET(self) -> None:
        kimi = self.owner
        status, body = 404, _url_not_found(self.path)
        if not self._is_authorised():
            status, body = 401, _wrong_key()
        elif self.path == "/v1/models":
            rows = [{"id": name, "object": "model", "context_length": kimi.window_tokens} for name in kimi.models]
            status, body = 200, {"object": "list", "data": rows}
        elif self.path == "/v1/users/me/balance":
            status, body = 200, {"code": 0, "status": True, "data": {"available_balance": kimi.balance}}
        elif self.path == "/v1/usages" and kimi.usages is not None:
            status, body = 200, kimi.usages
        self._record(b"", {}, status, 0)
        self._send(status, body)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.path != "/v1/chat/completions":
            self._record(raw, {}, 404, 0)
            self._send(404, _url_not_found(self.path))
            return
        try:
            self._chat(raw)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _chat(self, raw: bytes) -> None:
        kimi = self.owner
        fault = kimi.next_fault()
        try:
            body = json.loads(raw)
        except ValueError:
            body = {}
        tokens = kimi.count_input(body)
        if fault is not None and (fault.status != 200 or fault.body):
            kimi.wait(fault.delay_s)
            kimi.scripted.add(self._record(raw, body, fault.status, tokens))
            self._send(fault.status, fault.body, fault.headers, fault.content_type)
            return
        status, refusal = self._refusal(body, tokens)
        number = self._record(raw, body, status, tokens)
        if fault is not None:
            kimi.scripted.add(number)
        if refusal:
            self._send(status, refusal, {"Retry-After": "1"} if status == 429 else {})
            return
        self._is_running = True
        try:
            if self._stream(body, tokens, fault or kimi.default):
                kimi.ended_at_s[number] = time.monotonic()
        finally:
            kimi.left_at_s[number] = time.monotonic()
            self._finished()

    def _finished(self) -> None:
        """Gives the place back, once."""
        if self._is_running:
            self._is_running = False
            self.owner.leave()

    def _refusal(self, body: dict[str, Any], tokens: int) -> tuple[int, dict[str, Any]]:
        kimi = self.owner
        if not self._is_authorised():
            return 401, _wrong_key()
        problem = problem_with(body, kimi.refuses)
        if problem:
            return 400, error("invalid_request_error", problem)
        if body["model"] not in kimi.models:
            return 404, error("resource_not_found_error", f"Not found the model {body['model']} or Permission denied")
        if kimi.declines and kimi.declines in said(body, "user"):
            return 400, error("content_filter", "The request was rejected because it was considered high risk")
        needed = tokens + body["max_completion_tokens"]
        if needed > kimi.window_tokens:
            return 400, error(
                "invalid_request_error",
                f"Invalid request: Your request exceeded model token limit: {kimi.window_tokens} (requested: {needed})",
            )
        over = kimi.admit(needed)
        return (429, error("rate_limit_reached_error", f"{ACCOUNT} request {over}")) if over else (200, {})

    def _stream(self, body: dict[str, Any], tokens: int, fault: Fault) -> bool:
        """Whether all of it was sent."""
        kimi = self.owner
        content = kimi.brain(body) if fault.content is None else fault.content
        kimi.wait(fault.delay_s)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Connection", "close")
        for name, value in fault.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        self.wfile.flush()
        kimi.wait(fault.first_byte_delay_s)
        for _ in range(fault.heartbeats):
            self._write(f": keep-alive{fault.line_end}{fault.line_end}".encode(), fault)
            kimi.wait(fault.pace_s)
        events = _events(body, content, tokens, fault, kimi)
        for number, event in enumerate(events):
            if number == fault.silence_after_events:
                self._until_client_leaves()
                return False
            if number == fault.reset_after_events:
                # What was sent must arrive first; zero linger then turns the close into a reset.
                kimi.wait(0.05)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                raise ConnectionResetError
            if number == fault.end_after_events:
                return False
            if fault.comments:
                self._write(f": keep-alive{fault.line_end}{fault.line_end}".encode(), fault)
            if number == len(events) - 1:
                # Before the client can know that it is over: its next request must find the place free.
                self._finished()
            self._write(f"data: {event}{fault.line_end}{fault.line_end}".encode(), fault)
            if fault.pace_s:
                kimi.wait(fault.pace_s)
        return True

    def _write(self, data: bytes, fault: Fault) -> None:
        step = fault.packet_bytes or len(data)
        for start in range(0, len(data), step):
            self.wfile.write(data[start : start + step])
            self.wfile.flush()

    def _until_client_leaves(self) -> None:
        self.connection.settimeout(0.05)
        kimi = self.owner
        while not kimi.is_stopping:
            try:
                if not self.connection.recv(1):
                    return
            except TimeoutError:
                continue

    def _is_authorised(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.owner.key}"

    def _record(self, raw: bytes, body: dict[str, Any], status: int, tokens: int) -> int:
        headers = {name.lower(): value for name, value in self.headers.items()}
        return self.owner.record(
            Received(self.command, self.path, headers, raw, body, time.monotonic(), status, tokens)
        )

    def _send(
        self,
        status: int,
        body: str | dict[str, Any],
        headers: Mapping[str, str] | None = None,
        content_type: str = "",
    ) -> None:
        text = json.dumps(body) if isinstance(body, dict) else body
        if not content_type:
            content_type = "text/html" if text.lstrip().startswith("<") else "text/plain"
            content_type = "application/json" if isinstance(body, dict) else content_type
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def problem_with(body: dict[str, Any], refuses: tuple[str, ...] = ()) -> str:
    """What the real server would complain about, in its words; empty when nothing."""
    for name in FORBIDDEN:
        if name in body:
            return f"invalid {name}: only 1 is allowed for this model"
    for name in body:
        if name not in KNOWN or name in refuses:
            return f"invalid request: unknown parameter {name}"
    if not isinstance(body.get("messages"), list) or not body["messages"]:
        return "invalid request: messages must not be empty"
    for message in body["messages"]:
        if problem := content_problem(message.get("content")):
            return problem
    if body.get("stream") is not True or body.get("stream_options") != {"include_usage": True}:
        return "invalid request: this test server wants every request streamed, with usage"
    cap = body.get("max_completion_tokens")
    if not isinstance(cap, int) or cap < 1:
        return "invalid request: this test server wants max_completion_tokens in every request"
    thinking = body.get("thinking")
    if thinking is not None and (
        thinking.get("type") not in ("enabled", "disabled") or set(thinking) - {"type", "keep"}
    ):
        return "invalid thinking: only type and keep are accepted"
    answer_format = body.get("response_format")
    if answer_format is not None and answer_format.get("type") == "json_schema":
        schema = answer_format["json_schema"]
        if not schema.get("name") or schema.get("strict") is not True:
            return "invalid response_format: name and strict are wanted"
        return schema_problem(schema["schema"], depth=1)
    return ""


def schema_problem(node: Any, *, depth: int) -> str:
    """Moonshot's subset of JSON schema."""
    if depth > 10:
        return "invalid response_format: schema is nested too deeply"
    if not isinstance(node, dict):
        return "invalid response_format: schema node must be an object"
    outside = NOT_IN_SCHEMAS.intersection(node)
    if outside:
        return f"invalid response_format: schema keyword {sorted(outside)[0]} is not supported"
    if "type" not in node and "anyOf" not in node and "$ref" not in node:
        return "invalid response_format: every schema node needs a type"
    children = [*node.get("properties", {}).values(), *node.get("anyOf", [])]
    if "items" in node:
        children.append(node["items"])
    return next(filter(None, (schema_problem(child, depth=depth + 1) for child in children)), "")


def _events(body: dict[str, Any], content: str, tokens: int, fault: Fault, kimi: KimiServer) -> list[str]:
    """The data of each event, in order: reasoning, content in pieces, finish, usage, [DONE]."""
    prompt_tokens = tokens if fault.reports_tokens is None else fault.reports_tokens
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": kimi.count(content + fault.reasoning),
        "total_tokens": prompt_tokens + kimi.count(content + fault.reasoning),
        "cached_tokens": min(256, prompt_tokens),
    }

    def chunk(choices: list[dict[str, Any]], extra: dict[str, Any] | None = None) -> str:
        frame = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        return json.dumps({**frame, "choices": choices, **(extra or {})}, ensure_ascii=False)

    def delta(said: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {"index": 0, "delta": said, "finish_reason": finish}

    events = [chunk([delta({"role": "assistant", "content": ""})])]
    if fault.reasoning:
        events.append(chunk([delta({"reasoning_content": fault.reasoning})]))
    step = max(1, -(-len(content) // 4))
    pieces = [content[start : start + step] for start in range(0, len(content), step)]
    for number, piece in enumerate(pieces):
        events.append(chunk([delta({"content": piece})]))
        if number == 0 and fault.error_event is not None:
            events.append(json.dumps(fault.error_event))
    if fault.finish:
        last = delta({}, fault.finish)
        if fault.has_usage == "choice":
            last["usage"] = usage
        events.append(chunk([last]))
    if fault.has_usage == "chunk":
        events.append(chunk([], {"usage": usage}))
    if fault.has_done:
        events.append("[DONE]")
    return events


def _wrong_key() -> dict[str, Any]:
    return error("invalid_authentication_error", "Invalid Authentication")


def _url_not_found(path: str) -> dict[str, Any]:
    """Moonshot's gateway answers unknown paths in an envelope of its own."""
    return {"code": 5, "error": "url.not_found", "message": "没找到对象", "method": "POST", "scode": "0x5", "url": path}
