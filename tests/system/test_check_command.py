"""`kimi-review check` as an operator runs it, against two providers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from redis.asyncio import Redis

from tests.fakes.job_steps import REF, A, claimed
from tests.fakes.kimi import KEY, Fault, KimiServer, no_balance
from tests.fakes.shell import Shell
from worker.core.errors import QuotaUsedUp
from worker.core.job import Intent, State
from worker.core.limits import Limits, account_of
from worker.storage.connection import connect
from worker.storage.jobs import RedisJobs
from worker.storage.throttle import RedisThrottle

T = TypeVar("T")


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


def test_a_secret_pasted_into_the_wrong_setting_is_not_shown(tmp_path: Path) -> None:
    pasted = "shapeless-secret-of-the-tests"
    with KimiServer() as kimi:
        done = Shell(tmp_path, tmp_path / "home")(
            "check",
            "--json",
            API_OPENAI_FORCE_BASE_URL=kimi.base_url,
            API_OPEN_AI_API_KEY=KEY,
            API_LLM_PROVIDER_MODEL=pasted,
            GITHUB_WEBHOOK_SECRET=pasted,
        )
    assert "[redacted] is not on offer" in done.stdout
    assert pasted not in done.stdout + done.stderr


def test_without_redis_the_forge_is_named_as_not_tried(tmp_path: Path) -> None:
    with KimiServer() as kimi:
        done = Shell(tmp_path, tmp_path / "home")(
            "check",
            "--json",
            API_OPENAI_FORCE_BASE_URL=kimi.base_url,
            API_OPEN_AI_API_KEY=KEY,
            GITHUB_TOKEN="a-token-of-the-tests",
            GITHUB_REPOSITORIES="acme/shop",
            REDIS_URL="redis://127.0.0.1:1/0",
        )
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    assert not rows["redis"]["ok"]
    assert (rows["github"]["ok"], rows["github"]["detail"]) == (False, "not tried: Redis is away")
    assert rows["completion"]["ok"]


def test_after_a_top_up_a_tiny_answer_lets_the_fleet_go_on_at_once(tmp_path: Path, redis_url: str) -> None:
    async def wait(redis: Redis, account: str) -> str:
        """The account without balance, and a job that waits for it."""
        until = datetime.now(UTC) + timedelta(minutes=30)
        await RedisThrottle(redis, account=account, limits=Limits()).refused(
            QuotaUsedUp("no balance left", until=until)
        )
        jobs = RedisJobs(redis)
        made = await jobs.accept(Intent(REF, A))
        await jobs.release(await claimed(jobs, made.job), State.DEFERRED, reason="no balance left", wait_s=1800)
        return made.job

    async def is_free(redis: Redis, account: str) -> bool:
        standing = await RedisThrottle(redis, account=account, limits=Limits()).standing()
        return standing.quota_used_up_until is None

    async def with_redis(act: Callable[[Redis, str], Awaitable[T]]) -> T:
        redis = connect(redis_url)
        try:
            return await act(redis, account_of(kimi.base_url, KEY))
        finally:
            await redis.aclose()

    def checked() -> str:
        done = Shell(tmp_path, tmp_path / "home")(
            "check", "--json", API_OPENAI_FORCE_BASE_URL=kimi.base_url, API_OPEN_AI_API_KEY=KEY, REDIS_URL=redis_url
        )
        row: str = next(row["detail"] for row in json.loads(done.stdout)["rows"] if row["name"] == "completion")
        return row

    with KimiServer() as kimi:
        job = asyncio.run(with_redis(wait))
        kimi.script(Fault(429, no_balance()))
        assert "lifted" not in checked()
        assert not asyncio.run(with_redis(is_free))

        told = checked()
        assert "the fleet's pause until " in told
        assert told.endswith(" is lifted, 1 deferred job goes on now")
        assert asyncio.run(with_redis(is_free))
        claim = asyncio.run(with_redis(lambda redis, _: claimed(RedisJobs(redis), job)))
        assert claim.job.id == job
        assert "lifted" not in checked()
