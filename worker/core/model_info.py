"""What is known of a model: data, from the catalogue, from what the server says, from settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from worker.core.errors import ConfigurationError

MIN_FACTOR: Final = 1.0
MAX_FACTOR: Final = 1.6
EXACT_FACTOR: Final = 1.0
"""Of counts by the model's own vocabulary."""
DEFAULT_CHUNK_TOKENS: Final = 20_000
WIDE_WINDOW_TOKENS: Final = 200_000
"""From here on a window can spare a quarter for the answer; below, a fifth."""
WIDE_OUTPUT_TOKENS: Final = 50_000
"""What the answer gets at least in a wide window: reasoning counts against it."""
LEAST_INPUT_TOKENS: Final = 6_000
"""What a window must leave for the input so that any change can be planned: words, map and a few lines of code."""


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per million tokens."""

    input: float
    cached_input: float
    output: float

    def cost_usd(self, *, input_tokens: int, cached_tokens: int, output_tokens: int) -> float:
        """What a request costs; `input_tokens` includes the cached ones, as in `Usage`."""
        fresh = max(0, input_tokens - cached_tokens)
        return (fresh * self.input + cached_tokens * self.cached_input + output_tokens * self.output) / 1_000_000


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """`window_tokens` holds input and output together. Families differ in how thinking is asked for."""

    name: str
    window_tokens: int
    max_output_tokens: int
    """The largest cap the server takes."""
    family: Literal["kimi-k2", "kimi-k2-code", "kimi-k3", "openai", "anthropic", "other"] = "other"
    prices: Prices | None = None
    token_factor: float = 1.10
    """Model tokens per o200k token, planned with until usage has taught a better one; clamped 1.0–1.6."""
    is_retired: bool = False
    takes_schema: bool = True
    takes_images: bool = False
    window_source: str = "the catalogue"
    """Who says how large the window is, in words for the operator."""


def narrowed(model: ModelInfo, limit_tokens: int) -> ModelInfo:
    """`model` with the window that its server named when it refused a request."""
    return replace(
        model,
        window_tokens=limit_tokens,
        max_output_tokens=min(model.max_output_tokens, limit_tokens),
        window_source="a refusal",
    )


@dataclass(frozen=True, slots=True)
class WindowNote:
    """What is remembered of a model's window at one account, as its server told it."""

    row: Mapping[str, object] | None = None
    """Of the model's row in `GET /models` what tells the window; None when it was never heard."""
    refused_above_tokens: int | None = None
    """What the server called its limit when it refused a request."""
    is_fresh: bool = False
    """Whether nobody need ask now: it answered, or failed to, a short while ago."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The window as planned with: `input_tokens + output_tokens <= window_tokens`."""

    window_tokens: int
    output_tokens: int
    token_factor: float
    chunk_tokens: int
    """Diff tokens that a chunk normally holds: `REVIEW_CHUNK_TOKENS`."""

    @property
    def input_tokens(self) -> int:
        """The most that any request's input may take."""
        return self.window_tokens - self.output_tokens


def budget_for(
    model: ModelInfo,
    *,
    chunk_tokens: int | None = None,
    output_tokens: int | None = None,
    token_factor: float | None = None,
) -> Budget:
    """Share out the window of `model`; a wish that is None is decided here.

    Raises `ConfigurationError` when nothing would be left for the input.
    """
    window = model.window_tokens
    share = output_tokens or _output_share(window, model.max_output_tokens)
    if share >= window:
        raise ConfigurationError(
            [
                f"LLM_MAX_OUTPUT_TOKENS: {share:,} leaves nothing of the {window:,} tokens that {model.name} can hold;"
                " set it lower, or LLM_CONTEXT_TOKENS higher."
            ]
        )
    factor = clamped_factor(model.token_factor if token_factor is None else token_factor)
    return Budget(window, share, factor, chunk_tokens or DEFAULT_CHUNK_TOKENS)


def within(budget: Budget, window_tokens: int) -> Budget:
    """`budget` for a window that turned out to be smaller; the same for a larger one."""
    if window_tokens >= budget.window_tokens:
        return budget
    share = _output_share(window_tokens, budget.output_tokens)
    return replace(budget, window_tokens=window_tokens, output_tokens=share)


def _output_share(window: int, max_output: int) -> int:
    if window < WIDE_WINDOW_TOKENS:
        return max(1, min(max_output, window // 5))
    return min(max_output, max(WIDE_OUTPUT_TOKENS, window // 4))


def clamped_factor(factor: float) -> float:
    """`factor` within what is believed of any tokenizer compared with o200k."""
    return min(MAX_FACTOR, max(MIN_FACTOR, factor))


def learn(factor: float, *, estimated: int, actual: int) -> float:
    """The token factor after a request of `estimated` o200k tokens was billed as `actual` input tokens.

    Rises at once to three quarters of the way, since a factor that is too small overflows windows;
    sinks by a tenth, since one that is too large only costs room. Requests too small to tell are
    ignored: their fixed overhead outweighs the text.
    """
    if estimated < 500 or actual <= 0:
        return clamped_factor(factor)
    seen = clamped_factor(actual / estimated)
    weight = 0.75 if seen > factor else 0.1
    return clamped_factor(factor + weight * (seen - factor))
