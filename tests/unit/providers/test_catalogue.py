"""What is known of models, and what is assumed of unknown ones."""

from __future__ import annotations

import pytest

from worker.core.errors import ConfigurationError
from worker.core.model_info import ModelInfo, budget_for, learn
from worker.providers.catalogue import corrected, describe, known_models, lookup


@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("kimi-k2.6", 262_144),
        ("kimi-k2.7-code", 262_144),
        ("kimi-k3", 1_048_576),
        ("kimi-k3.1-pro", 1_048_576),
        ("kimi-k2.5", 262_144),
        ("moonshotai/kimi-k2.6", 262_144),
        ("kimi-k9-preview", 262_144),
        ("gpt-5-mini", 400_000),
        ("claude-sonnet-9", 200_000),
        ("nobody-knows", 131_072),
    ],
)
def test_a_model_has_a_window_whether_it_is_known_or_not(name: str, window: int) -> None:
    model = lookup(name)
    assert (model.name, model.window_tokens) == (name, window)
    assert 0 < model.max_output_tokens <= model.window_tokens


def test_the_operator_is_told_what_was_assumed_and_what_is_retired() -> None:
    assert describe("kimi-k2.6").note == ""
    assert "not in the catalogue: planned as for kimi-*, a window of 262,144 tokens" in describe("kimi-k9").note
    assert "was retired by its vendor" in describe("kimi-k2-0905").note
    assert lookup("kimi-k2").is_retired
    assert "kimi-k2" not in known_models()


@pytest.mark.parametrize(
    ("offered", "window"),
    [
        ({"context_length": 131_072}, 131_072),
        ({"context_length": "big"}, 262_144),
        ({"context_length": True}, 262_144),
        ({}, 262_144),
    ],
)
def test_what_the_server_says_of_its_window_outranks_the_catalogue(offered: dict[str, object], window: int) -> None:
    model = corrected(lookup("kimi-k2.6"), offered)
    assert model.window_tokens == window
    assert model.max_output_tokens <= window


def test_the_answer_has_fifty_thousand_tokens_or_more_of_a_wide_window_and_a_fifth_of_a_small_one() -> None:
    budget = budget_for(lookup("kimi-k2.6"))
    assert budget.output_tokens >= 50_000
    assert budget.input_tokens + budget.output_tokens == budget.window_tokens == 262_144
    assert budget_for(ModelInfo("small", 32_768, 32_768)).output_tokens == 6_553
    assert budget_for(ModelInfo("short", 262_144, 16_384)).output_tokens == 16_384


def test_settings_outrank_the_catalogue() -> None:
    budget = budget_for(lookup("kimi-k2.6"), output_tokens=9_000, chunk_tokens=5_000, token_factor=9)
    assert (budget.output_tokens, budget.chunk_tokens, budget.token_factor) == (9_000, 5_000, 1.6)
    with pytest.raises(ConfigurationError, match="LLM_MAX_OUTPUT_TOKENS"):
        budget_for(lookup("kimi-k2.6"), output_tokens=262_144)


def test_the_factor_rises_fast_sinks_slowly_and_stays_within_what_is_believed() -> None:
    assert learn(1.1, estimated=10_000, actual=13_000) == pytest.approx(1.25)
    assert learn(1.3, estimated=10_000, actual=11_000) == pytest.approx(1.28)
    assert learn(1.1, estimated=10_000, actual=90_000) == pytest.approx(1.475)
    assert learn(9.0, estimated=10_000, actual=90_000) == 1.6
    assert learn(1.0, estimated=10_000, actual=10) == 1.0
    assert learn(1.2, estimated=100, actual=900) == 1.2
