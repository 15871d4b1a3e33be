"""What an account tells about itself: models on offer, balance, when a quota window turns."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from worker import __version__
from worker.core.errors import ReviewError, Stalled, Unreachable
from worker.outward import open_client as open_outward
from worker.providers.endpoint import Endpoint
from worker.providers.http import PASSES, classify, not_reached

USER_AGENT = f"kimi-review/{__version__}"
"""Always our own name: vendors close accounts over a borrowed one."""
ANTHROPIC_VERSION = "2023-06-01"
ANSWER_WITHIN_S = 15.0
MAX_BODY_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class QuotaWindow:
    """One window of the Code Plan. Figures are in the plan's own unit."""

    name: str
    used: float | None
    limit: float | None
    resets_at: datetime | None


def headers_for(endpoint: Endpoint) -> dict[str, str]:
    """Key and name. Both ways of sending the key where Anthropic's API is spoken: Kimi's paths take the bearer."""
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    if not endpoint.api_key:
        return headers
    if endpoint.dialect == "anthropic":
        headers["anthropic-version"] = ANTHROPIC_VERSION
        headers["x-api-key"] = endpoint.api_key
        if endpoint.provider.name == "anthropic":
            return headers
    headers["Authorization"] = f"Bearer {endpoint.api_key}"
    return headers


def open_client(endpoint: Endpoint, *, timeout_s: float | None) -> httpx.AsyncClient:
    """For any call to the account, with its key. Raises `ConfigurationError` for authorities that cannot be read.

    One for each call: nothing to close later, good on whichever event loop runs the review, and no reused
    connection that a gateway dropped in silence. A handshake is nothing beside a model's answer.
    """
    return open_outward(
        endpoint.root,
        headers=headers_for(endpoint),
        timeout=httpx.Timeout(timeout_s, connect=ANSWER_WITHIN_S),
        egress=endpoint.egress,
    )


async def offers(
    endpoint: Endpoint, *, now: datetime, within_s: float = ANSWER_WITHIN_S
) -> dict[str, dict[str, object]]:
    """What `GET /models` lists for this key, in its order: id → row. Raises what `classify` makes of a refusal."""
    value = await _get(endpoint, models_url(endpoint), now=now, within_s=within_s)
    rows = value.get("data") if isinstance(value, dict) else None
    if not isinstance(rows, list):
        raise Unreachable(f"{endpoint.who}: GET /models answered no list; check {endpoint.names.base_url}")
    return {row["id"]: row for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)}


async def models_offered(endpoint: Endpoint, *, now: datetime) -> list[str]:
    """The ids alone."""
    return list(await offers(endpoint, now=now))


async def balance(endpoint: Endpoint, *, now: datetime) -> float | None:
    """Money left in the account's currency, may be negative; None where the provider does not tell."""
    path = endpoint.provider.balance_path
    if not path:
        return None
    value = await _get(endpoint, endpoint.root + path, now=now)
    data = value.get("data") if isinstance(value, dict) else None
    left = data.get("available_balance") if isinstance(data, dict) else None
    return _figure(left)


async def quota_windows(endpoint: Endpoint, *, now: datetime) -> list[QuotaWindow]:
    """The plan's windows; empty where the provider has none."""
    path = endpoint.provider.usages_path
    if not path:
        return []
    root = api_root(endpoint)
    return windows_in(await _get(endpoint, root + path, now=now))


async def next_reset(endpoint: Endpoint, *, now: datetime) -> datetime | None:
    """When the window that is used up turns; None when the provider does not tell."""
    try:
        windows = await quota_windows(endpoint, now=now)
    except ReviewError:
        # Asked only to say more about an error that is raised anyway.
        return None
    used_up = [window for window in windows if window.limit and (window.used or 0) >= window.limit]
    resets = [window.resets_at for window in used_up if window.resets_at and window.resets_at > now]
    # With two windows used up, the later one decides.
    return max(resets, default=None)


def windows_in(value: object) -> list[QuotaWindow]:
    """Read `GET /usages`: `usage` is the long window, `limits[].detail` the short ones; figures may be strings."""
    if not isinstance(value, dict):
        return []
    rows: list[tuple[str, object]] = [("plan", value.get("usage"))]
    limits = value.get("limits")
    for item in limits if isinstance(limits, list) else []:
        if isinstance(item, dict):
            rows.append((_window_name(item.get("window")), item.get("detail", item)))
    return [_window(name, row) for name, row in rows if isinstance(row, dict)]


def models_url(endpoint: Endpoint) -> str:
    root = api_root(endpoint)
    if endpoint.dialect == "anthropic" and not root.endswith("/v1"):
        root += "/v1"
    return f"{root}/models"


def api_root(endpoint: Endpoint) -> str:
    """The base URL without the `/messages` that the Anthropic-style one may end in."""
    return endpoint.root.removesuffix("/messages")


async def _get(endpoint: Endpoint, url: str, *, now: datetime, within_s: float = ANSWER_WITHIN_S) -> object:
    try:
        async with (
            # The client's own deadlines start anew with every byte: a server that drips would hold us for ever.
            asyncio.timeout(within_s),
            open_client(endpoint, timeout_s=within_s) as client,
            client.stream("GET", url) as response,
        ):
            body = await read_bounded(response, MAX_BODY_BYTES)
    except TimeoutError:
        raise Stalled(
            f"{endpoint.who}: no answer at {httpx.URL(url).path} within {within_s:g} s; {PASSES}{endpoint.remark}"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise not_reached(error, endpoint=endpoint) from error
    if response.status_code != 200:
        raise classify(response.status_code, response.headers, body, endpoint=endpoint, now=now)
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unreachable(
            f"{endpoint.who}: no JSON at {httpx.URL(url).path}; check {endpoint.names.base_url}"
        ) from error
    return value


async def read_bounded(response: httpx.Response, limit_bytes: int) -> bytes:
    """The body, or its first `limit_bytes`."""
    body = bytearray()
    async for packet in response.aiter_bytes():
        body += packet
        if len(body) >= limit_bytes:
            break
    return bytes(body[:limit_bytes])


def _window_name(window: object) -> str:
    if not isinstance(window, dict):
        return "window"
    unit = str(window.get("timeUnit", "")).removeprefix("TIME_UNIT_").lower()
    return f"{window.get('duration', '')} {unit}".strip() or "window"


def _window(name: str, row: dict[str, object]) -> QuotaWindow:
    limit, used, remaining = _figure(row.get("limit")), _figure(row.get("used")), _figure(row.get("remaining"))
    if used is None and limit is not None and remaining is not None:
        used = limit - remaining
    resets_at = None
    for key in ("resetTime", "reset_time", "resetAt", "reset_at"):
        stated = row.get(key)
        if isinstance(stated, str):
            try:
                resets_at = datetime.fromisoformat(stated)
            except ValueError:
                continue
            resets_at = resets_at if resets_at.tzinfo else resets_at.replace(tzinfo=UTC)
            break
    return QuotaWindow(name=name, used=used, limit=limit, resets_at=resets_at)


def _figure(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None
