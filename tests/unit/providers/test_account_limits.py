"""Whose limits the settings tell: those of the first provider's account, whatever model asks there."""

from __future__ import annotations

import pytest

from worker.bootstrap import endpoint_of, limits_of, second_endpoint_of
from worker.core.limits import Limits
from worker.settings import Role, load

FIRST = {
    "API_LLM_PROVIDER_MODEL": "kimi-k2.6",
    "API_OPENAI_FORCE_BASE_URL": "https://api.moonshot.ai/v1",
    "API_OPEN_AI_API_KEY": "sk-one",
    "LLM_MAX_CONCURRENT_REQUESTS": "15",
    "LLM_RPM": "100",
    "LLM_TPM": "2000000",
    "LLM_TPD": "9000000",
}
TOLD = Limits(concurrency=15, rpm=100, tpm=2_000_000, tpd=9_000_000)


@pytest.mark.parametrize(
    ("base_url", "key", "limits"),
    [
        # Each admission looks at the whole line of its account: one that knew no limit would pass everybody on.
        ("https://api.moonshot.ai/v1/", "sk-one", TOLD),
        ("https://api.moonshot.ai/v1", "sk-two", Limits(concurrency_source="the plan of moonshot")),
        ("https://api.kimi.com/coding/v1", "sk-kimi-1", Limits(30, concurrency_source="the plan of kimi-code")),
    ],
)
def test_a_fallback_shares_the_limits_of_the_account_that_it_shares(base_url: str, key: str, limits: Limits) -> None:
    fallback = {
        "FALLBACK_LLM_PROVIDER_MODEL": "kimi-k2.5",
        "FALLBACK_OPENAI_BASE_URL": base_url,
        "FALLBACK_API_KEY": key,
    }
    settings = load(FIRST | fallback, role=Role.CHECK, dotenv=None)
    second = second_endpoint_of(settings)
    assert second is not None
    assert limits_of(settings, endpoint_of(settings)) == TOLD
    assert limits_of(settings, second) == limits
