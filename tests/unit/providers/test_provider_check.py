"""`kimi-review check` for a provider: a row for everything that can be wrong, each with its cure."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

import pytest

from tests.fakes.admission import OpenThrottle
from tests.fakes.clock import FakeClock
from tests.fakes.kimi import KEY, Fault, KimiServer, error, overloaded
from worker.core.errors import QuotaUsedUp, UnknownModel
from worker.core.model_info import WindowNote
from worker.ports import Cost, Flow, Slot, Throttle
from worker.providers.account import QuotaWindow, balance, models_offered, next_reset, quota_windows, windows_in
from worker.providers.catalogue import lookup
from worker.providers.check import TINY, AccountNow, CheckRow, check_provider, choose_model
from worker.providers.connect import connect
from worker.providers.endpoint import Endpoint
from worker.providers.windows import WindowWishes

USAGES = {
    "usage": {"limit": "100", "used": "45", "resetTime": "2026-11-24T00:00:00Z"},
    "limits": [
        {
            "window": {"duration": 300, "timeUnit": "TIME_UNIT_MINUTE"},
            "detail": {"limit": "50", "remaining": "0", "resetTime": "2026-11-20T17:00:00.5Z"},
        }
    ],
}
FIVE_HOURS = datetime(2026, 11, 20, 17, 0, 0, 500_000, UTC)


def checked(
    kimi: KimiServer,
    *,
    model: str = "kimi-k2.6",
    key: str = KEY,
    base_url: str = "",
    window: WindowWishes | None = None,
    account: AccountNow | None = None,
    throttle: Throttle | None = None,
) -> dict[str, CheckRow]:
    endpoint = Endpoint(base_url or kimi.base_url, key, model)
    rows = asyncio.run(check_provider(endpoint, clock=FakeClock(), window=window, account=account, throttle=throttle))
    for row in rows:
        assert row.ok == (row.cure == "")
        assert key not in row.detail + row.cure
    return {row.name: row for row in rows}


def test_a_sound_provider_passes_every_row() -> None:
    with KimiServer() as kimi:
        rows = checked(kimi, account=AccountNow(limits=["RPM 100 (settings)"]))
        assert len(kimi.requests) == 1
    assert [name for name, row in rows.items() if not row.ok] == []
    assert list(rows) == ["address and key", "balance", "limits", "model", "window", "completion"]
    assert "3 models on offer" in rows["address and key"].detail
    assert rows["balance"].detail == "12.50 left"
    assert rows["limits"].detail == "RPM 100 (settings)"
    assert "kimi-k2.6 answered" in rows["completion"].detail


def test_while_the_fleet_waits_for_a_quota_one_request_finds_out_whether_it_still_must() -> None:
    class Closed(OpenThrottle):
        def admit(self, cost: Cost, *, flow: Flow) -> AbstractAsyncContextManager[Slot]:
            raise QuotaUsedUp("used up")

    with KimiServer() as kimi:
        rows = checked(kimi, throttle=Closed(), account=AccountNow(quota_used_up_until=FIVE_HOURS))
    assert rows["limits"].detail.endswith("the fleet sends nothing until 2026-11-20 17:00 UTC: the quota was used up")
    assert "kimi-k2.6 answered" in rows["completion"].detail


def test_a_retired_model_is_told_what_is_on_offer() -> None:
    with KimiServer() as kimi:
        rows = checked(kimi, model="kimi-k2.5")
    assert not rows["model"].ok
    assert rows["model"].cure == ("set API_LLM_PROVIDER_MODEL to kimi-k3; on offer: kimi-k2.6, kimi-k2.7-code, kimi-k3")
    assert not rows["completion"].ok


def test_a_wrong_key_fails_with_its_cure_and_without_guessing_at_the_model() -> None:
    with KimiServer() as kimi:
        rows = checked(kimi, key="sk-wrong-0123456789abc")
    assert "API_OPEN_AI_API_KEY" in rows["address and key"].cure
    assert rows["model"].detail == "kimi-k2.6: cannot be looked up"


def test_a_code_plan_key_at_another_address_is_told_its_own() -> None:
    with KimiServer() as kimi:
        rows = checked(kimi, key="sk-kimi-0123456789abcdef")
    assert "https://api.kimi.com/coding/v1" in rows["completion"].cure


def test_a_base_url_without_v1_is_told_what_to_write() -> None:
    with KimiServer() as kimi:
        rows = checked(kimi, base_url=kimi.address)
        assert f"write {kimi.base_url}" in rows["address and key"].cure


def test_an_empty_account_is_told_to_be_topped_up() -> None:
    with KimiServer(balance=-0.5) as kimi:
        rows = checked(kimi)
    assert (rows["balance"].ok, rows["balance"].detail) == (False, "-0.50 left")


def test_a_used_up_window_of_the_plan_shows_when_it_turns() -> None:
    with KimiServer(usages=USAGES) as kimi:
        rows = checked(kimi)
    assert rows["quota, plan"].ok
    assert rows["quota, 300 minute"].detail == "50 of 50 used, turns 2026-11-20 17:00 UTC"
    assert not rows["quota, 300 minute"].ok


def test_what_is_wrong_now_is_told_now() -> None:
    with KimiServer() as kimi:
        kimi.script(*[Fault(429, overloaded())] * 9)
        rows = checked(kimi)
        assert len(kimi.requests) == 1
    assert "no capacity" in rows["completion"].detail


def test_the_window_that_reviews_are_planned_with_is_shown_with_who_says_so() -> None:
    with KimiServer() as kimi:
        assert "262,144 tokens by " in checked(kimi)["window"].detail
        set_higher = checked(kimi, window=WindowWishes(window_tokens=300_000))["window"]
        refused = checked(kimi, account=AccountNow(window=WindowNote(refused_above_tokens=131_072)))["window"]
    others = "GET /models says 262,144, the catalogue says 262,144"
    assert set_higher.detail == f"300,000 tokens by LLM_CONTEXT_TOKENS ({others}), 75,000 of them for the answer"
    assert refused.detail == f"131,072 tokens by a refusal ({others}), 26,214 of them for the answer"


def test_an_answer_s_share_that_leaves_no_room_is_told_before_a_review_finds_out() -> None:
    with KimiServer() as kimi:
        row = checked(kimi, window=WindowWishes(window_tokens=60_000, output_tokens=60_000))["window"]
    assert not row.ok
    assert "LLM_MAX_OUTPUT_TOKENS" in row.cure


def test_a_model_that_thinks_longer_than_the_test_allows_still_passes() -> None:
    with KimiServer(default=Fault(content="", finish="length")) as kimi:
        assert checked(kimi)["completion"].ok


@pytest.mark.parametrize(
    ("offered", "best"),
    [
        (("kimi-k2.6", "kimi-k2.7-code", "kimi-k3", "moonshot-v1-8k"), "kimi-k3"),
        (("kimi-k2.6", "gpt-5", "kimi-k2.5"), "kimi-k2.6"),
    ],
)
def test_auto_is_the_best_known_model_of_the_vendor_that_is_on_offer(offered: tuple[str, ...], best: str) -> None:
    with KimiServer(models=offered) as kimi:
        endpoint = Endpoint(kimi.base_url, KEY, "kimi-auto")
        assert asyncio.run(choose_model(endpoint, clock=FakeClock())) == best


def test_auto_without_a_known_model_names_what_there_is() -> None:
    with KimiServer(models=("mystery-1",)) as kimi, pytest.raises(UnknownModel, match="mystery-1"):
        asyncio.run(choose_model(Endpoint(kimi.base_url, KEY, "auto"), clock=FakeClock()))


def test_a_used_up_period_is_deferred_until_its_window_turns() -> None:
    used_up = error("access_terminated_error", "You've reached your usage limit for this period.")
    with KimiServer(usages=USAGES) as kimi:
        kimi.script(Fault(403, used_up))
        asked = connect(
            Endpoint(kimi.base_url, KEY, "kimi-k2.6"),
            info=lookup("kimi-k2.6"),
            throttle=OpenThrottle(),
            clock=FakeClock(),
        )
        with pytest.raises(QuotaUsedUp) as caught:
            asyncio.run(asked.complete(TINY, flow=Flow(change="github:a/b#1", repository="a/b")))
    assert caught.value.until == FIVE_HOURS


def test_of_two_used_up_windows_the_later_one_decides() -> None:
    both = {**USAGES, "usage": {"limit": 1, "used": 1, "resetTime": "2026-11-24T00:00:00Z"}}
    with KimiServer(usages=both) as kimi:
        endpoint = Endpoint(kimi.base_url, KEY, "kimi-k2.6")
        assert asyncio.run(next_reset(endpoint, now=FakeClock().now())) == datetime(2026, 11, 24, tzinfo=UTC)


@pytest.mark.parametrize("value", [None, [], {}, {"limits": 3}, {"usage": "x", "limits": ["y", {"detail": 1}]}])
def test_odd_usages_are_read_as_none(value: object) -> None:
    assert windows_in(value) == []


def test_odd_figures_of_a_window_are_unknown() -> None:
    row = {"limit": True, "used": "many", "resetTime": "soon"}
    assert windows_in({"usage": row}) == [QuotaWindow("plan", None, None, None)]


def test_what_a_provider_does_not_have_is_not_asked() -> None:
    now = FakeClock().now()
    with KimiServer() as kimi:
        other = Endpoint(kimi.base_url, KEY, "gpt-5")
        assert asyncio.run(balance(other, now=now)) is None
        assert asyncio.run(quota_windows(other, now=now)) == []
        assert kimi.received == []
        assert asyncio.run(models_offered(other, now=now)) == ["kimi-k2.6", "kimi-k2.7-code", "kimi-k3"]
