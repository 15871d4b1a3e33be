"""The words of one kind of request, as values: the core renders them and loads nothing."""

from __future__ import annotations

from dataclasses import dataclass

from worker.core.exchange import Kind


@dataclass(frozen=True, slots=True)
class Words:
    """What `prompts/<kind>/` holds."""

    kind: Kind
    system: str
    """The fixed words; the same bytes in every request of the kind."""
    reminder: str
    """The last words of the user's message, after the content of the change."""
    schema: dict[str, object]
    """JSON schema of the answer."""
