"""What is known of a model: data, from the catalogue, from what the server says, from settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per million tokens."""

    input: float
    cached_input: float
    output: float


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """`window_tokens` holds input and output together. Families differ in how thinking is asked for."""

    name: str
    window_tokens: int
    max_output_tokens: int
    """The largest cap the server takes."""
    default_output_tokens: int
    """What the server uses when no cap is sent; includes reasoning."""
    family: Literal["kimi-k2", "kimi-k2-code", "kimi-k3", "openai", "anthropic", "other"] = "other"
    prices: Prices | None = None
    token_factor: float = 1.10
    """Model tokens per o200k token, planned with until usage has taught a better one; clamped 1.0–1.6."""
    is_retired: bool = False
    takes_schema: bool = True
    takes_images: bool = False


@dataclass(frozen=True, slots=True)
class Budget:
    """The window as planned with: `input_tokens + output_tokens <= window_tokens`."""

    window_tokens: int
    output_tokens: int
    token_factor: float
    chunk_tokens: int
    """Diff tokens that a chunk normally holds; a setting, 16–24k by default."""

    @property
    def input_tokens(self) -> int:
        """The most that any request's input may take."""
        return self.window_tokens - self.output_tokens
