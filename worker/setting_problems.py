"""What must hold between settings, and what each role cannot do without; a line for each problem, never a value."""

from __future__ import annotations

import re
import shutil
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from worker.core.delivery import is_pattern
from worker.core.egress import is_loopback, url_parts
from worker.core.errors import ConfigurationError
from worker.providers.table import PROVIDERS
from worker.providers.vocabulary import problems_with
from worker.storage.address import address_of

if TYPE_CHECKING:
    from worker.settings import Role, Settings

_WELL_KNOWN = frozenset(
    {
        "changeme",
        "changeit",
        "change-me",
        "secret",
        "mysecret",
        "password",
        "webhook-secret",
        "webhooksecret",
        "your-secret",
        "your-webhook-secret",
        "your-secret-here",
        "your-webhook-secret-here",
        "your-api-key",
        "your-key",
        "your-key-here",
        "your_api_key",
        "your-token",
        "sk-xxx",
        "sk-...",
        "test",
        "token",
        "example",
    }
)
_MIN_SECRET = 16
_WEB_PAGES = frozenset({"platform.moonshot.ai", "platform.moonshot.cn", "platform.kimi.ai", "kimi.com", "moonshot.ai"})


def problems_of(settings: Settings, role: Role, rejected: frozenset[str]) -> Iterator[str]:
    """What holds between settings and for `role`. A setting that was refused already is not judged again."""
    yield from _url_problems(settings, rejected)
    yield from _secret_problems(settings)
    yield from settings.egress.problems()
    yield from _provider_problems(settings, role)
    yield from _deadline_problems(settings, rejected)
    if settings.llm_tokenizer_file is not None:
        yield from problems_with(settings.llm_tokenizer_file)
    yield from _github_problems(settings, role, rejected)
    if role in ("api", "worker", "upkeep") and settings.redis_url is None:
        yield "REDIS_URL: is not set. Write redis://HOST:6379/0, or start everything on one machine with `serve`."
    if role in ("serve", "worker") and shutil.which("git") is None:
        # Else each review of each change would fail by it, and say so on the change.
        yield "PATH: leads to no git, and without it no change can be read. Install git 2.38 or newer."


def _url_problems(settings: Settings, rejected: frozenset[str]) -> Iterator[str]:
    for field in ("api_openai_force_base_url", "fallback_openai_base_url", "github_api_url", "github_url"):
        url = getattr(settings, field)
        if url and field not in rejected:
            yield from _url_problem(field.upper(), url, settings.allow_insecure_hosts)
    if settings.redis_url is not None:
        yield from _redis_problems(settings.redis_url.get_secret_value())


def _redis_problems(url: str) -> Iterator[str]:
    try:
        address = address_of(url)
    except ConfigurationError as error:
        yield from error.problems
        return
    if (tls := address.tls) is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if tls.ca_certs:
            context.load_verify_locations(tls.ca_certs)
    except OSError:
        yield "REDIS_URL: ssl_ca_certs names no readable file of certificates in PEM. Check path and permissions."
    try:
        if tls.certfile:
            # Without a password of ours OpenSSL would ask the terminal for one.
            context.load_cert_chain(tls.certfile, tls.keyfile or None, password="")
    except OSError:
        yield (
            "REDIS_URL: ssl_certfile and ssl_keyfile name no certificate with its key, in PEM and without a password."
            " Check the paths and who may read them."
        )


def _url_problem(name: str, url: str, insecure: tuple[str, ...]) -> Iterator[str]:
    parts = url_parts(url)
    if parts is None or not parts.hostname or parts.scheme not in ("http", "https"):
        yield f"{name}: is not an http(s) URL. Write https://HOST/PATH."
        return
    host = parts.hostname
    if parts.username is not None or parts.query or parts.fragment:
        yield f"{name}: holds a login, a query or a fragment. Write scheme, host and path only."
    if parts.scheme == "http" and not is_loopback(host) and host not in insecure:
        yield (
            f"{name}: http:// would send the key in the clear. Write https://,"
            f" or name the host in ALLOW_INSECURE_HOSTS if that network is trusted."
        )
    if name.endswith("BASE_URL"):
        yield from _base_path_problem(name, host, parts.path.rstrip("/"))


def _base_path_problem(name: str, host: str, path: str) -> Iterator[str]:
    right = next((row.base_url for row in PROVIDERS if host in row.hosts and row.dialect == "openai"), None)
    if host in _WEB_PAGES:
        yield f"{name}: is a web page, not the API. Write https://api.moonshot.ai/v1."
    elif path.endswith(("/completions", "/models")):
        yield f"{name}: names an endpoint, not the base. Write {right or 'the URL up to and including /v1'}."
    elif right is not None and not path.startswith(urlsplit(right).path):
        yield f"{name}: lacks the path under which {host} answers. Write {right}."


def _secret_problems(settings: Settings) -> Iterator[str]:
    for field, value in settings:
        if not isinstance(value, SecretStr) or field in ("github_app_private_key", "redis_url", "redis_password"):
            continue
        name, text = field.upper(), value.get_secret_value()
        if text[0] in "\"'" or text[-1] in "\"'":
            yield f"{name}: has quotation marks as part of its value. Write it without them."
        elif not text.isascii() or not text.isprintable() or any(mark.isspace() for mark in text):
            yield f"{name}: holds a blank or a character that no key has. Copy it again."
        elif text.lower() in _WELL_KNOWN:
            yield f"{name}: is a placeholder that everybody knows. Write your own."
        elif field in ("github_webhook_secret", "api_token") and len(text) < _MIN_SECRET:
            yield f"{name}: is shorter than {_MIN_SECRET} characters. Make one with: openssl rand -hex 32"
        elif field in ("github_webhook_secret", "api_token") and len(set(text)) < 5:
            yield f"{name}: repeats a few characters, so it can be guessed. Make one with: openssl rand -hex 32"


def _provider_problems(settings: Settings, role: Role) -> Iterator[str]:
    parts = url_parts(settings.api_openai_force_base_url)
    host = parts.hostname or "" if parts else ""
    needs_key = role in ("serve", "worker", "review", "check")
    if needs_key and settings.api_open_ai_api_key is None and not is_loopback(host):
        yield (
            "API_OPEN_AI_API_KEY: is not set. Make a key at https://platform.moonshot.ai"
            " and write it here; `kimi-review demo` needs none."
        )
    fallback = {
        "FALLBACK_LLM_PROVIDER_MODEL": settings.fallback_llm_provider_model,
        "FALLBACK_OPENAI_BASE_URL": settings.fallback_openai_base_url,
        "FALLBACK_API_KEY": settings.fallback_api_key,
    }
    if any(fallback.values()):
        for name, value in fallback.items():
            if not value:
                yield f"{name}: is not set, though the other FALLBACK_ settings are. Set all three, or none."


def _deadline_problems(settings: Settings, rejected: frozenset[str]) -> Iterator[str]:
    """Each wait ends before the one around it, else the outer one cuts the inner off and its error is lost."""
    order = (
        ("llm_first_byte_timeout_s", "llm_total_timeout_s"),
        ("llm_idle_timeout_s", "llm_total_timeout_s"),
        ("llm_total_timeout_s", "job_deadline_s"),
        ("job_deadline_s", "queue_visibility_timeout_s"),
        ("job_lease_s", "job_deadline_s"),
    )
    for inner, outer in order:
        if not {inner, outer} & rejected and getattr(settings, inner) >= getattr(settings, outer):
            yield f"{inner.upper()}: must be less than {outer.upper()}. Lower the one or raise the other."
    output, window = settings.llm_max_output_tokens, settings.llm_context_tokens
    if output is not None and window is not None and output >= window:
        yield "LLM_MAX_OUTPUT_TOKENS: leaves no room for input in LLM_CONTEXT_TOKENS. Lower the one or raise the other."


def _github_problems(settings: Settings, role: Role, rejected: frozenset[str]) -> Iterator[str]:
    has_app = settings.github_app_id is not None or "github_app_id" in rejected
    if has_app != (settings.github_app_private_key is not None):
        missing = "GITHUB_APP_PRIVATE_KEY" if has_app else "GITHUB_APP_ID"
        yield f"{missing}: is not set, though its counterpart is. An app needs id and private key."
    elif has_app and settings.github_token is not None:
        yield "GITHUB_TOKEN: is set, and GITHUB_APP_ID too. Keep one way to log in."
    key = settings.github_app_private_key
    if key is not None and "-----BEGIN" not in key.get_secret_value():
        yield "GITHUB_APP_PRIVATE_KEY: is no PEM text. Write all of it, or its path as GITHUB_APP_PRIVATE_KEY_FILE."
    if not all(map(_fits_some_repository, settings.github_repositories)):
        # Every delivery would be ignored, and the program would look well.
        yield (
            "GITHUB_REPOSITORIES: holds what fits no repository's name, an address or a name without its owner."
            " Write acme/shop or acme/*, comma separated."
        )
    if role in ("serve", "worker", "upkeep") and not settings.has_github and not has_app:
        yield "GITHUB_TOKEN: is not set, so no forge can be reached. Write one, or GITHUB_APP_ID and its private key."
    if role in ("serve", "api") and settings.github_webhook_secret is None:
        yield (
            "GITHUB_WEBHOOK_SECRET: is not set, so no delivery could be trusted. Make one with: openssl rand -hex 32;"
            " write it here and into the webhook's form at GitHub."
        )


def _fits_some_repository(glob: str) -> bool:
    if re.search(r"[:\s]", glob):
        return False
    owner, slash, name = glob.partition("/")
    is_name = bool(owner and slash and name) and "/" not in name and not name.endswith(".git")
    return is_name or is_pattern(glob)
