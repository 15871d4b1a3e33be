"""`kimi-review check` as an operator runs it, against two providers."""

from __future__ import annotations

import json
from pathlib import Path

from tests.fakes.kimi import KEY, KimiServer
from tests.fakes.shell import Shell


def test_both_providers_are_checked_within_the_settings_that_reviews_go_by(tmp_path: Path) -> None:
    with KimiServer() as first, KimiServer(models=("kimi-k3",), balance=-1.0) as second:
        done = Shell(tmp_path, tmp_path / "home")(
            "check",
            "--json",
            API_OPENAI_FORCE_BASE_URL=first.base_url,
            API_OPEN_AI_API_KEY=KEY,
            LLM_RPM="7",
            LLM_CONTEXT_TOKENS="100000",
            LLM_EXTRA_BODY='{"top_k": 3}',
            FALLBACK_OPENAI_BASE_URL=second.base_url,
            FALLBACK_LLM_PROVIDER_MODEL="kimi-k3",
            FALLBACK_API_KEY=KEY,
        )
        assert first.requests[0].body["top_k"] == 3
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    assert done.returncode == 4
    assert [name for name, row in rows.items() if not row["ok"]] == ["fallback: balance"]
    assert rows["limits"]["detail"] == "RPM 7 (settings)"
    assert rows["window"]["detail"].startswith("100,000 tokens by LLM_CONTEXT_TOKENS")
    assert "dropped parameter top_k" in rows["completion"]["detail"]
    assert "kimi-k3 answered" in rows["fallback: completion"]["detail"]
    assert KEY not in done.stdout + done.stderr
