"""Chat Completions as Kimi speaks them, and all that speak it too."""

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

_SCHEMA_REFUSED = "response_format:json_schema"
_FORMAT_REFUSED = "response_format"
_CAP = "max_completion_tokens"

_FINISHES: dict[str, Finish] = {
    "stop": "stop",
    "end_turn": "stop",
    "tool_calls": "stop",
    "function_call": "stop",
    "length": "length",
    "max_tokens": "length",
    "content_filter": "filter",
}


class OpenAICompatibleModel(RemoteModel):
    """`POST {base}/chat/completions`, always streamed: an unstreamed long request dies at the vendor's gateway."""

    @property
    def url(self) -> str:
        return f"{self.endpoint.root}/chat/completions"

    def _body(self, prompt: Prompt, refused: Collection[str]) -> Body:
        # Never temperature, top_p, n or penalties: Kimi's thinking models refuse every value but their own.
        body: Body = {
            "model": self.endpoint.model,
            "messages": [
                {"role": "system", "content": prompt.system},
                {"role": "user", "content": self._user_content(prompt)},
            ],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        # Some older servers know only the older name; without any cap the vendor's default counts against TPM.
        body["max_tokens" if _CAP in refused else _CAP] = self._cap(prompt)
        answer_format = self._response_format(prompt, refused)
        if answer_format:
            body["response_format"] = answer_format
        if prompt.cache_key:
            body["prompt_cache_key"] = prompt.cache_key
        thinking: Thinking = "off" if prompt.without_thinking else self._wishes.thinking
        body.update(thinking_members(self.info, thinking))
        return body

    def _user_content(self, prompt: Prompt) -> str | list[Body]:
        """Plain text where there is nothing else: not every server reads parts."""
        images = self._shown_images(prompt)
        if not images:
            return prompt.user
        parts: list[Body] = [{"type": "text", "text": prompt.user}]
        for image in images:
            url = f"data:{image.media_type};base64,{b64encode(image.data).decode()}"
            parts.append({"type": "image_url", "image_url": {"url": url}})
        return parts

    def _response_format(self, prompt: Prompt, refused: Collection[str]) -> Body | None:
        if _FORMAT_REFUSED in refused:
            return None
        if _SCHEMA_REFUSED in refused or not self.info.takes_schema:
            return {"type": "json_object"}
        schema = {"name": str(prompt.kind), "strict": True, "schema": prompt.schema}
        return {"type": "json_schema", "json_schema": schema}

    def _refusal_of(self, parameter: str, body: Body) -> str:
        if parameter.partition(".")[0] != "response_format":
            return parameter
        answer_format = body.get("response_format")
        # One step down at a time: a schema, then any JSON object, then nothing but the words of the prompt.
        has_schema = isinstance(answer_format, dict) and answer_format.get("type") == "json_schema"
        return _SCHEMA_REFUSED if has_schema else _FORMAT_REFUSED

    def _reader(self) -> Reader:
        return ChatReader()


def thinking_members(info: ModelInfo, thinking: Thinking) -> Body:
    """How one wish is said to each family of models; `default` says nothing, and so does what a family cannot do."""
    if thinking == "default":
        return {}
    if info.family == "kimi-k2":
        return {"thinking": {"type": "disabled" if thinking == "off" else "enabled"}}
    if info.family == "kimi-k3":
        # Three efforts, and no way to think not at all.
        return {"reasoning_effort": {"off": "low", "low": "low", "medium": "high", "high": "max"}[thinking]}
    if info.family == "openai":
        return {"reasoning_effort": "none" if thinking == "off" else thinking}
    # kimi-k2-code thinks always; of other vendors' models nothing is known, LLM_EXTRA_BODY says it for them.
    return {}


class ChatReader:
    """Chunks of a chat completion → `Reply`."""

    def __init__(self) -> None:
        self.reply = Reply()

    def take(self, event: Event) -> None:
        if event.data.strip() == "[DONE]":
            self.reply.is_done = True
            return
        try:
            value: object = json.loads(event.data)
        except (ValueError, RecursionError):
            # A broken chunk cannot be read; what it held shows as an answer that is not whole, and is asked again.
            return
        if not isinstance(value, dict):
            return
        if value.get("error") or event.name == "error":
            self.reply.complaint = complaint_in(value)
            return
        self._take(value, part="delta")

    def take_whole(self, value: object) -> None:
        if isinstance(value, dict):
            self._take(value, part="message")
        self.reply.is_done = True

    def _take(self, value: dict[str, object], *, part: str) -> None:
        if isinstance(value.get("model"), str) and value["model"]:
            self.reply.model = str(value["model"])
        self._usage(value.get("usage"))
        choices = value.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return
        # Moonshot puts usage into the last choice as well, and there alone for some models.
        self._usage(choice.get("usage"))
        said = choice.get(part)
        if isinstance(said, dict):
            for key in ("reasoning_content", "reasoning"):
                if isinstance(said.get(key), str):
                    self.reply.add_reasoning(str(said[key]))
                    break
            if isinstance(said.get("content"), str):
                self.reply.add_content(str(said["content"]))
        finish = choice.get("finish_reason")
        if isinstance(finish, str) and finish:
            self.reply.finish = _FINISHES.get(finish, "stop")

    def _usage(self, usage: object) -> None:
        if not isinstance(usage, dict):
            return
        reply = self.reply
        input_tokens, output_tokens = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
        reply.input_tokens = reply.input_tokens if input_tokens is None else input_tokens
        reply.output_tokens = reply.output_tokens if output_tokens is None else output_tokens
        details = usage.get("prompt_tokens_details")
        nested = count(details.get("cached_tokens")) if isinstance(details, dict) else None
        direct = count(usage.get("cached_tokens"))
        cached_tokens = nested if direct is None else direct
        reply.cached_tokens = reply.cached_tokens if cached_tokens is None else cached_tokens
