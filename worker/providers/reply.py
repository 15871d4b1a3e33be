"""One answer as it arrives: the text so far, how it ended, what it cost; in no vendor's words."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal, Protocol

from worker.core.exchange import Prompt
from worker.core.model_info import ModelInfo
from worker.core.usage import Usage
from worker.providers.http import Complaint
from worker.providers.streams import Event

Finish = Literal["", "stop", "length", "filter"]

MAX_TEXT_CHARS = 2_000_000
"""Content and reasoning together. A model that got into repeating itself is stopped here."""


@dataclass(slots=True)
class Reply:
    """`content` and reasoning are kept apart; of the reasoning only its length is needed."""

    parts: list[str] = field(default_factory=list)
    content_chars: int = 0
    reasoning_tokens_guess: int = 0
    reasoning_chars: int = 0
    finish: Finish = ""
    is_done: bool = False
    """The stream said that nothing more comes."""
    model: str = ""
    """What the server says it is."""
    input_tokens: int | None = None
    cached_tokens: int = 0
    output_tokens: int | None = None
    complaint: Complaint | None = None
    """An error that came inside the stream."""

    @property
    def content(self) -> str:
        return "".join(self.parts)

    @property
    def is_too_long(self) -> bool:
        return self.content_chars + self.reasoning_chars > MAX_TEXT_CHARS

    def add_content(self, text: str) -> None:
        self.parts.append(text)
        self.content_chars += len(text)

    def add_reasoning(self, text: str) -> None:
        self.reasoning_chars += len(text)
        self.reasoning_tokens_guess += guessed_tokens(text)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing although the connection may have broken.

        `finish_reason` says so; so does content that is one complete JSON object, since all our answers are.
        """
        if self.finish:
            return True
        text = self.content.strip()
        if not (text.startswith("{") and text.endswith("}")):
            return False
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return False
        return True

    def usage(self, prompt: Prompt, info: ModelInfo) -> Usage:
        """As the server counted it; where it did not, the planned input and a guess of the output within its cap."""
        is_estimated = self.input_tokens is None or self.output_tokens is None
        input_tokens = prompt.input_tokens if self.input_tokens is None else self.input_tokens
        cap_tokens = min(prompt.max_output_tokens, info.max_output_tokens)
        guess = min(guessed_tokens(self.content) + self.reasoning_tokens_guess, cap_tokens)
        output_tokens = guess if self.output_tokens is None else self.output_tokens
        cached_tokens = min(self.cached_tokens, input_tokens)
        cost_usd = None
        if info.prices is not None:
            cost_usd = info.prices.cost_usd(
                input_tokens=input_tokens, cached_tokens=cached_tokens, output_tokens=output_tokens
            )
        return Usage(1, input_tokens, cached_tokens, output_tokens, cost_usd, is_estimated)


class Reader(Protocol):
    """Turns one vendor's stream, or its answer in one piece, into a `Reply`."""

    reply: Reply

    def take(self, event: Event) -> None: ...

    def take_whole(self, value: object) -> None:
        """The parsed body of an answer that was not streamed."""


def guessed_tokens(text: str) -> int:
    """Moonshot's clients' own guess: four ASCII characters a token, every other character one."""
    ascii_chars = sum(map(str.isascii, text)) if not text.isascii() else len(text)
    return -(-ascii_chars // 4) + len(text) - ascii_chars


def count(value: object) -> int | None:
    """A non-negative count as JSON has it, None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
