"""What requests used, as billed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """As billed. `input_tokens` includes the cached ones, `output_tokens` the reasoning."""

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    """None when a price is not known."""
    is_estimated: bool = False
    """True when the server sent no usage for at least one request."""

    def __add__(self, other: Usage) -> Usage:
        costs = [cost for cost in (self.cost_usd, other.cost_usd) if cost is not None]
        unpriced = (self.requests and self.cost_usd is None) or (other.requests and other.cost_usd is None)
        return Usage(
            requests=self.requests + other.requests,
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cost_usd=None if unpriced or not costs else sum(costs),
            is_estimated=self.is_estimated or other.is_estimated,
        )
