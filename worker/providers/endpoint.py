"""Where a model is asked and with which key, and the names of the settings that said so."""

from __future__ import annotations

from dataclasses import dataclass, field

from worker.core.egress import DIRECT, Egress
from worker.providers.table import Dialect, Provider, dialect_of, host_of, provider_for


@dataclass(frozen=True, slots=True)
class SettingNames:
    """What an error message tells the operator to change."""

    model: str
    base_url: str
    api_key: str


PRIMARY = SettingNames("API_LLM_PROVIDER_MODEL", "API_OPENAI_FORCE_BASE_URL", "API_OPEN_AI_API_KEY")
SECOND = SettingNames("FALLBACK_LLM_PROVIDER_MODEL", "FALLBACK_OPENAI_BASE_URL", "FALLBACK_API_KEY")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`base_url` as configured; a trailing slash does not matter."""

    base_url: str
    api_key: str = field(repr=False)
    model: str
    names: SettingNames = PRIMARY
    egress: Egress = DIRECT
    """How requests to it leave."""

    @property
    def root(self) -> str:
        return self.base_url.rstrip("/")

    @property
    def host(self) -> str:
        return host_of(self.base_url)

    @property
    def dialect(self) -> Dialect:
        return dialect_of(self.base_url)

    @property
    def provider(self) -> Provider:
        return provider_for(self.base_url, self.model)

    @property
    def who(self) -> str:
        """How messages begin: "moonshot (api.moonshot.ai)"."""
        return f"{self.provider.name} ({self.host})"

    @property
    def remark(self) -> str:
        """On the proxy that a request took or could have taken; empty where there is none."""
        return self.egress.remark(self.root)

    def described(self) -> dict[str, str]:
        """The fields of the line that is logged at start and at every call."""
        provider = self.provider
        return {"provider": provider.name, "model": self.model, "host": self.host, "plan": provider.plan}
