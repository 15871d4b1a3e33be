"""What every command does first: read the settings for its role, and set up the log."""

from __future__ import annotations

from worker import logs
from worker.settings import Role, Settings, load


def set_up(role: Role, *, level: str | None = None) -> Settings:
    """Raises `ConfigurationError`. `level` overrides LOG_LEVEL: a command for people keeps quiet."""
    settings = load(role=role)
    logs.configure(settings.log_format, level or settings.log_level, secrets=settings.secrets())
    return settings
