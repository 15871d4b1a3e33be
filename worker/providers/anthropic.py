"""Anthropic's Messages API: Claude itself, and Kimi's `…/coding/v1/messages` and `…/anthropic`."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Collection

from worker.core.exchange import Prompt
from worker.core.model_info import ModelInfo
from worker.providers.http import complaint_in
from worker.providers.remote import Body, RemoteModel, Thinking
from worker.providers.reply import Finish, Reader, Reply, count
from worker.providers.streams import Event

_STOPS: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "filter",
}

_THINKING_TOKENS: dict[Thinking, int] = {"low": 4_096, "medium": 16_384, "high": 32_768}
_LEAST_THINKING_TOKENS = 1_024


class AnthropicModel(RemoteModel):
    """`POST …/v1/messages`, streamed. The answer's form is asked for in words alone, which the prompt holds."""

    @property
    def url(self) -> str:
        root = self.endpoint.root
        if root.endswith("/messages"):
            return root
        return f"{root}/messages" if root.endswith("/v1") else f"{root}/v1/messages"

    def _body(self, prompt: Prompt, refused: Collection[str]) -> Body:
        body: Body = {
            "model": self.endpoint.model,
            "max_tokens": self._cap(prompt),
            # Marked for the prefix cache: these words are the same in all requests of a kind.
            "system": [{"type": "text", "text": prompt.system, "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": self._user_content(prompt)}],
            "stream": True,
        }
        thinking: Thinking = "off" if prompt.without_thinking else self._wishes.thinking
        body.update(thinking_members(self.info, thinking, cap=self._cap(prompt)))
        return body

    def _user_content(self, prompt: Prompt) -> str | list[Body]:
        images = self._shown_images(prompt)
        if not images:
            return prompt.user
        parts: list[Body] = [{"type": "text", "text": prompt.user}]
        for image in images:
            data = b64encode(image.data).decode()
            parts.append({"type": "image", "source": {"type": "base64", "media_type": image.media_type, "data": data}})
        return parts

    def _reader(self) -> Reader:
        return MessageReader()


def thinking_members(info: ModelInfo, thinking: Thinking, *, cap: int) -> Body:
    """`budget_tokens` is part of the cap: at most half of it, so that room for the answer is left."""
    if thinking == "default" or info.family == "kimi-k2-code":
        return {}
    if thinking == "off":
        return {"thinking": {"type": "disabled"}}
    budget_tokens = min(_THINKING_TOKENS[thinking], cap // 2)
    if budget_tokens < _LEAST_THINKING_TOKENS:
        return {}
    return {"thinking": {"type": "enabled", "budget_tokens": budget_tokens}}


class MessageReader:
    """Events of a message → `Reply`."""

    def __init__(self) -> None:
        self.reply = Reply()
        self._fresh_tokens = 0
        self._cache_read_tokens = 0
        self._cache_written_tokens = 0

    def take(self, event: Event) -> None:
        try:
            value: object = json.loads(event.data)
        except (ValueError, RecursionError):
            # As with chat chunks: what is missing shows in the end.
            return
        if not isinstance(value, dict):
            return
        kind = value.get("type", event.name)
        if kind == "error" or value.get("error"):
            self.reply.complaint = complaint_in(value)
        elif kind == "message_start" and isinstance(value.get("message"), dict):
            self._message(value["message"])
        elif kind in ("content_block_delta", "content_block_start"):
            self._part(value.get("delta", value.get("content_block")))
        elif kind == "message_delta":
            delta = value.get("delta")
            self._stop(delta.get("stop_reason") if isinstance(delta, dict) else None)
            self._usage(value.get("usage"))
        elif kind == "message_stop":
            self.reply.is_done = True

    def take_whole(self, value: object) -> None:
        if isinstance(value, dict):
            self._message(value)
            parts = value.get("content")
            for part in parts if isinstance(parts, list) else []:
                self._part(part)
            self._stop(value.get("stop_reason"))
        self.reply.is_done = True

    def _message(self, message: dict[str, object]) -> None:
        if isinstance(message.get("model"), str):
            self.reply.model = str(message["model"])
        self._usage(message.get("usage"))

    def _part(self, part: object) -> None:
        if not isinstance(part, dict):
            return
        if isinstance(part.get("text"), str):
            self.reply.add_content(str(part["text"]))
        elif isinstance(part.get("thinking"), str):
            self.reply.add_reasoning(str(part["thinking"]))

    def _stop(self, reason: object) -> None:
        if isinstance(reason, str) and reason:
            self.reply.finish = _STOPS.get(reason, "stop")

    def _usage(self, usage: object) -> None:
        """`input_tokens` is what was neither read from the cache nor written to it; ours is all of it."""
        if not isinstance(usage, dict):
            return
        fresh = count(usage.get("input_tokens"))
        read = count(usage.get("cache_read_input_tokens"))
        written = count(usage.get("cache_creation_input_tokens"))
        self._fresh_tokens = self._fresh_tokens if fresh is None else fresh
        self._cache_read_tokens = self._cache_read_tokens if read is None else read
        self._cache_written_tokens = self._cache_written_tokens if written is None else written
        if fresh is not None or self.reply.input_tokens is not None:
            self.reply.input_tokens = self._fresh_tokens + self._cache_read_tokens + self._cache_written_tokens
            self.reply.cached_tokens = self._cache_read_tokens
        output_tokens = count(usage.get("output_tokens"))
        self.reply.output_tokens = self.reply.output_tokens if output_tokens is None else output_tokens
