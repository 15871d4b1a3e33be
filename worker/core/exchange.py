"""One request to a model and its answer, in no vendor's words."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from worker.core.images import Image
from worker.core.usage import Usage


class Kind(StrEnum):
    """The kind of request; `response_format.json_schema.name` and the `kind:` line carry it."""

    FINDINGS = "findings"
    VERDICTS = "verdicts"
    SUMMARY = "summary"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is said, before a provider's adapter makes a body of it. Same bytes for the same input."""

    kind: Kind
    system: str
    """Fixed words; byte-identical over all requests of a kind."""
    user: str
    """First line `kind: …`; then what all requests of a job share; the unit last."""
    schema: dict[str, object]
    """JSON schema of the answer, flat, in Moonshot's subset."""
    input_tokens: int
    """Upper bound over system, user, schema and message overhead, for the model it is planned for."""
    max_output_tokens: int
    """What this request may need; sent as the cap. `input_tokens + max_output_tokens <= window`."""
    cache_key: str = ""
    """The job; lets the provider find the shared prefix."""
    without_thinking: bool = False
    images: tuple[Image, ...] = ()
    """Shown after the text, to a model that takes images; their tokens are part of `input_tokens`."""
    counted_tokens: int = 0
    """Of the text as planning counted it, without factor or margin; 0 where nobody shall learn from it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole: `finish_reason` was seen and was not length or content filter."""

    text: str
    """The `content` part alone; reasoning is never in it."""
    model: str
    """Which model answered, as configured: a fallback says its own name."""
    usage: Usage = field(default_factory=Usage)
    notes: tuple[str, ...] = ()
    """What had to be changed to get it: "dropped parameter thinking"."""


STANDIN_MODEL = "standin-no-model"
"""The model id under which the demo's stand-in answers, so that nobody takes it for a model."""
