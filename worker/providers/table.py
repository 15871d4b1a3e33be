"""`PROVIDERS`: which model vendors are known, by the host that serves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from worker.core.egress import is_loopback

Dialect = Literal["openai", "anthropic"]


@dataclass(frozen=True, slots=True)
class Provider:
    """One account contract of one vendor: two plans of a vendor are two rows, since their keys do not mix."""

    name: str
    plan: str
    hosts: tuple[str, ...]
    base_url: str
    """What to write into the base URL setting."""
    dialect: Dialect = "openai"
    key_prefix: str = ""
    """How keys of this row begin where that tells them from all others."""
    balance_path: str = ""
    """Where the account's money can be read, below the base URL; empty where it cannot."""
    usages_path: str = ""
    """Where the plan's quota windows can be read."""
    plan_concurrency: int | None = None
    """Requests at a time that the plan allows to everybody; None where it depends on the account."""
    model_prefixes: tuple[str, ...] = ()


PROVIDERS: tuple[Provider, ...] = (
    Provider(
        name="moonshot",
        plan="developer",
        hosts=("api.moonshot.ai",),
        base_url="https://api.moonshot.ai/v1",
        balance_path="/users/me/balance",
        model_prefixes=("kimi-", "moonshot-"),
    ),
    Provider(
        name="moonshot",
        plan="developer",
        hosts=("api.moonshot.cn",),
        base_url="https://api.moonshot.cn/v1",
        balance_path="/users/me/balance",
        model_prefixes=("kimi-", "moonshot-"),
    ),
    Provider(
        name="kimi-code",
        plan="code",
        hosts=("api.kimi.com",),
        base_url="https://api.kimi.com/coding/v1",
        key_prefix="sk-kimi-",
        usages_path="/usages",
        plan_concurrency=30,
        model_prefixes=("kimi-",),
    ),
    Provider(
        name="openai",
        plan="developer",
        hosts=("api.openai.com",),
        base_url="https://api.openai.com/v1",
        key_prefix="sk-proj-",
        model_prefixes=("gpt-", "o1", "o3", "o4"),
    ),
    Provider(
        name="anthropic",
        plan="developer",
        hosts=("api.anthropic.com",),
        base_url="https://api.anthropic.com",
        dialect="anthropic",
        key_prefix="sk-ant-",
        model_prefixes=("claude-",),
    ),
    Provider(
        name="openrouter",
        plan="developer",
        hosts=("openrouter.ai",),
        base_url="https://openrouter.ai/api/v1",
        key_prefix="sk-or-",
    ),
)


def provider_for(base_url: str, model: str = "") -> Provider:
    """The row that serves `base_url`; for an unknown host, a row that says whose contract it is held to.

    A kimi model on a foreign host is called `moonshot-compatible`: a search of the logs for the vendor finds it.
    """
    host = host_of(base_url)
    for provider in PROVIDERS:
        if host in provider.hosts:
            return provider
    plan = "local" if is_loopback(host) else "custom"
    if not model.startswith(("kimi", "moonshot")):
        return Provider(name="openai-compatible", plan=plan, hosts=(host,), base_url=base_url)
    return Provider(
        name="moonshot-compatible",
        plan=plan,
        hosts=(host,),
        base_url=base_url,
        # A gateway in front of Kimi may pass these on; whoever asks bears their absence.
        balance_path="/users/me/balance",
        usages_path="/usages",
        model_prefixes=("kimi-", "moonshot-"),
    )


def provider_for_key(api_key: str) -> Provider | None:
    """The row whose keys begin like this one; None where the beginning tells nothing."""
    for provider in PROVIDERS:
        if provider.key_prefix and api_key.startswith(provider.key_prefix):
            return provider
    return None


def dialect_of(base_url: str) -> Dialect:
    """Which API a base URL speaks: Kimi's Anthropic-style paths say so themselves."""
    path = urlsplit(base_url).path.rstrip("/")
    if path.endswith(("/messages", "/anthropic", "/anthropic/v1")):
        return "anthropic"
    return provider_for(base_url).dialect


def host_of(base_url: str) -> str:
    """Lower case, without the port; empty where the URL has none."""
    return (urlsplit(base_url).hostname or "").lower()
