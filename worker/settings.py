"""Every setting of the program, typed, with unit and default; the only reader of the environment.

A field's name in capitals is the variable's name. Empty means unset. A secret may also come as
`NAME_FILE`, the path of a file that holds it. `.env` in the working folder is read if it is there;
the process environment wins over it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    JsonValue,
    PrivateAttr,
    SecretStr,
    ValidationError,
)

from worker.core.egress import DIRECT, Egress, egress_of
from worker.core.errors import ConfigurationError
from worker.core.finding import Severity
from worker.core.model_info import DEFAULT_CHUNK_TOKENS
from worker.setting_problems import problems_of
from worker.storage.address import address_of


class Role(StrEnum):
    """What the process is started as; decides which settings it cannot do without."""

    SERVE = "serve"
    API = "api"
    WORKER = "worker"
    UPKEEP = "upkeep"
    REVIEW = "review"
    """One review by command, of a local range or a change on a forge."""
    PLAN = "plan"
    CHECK = "check"
    DEMO = "demo"
    QUERY = "query"
    """Reads job records: `jobs`, `why`, `dead`."""


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Globs = Annotated[tuple[str, ...], BeforeValidator(_split)]
"""Comma separated; `*` matches anything, slashes too."""
BaseUrl = Annotated[str, AfterValidator(lambda url: url.rstrip("/"))]
Pem = Annotated[SecretStr, BeforeValidator(lambda text: text.replace("\\n", "\n") if isinstance(text, str) else text)]
"""One line in an environment file, many in a file of its own."""
Thinking = Annotated[Literal["default", "off", "low", "medium", "high"], BeforeValidator(_lower)]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, str_strip_whitespace=True)


class ProviderSettings(_Group):
    """The model: Fixed Mode, one provider for the whole installation"""

    api_llm_provider_model: str = Field(
        default="kimi-k2.6", description="Model id; `auto` picks the best one that the key may use."
    )
    api_openai_force_base_url: BaseUrl = Field(
        default="https://api.moonshot.ai/v1",
        description="Base URL with /v1; chooses the account: api.moonshot.ai, api.moonshot.cn, api.kimi.com/coding.",
    )
    api_open_ai_api_key: SecretStr | None = Field(default=None, description="Key for that base URL.")


class FallbackSettings(_Group):
    """A second provider, asked when the first has no capacity or no balance; none when empty"""

    fallback_llm_provider_model: str | None = Field(default=None, description="Model id at the second provider.")
    fallback_openai_base_url: BaseUrl | None = Field(
        default=None, description="OpenAI-compatible base URL with /v1, or https://api.anthropic.com."
    )
    fallback_api_key: SecretStr | None = Field(default=None, description="Key for that base URL.")


class LimitSettings(_Group):
    """The account's limits, kept over the whole fleet; empty: the plan's, else learned from the server"""

    llm_max_concurrent_requests: int | None = Field(default=None, ge=1, description="Requests open at once.")
    llm_rpm: int | None = Field(default=None, ge=1, description="Requests per minute.")
    llm_tpm: int | None = Field(default=None, ge=1, description="Tokens per minute, input plus requested output.")
    llm_tpd: int | None = Field(default=None, ge=1, description="Tokens per day, input plus requested output.")
    llm_monthly_budget_usd: float | None = Field(
        default=None, gt=0, description="US dollars a calendar month; a hard stop."
    )
    llm_review_budget_usd: float | None = Field(
        default=None, gt=0, description="US dollars for one review; a hard stop."
    )


class RequestSettings(_Group):
    """How a request to the model is made"""

    llm_thinking: Thinking = Field(default="default", description="default, off, low, medium or high.")
    llm_thinking_min_lines: int = Field(
        default=0,
        ge=0,
        description="Changed lines below which the model answers without thinking; 0: it always thinks.",
    )
    llm_extra_body: Json[dict[str, JsonValue]] = Field(
        default_factory=dict,
        description='JSON object merged into every request, such as {"thinking":{"type":"disabled"}}.',
    )
    llm_context_tokens: int | None = Field(
        default=None,
        ge=4096,
        description="Tokens of input and output together; empty: as the server says, else the catalogue.",
    )
    llm_max_output_tokens: int | None = Field(
        default=None, ge=256, description="Tokens of the answer, reasoning included; empty: as the catalogue says."
    )
    llm_tokenizer_file: Path | None = Field(
        default=None, description="Path of the model's own tiktoken.model, for exact counts; empty: o200k and a factor."
    )
    llm_first_byte_timeout_s: float = Field(default=300, gt=0, description="Seconds until the answer's first byte.")
    llm_idle_timeout_s: float = Field(default=300, gt=0, description="Seconds of silence within a streamed answer.")
    llm_total_timeout_s: float = Field(default=1500, gt=0, description="Seconds for one request, answer included.")


class ReviewSettings(_Group):
    """What is reviewed, and how much is said"""

    review_drafts: bool = Field(default=False, description="Review changes that are marked as draft.")
    review_forks: bool = Field(default=True, description="Review changes that come from a fork.")
    review_include: Globs = Field(
        default=(),
        description="Path globs, comma separated; when set, nothing else is reviewed. One that names a file, or a"
        " vendored or build folder, brings back what rules leave out there: `**,dist/`.",
    )
    review_exclude: Globs = Field(
        default=(), description="Path globs, comma separated, that are not reviewed; the ledger names them."
    )
    review_settle_s: float = Field(
        default=2, ge=0, le=600, description="Seconds to wait for a newer push before a review starts."
    )
    review_max_comments: int = Field(
        default=10, ge=0, le=25, description="Inline comments a review; the other findings go to the summary."
    )
    review_max_comments_per_file: int = Field(default=3, ge=1, le=25, description="Inline comments a file.")
    review_min_severity: Annotated[Severity, BeforeValidator(_lower)] = Field(
        default=Severity.LOW, description="Findings below it are not posted: critical, high, medium or low."
    )
    review_language: str = Field(
        default="English", min_length=2, max_length=40, description="Language of the comments, in words."
    )
    review_chunk_tokens: int = Field(
        default=DEFAULT_CHUNK_TOKENS,
        ge=1_000,
        le=200_000,
        description="Tokens of diff that one request normally carries.",
    )
    review_evidence: float = Field(
        default=1, ge=0, le=4, description="Tokens of code from elsewhere shown for each token of diff; 0: none."
    )
    review_max_requests: int | None = Field(
        default=None, ge=1, description="Requests for one review; what they do not reach is named; empty: no limit."
    )
    review_images: bool = Field(
        default=False, description="Show changed PNG, JPEG and WebP images to models that take them."
    )
    review_verify: bool = Field(default=True, description="Try to refute each finding before it is posted.")


class GitHubSettings(_Group):
    """GitHub: a token, or an app's id and private key"""

    github_token: SecretStr | None = Field(
        default=None, description="Fine-grained token: contents read, pull requests read and write."
    )
    github_app_id: int | None = Field(default=None, ge=1, description="Id of the GitHub App, in place of a token.")
    github_app_private_key: Pem | None = Field(default=None, description="PEM; line ends may be written as \\n.")
    github_webhook_secret: SecretStr | None = Field(
        default=None, description="At least 16 characters, the same as in the webhook's form: openssl rand -hex 32."
    )
    github_api_url: BaseUrl = Field(
        default="https://api.github.com", description="For GitHub Enterprise Server https://HOST/api/v3."
    )
    github_url: BaseUrl = Field(default="https://github.com", description="Where git finds the repositories.")
    github_repositories: Globs = Field(
        default=("*/*",), description="Globs of the repositories that are reviewed, comma separated: acme/*,other/one."
    )


class NetworkSettings(_Group):
    """The way out of the network"""

    # Off by default: a proxy that stands in a machine's environment for other programs would see keys and code.
    use_env_proxies: bool = Field(
        default=False,
        description="Reach the model, the forge and git by HTTPS_PROXY, HTTP_PROXY and NO_PROXY of the environment.",
    )


class ServiceSettings(_Group):
    """The program itself"""

    redis_url: SecretStr | None = Field(
        default=None,
        description="redis://HOST/0, rediss:// for TLS, unix:///PATH, or Sentinels:"
        " sentinel://HOST1:26379;sentinel://HOST2:26379/0?master_name=NAME; empty: embedded, with `serve` and `demo`.",
    )
    redis_password: SecretStr | None = Field(
        default=None, description="Password for REDIS_URL where that has none; docker-compose needs it."
    )
    kimi_review_home: Path = Field(
        default_factory=lambda: _default_home(), description="Folder of mirrors and of the embedded Redis."
    )
    api_host: str = Field(default="127.0.0.1", description="Address that `api` and `serve` listen on.")
    api_port: int = Field(default=8000, ge=0, le=65535, description="Port that they listen on.")
    api_token: SecretStr | None = Field(
        default=None, description="Bearer token for POST /reviews, /metrics and the status page; closed when empty."
    )
    allow_insecure_hosts: Globs = Field(
        default=(), description="Host names, comma separated, that may be spoken to over http://; loopback always may."
    )
    worker_threads: int = Field(default=16, ge=1, le=64, description="Reviews that one worker process runs at once.")
    worker_memory_mb: int = Field(
        default=2048,
        ge=0,
        description="Megabytes above which a worker hands its jobs back and ends, to be started anew; 0: never.",
    )
    job_lease_s: float = Field(
        default=15, ge=5, description="Seconds until a dead worker's job is given to another; renewed while it works."
    )
    job_deadline_s: float = Field(default=3000, gt=0, description="Seconds that one run of a job may take in all.")
    queue_visibility_timeout_s: int = Field(
        default=3600, ge=60, description="Seconds after which Celery delivers an unacknowledged message again."
    )
    log_format: Annotated[Literal["console", "json"], BeforeValidator(_lower)] = Field(
        default="console", description="console or json."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        default="info", description="debug, info, warning or error."
    )


GROUPS: tuple[type[_Group], ...] = (
    ProviderSettings,
    FallbackSettings,
    LimitSettings,
    RequestSettings,
    ReviewSettings,
    GitHubSettings,
    NetworkSettings,
    ServiceSettings,
)


class Settings(
    ProviderSettings,
    FallbackSettings,
    LimitSettings,
    RequestSettings,
    ReviewSettings,
    GitHubSettings,
    NetworkSettings,
    ServiceSettings,
):
    """All settings of one installation. Build it with `load`; secrets show as asterisks."""

    # Not a setting of ours: names that every program of the machine shares.
    _egress: Egress = PrivateAttr(default=DIRECT)

    @property
    def egress(self) -> Egress:
        """The proxies that the environment named when the settings were read, and whether they are used."""
        return self._egress

    @property
    def has_github(self) -> bool:
        return self.github_token is not None or self.github_app_id is not None

    @property
    def redis_dsn(self) -> SecretStr | None:
        """`redis_url` with `redis_password` in it; None where the embedded Redis is meant."""
        if self.redis_url is None or self.redis_password is None:
            return self.redis_url
        address = address_of(self.redis_url.get_secret_value())
        if address.login.password:
            return self.redis_url
        return SecretStr(address.with_password(self.redis_password.get_secret_value()).url)

    @property
    def result_hash(self) -> str:
        """Of the settings that alter a review's result: the same head under other settings is another job.

        What is at its default is left out, so that a release with a new setting reviews no head anew.
        """
        names = (*ProviderSettings.model_fields, *ReviewSettings.model_fields, *RequestSettings.model_fields)
        kept = set(names) - {"api_open_ai_api_key", "review_settle_s"}
        values = self.model_dump(mode="json", include=kept, exclude_defaults=True)
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def secrets(self) -> tuple[str, ...]:
        """Every secret value, for the redactor alone."""
        held = {name: value.get_secret_value() for name, value in self if isinstance(value, SecretStr)}
        passwords: list[str] = []
        if (url := held.pop("redis_url", None)) is not None:
            passwords += address_of(url).passwords
            # Without a password it only tells where Redis is, which whoever cannot reach it must read.
            passwords += [url] if passwords else []
        return tuple(value for value in (*held.values(), *passwords, *self._egress.secrets) if value)


def load(environ: Mapping[str, str] | None = None, *, role: Role, dotenv: Path | None = Path(".env")) -> Settings:
    """Read the settings for `role` from `environ` (the process's own when None) and the file `dotenv`.

    Raises `ConfigurationError` with all problems at once; none of them shows a value.
    """
    process = os.environ if environ is None else environ
    from_file = _read_dotenv(dotenv)
    problems = _unknown_names(process, from_file)
    given = {name: value for name, value in from_file.items() if value.strip()}
    given |= {name: value for name, value in process.items() if value.strip()}
    values = {field: given[name] for field, name in _names() if name in given}
    values |= _secrets_from_files(given, problems)
    settings, rejected = _validated(values, problems)
    settings._egress = egress_of(process, is_allowed=settings.use_env_proxies)
    problems += list(problems_of(settings, role, rejected))
    if problems:
        raise ConfigurationError(problems)
    return settings


def foreign_names(dotenv: Path | None = Path(".env")) -> tuple[str, ...]:
    """Names with a value in `dotenv` that nothing here reads; another program's, where `load` found no mistake."""
    given = {name for name, value in _read_dotenv(dotenv).items() if value.strip()}
    return tuple(sorted(given - _known_names()))


def child_environment() -> dict[str, str]:
    """A copy of the process environment for a process of ours."""
    return dict(os.environ)


def environment_for(settings: Settings, *groups: type[_Group]) -> dict[str, str]:
    """The process environment with the settings of `groups` alone, whichever file they came from."""
    names = {name for _, name in _names()}
    environment = {name: value for name, value in os.environ.items() if name.removesuffix("_FILE") not in names}
    for group in groups:
        for field in group.model_fields:
            value = getattr(settings, field)
            if isinstance(value, SecretStr):
                environment[field.upper()] = value.get_secret_value()
            elif value is not None:
                environment[field.upper()] = json.dumps(value) if isinstance(value, dict) else str(value)
    return environment


def example() -> str:
    """The text of `.env.example`: every name with its meaning and default."""
    lines = [
        "# Settings of kimi-review. Copy this file to .env and fill in what you need; empty means the default.",
        "# A secret may also be read from a file: NAME_FILE=/path/of/the/file in place of NAME.",
        "# This file is generated from worker/settings.py: make env-example.",
    ]
    for group in GROUPS:
        lines += ["", f"# --- {(group.__doc__ or '').strip()}"]
        for field, about in group.model_fields.items():
            lines += [f"# {about.description}", f"{field.upper()}={_shown_default(field)}"]
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------ reading


def _default_home() -> Path:
    data = os.environ.get("XDG_DATA_HOME", "").strip()
    return (Path(data) if data else Path.home() / ".local" / "share") / "kimi-review"


def _names() -> Iterator[tuple[str, str]]:
    for field in Settings.model_fields:
        yield field, field.upper()


def _is_secret(field: str) -> bool:
    return any(
        kind is SecretStr or SecretStr in get_args(kind) for kind in get_args(Settings.model_fields[field].annotation)
    )


def _shown_default(field: str) -> str:
    if field == "kimi_review_home":  # depends on the user, so the example leaves it to the program
        return ""
    default = Settings.model_fields[field].get_default(call_default_factory=True)
    if default is None:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ",".join(default)
    if isinstance(default, dict):
        return json.dumps(default)
    return f"{default:g}" if isinstance(default, float) else str(default)


def _read_dotenv(path: Path | None) -> dict[str, str]:
    if path is None or not path.is_file():
        return {}
    # Without interpolation: a `$` in a secret is a dollar sign.
    return {name: value or "" for name, value in dotenv_values(path, interpolate=False).items()}


# Wholly ours: whatever starts so and is unknown is a mistake, wherever it stands.
_OWN_PREFIXES = ("API_LLM_", "API_OPENAI_", "API_OPEN_AI_", "LLM_", "REVIEW_", "FALLBACK_", "KIMI_REVIEW_")
# Shared with other programs: in the process environment only what looks like one of ours is a mistake.
_SHARED_PREFIXES = ("API_", "GITHUB_", "LOG_", "REDIS_", "JOB_", "QUEUE_", "WORKER_", "ALLOW_INSECURE_", "USE_ENV_")
# So many of these stand in the `.env` of Kodus, whose users bring it along, that they are left alone there too.
_KODUS_PREFIXES = ("API_", "WORKER_")
_OTHER_FORGES = ("GITLAB_", "GITEA_", "FORGEJO_", "BITBUCKET_", "AZURE_DEVOPS_")
# GitHub Actions sets these beside ours: https://docs.github.com/en/actions/reference/workflows-and-actions/variables
_FOREIGN = frozenset({"GITHUB_REPOSITORY", "GITHUB_REPOSITORY_ID", "GITHUB_REPOSITORY_OWNER", "GITHUB_SERVER_URL"})


def _known_names() -> set[str]:
    known = {name for _, name in _names()}
    return known | {f"{name}_FILE" for field, name in _names() if _is_secret(field)}


def _unknown_names(process: Mapping[str, str], from_file: Mapping[str, str]) -> list[str]:
    known = _known_names()
    problems = []
    for name in sorted({*process, *from_file} - known - _FOREIGN):
        is_in_file = bool(from_file.get(name, "").strip())
        if not is_in_file and not process.get(name, "").strip():
            continue  # empty is unset, whatever its name
        near = difflib.get_close_matches(name.upper(), sorted(known), n=1, cutoff=0.85)
        ours = name.upper().startswith(_OWN_PREFIXES)
        shared = name.upper().startswith(_SHARED_PREFIXES)
        if is_in_file and not ours and name.upper().startswith(_OTHER_FORGES):
            problems.append(f"{name}: this version speaks to no such forge, so nothing reads it. Remove it.")
            continue
        is_named_like_ours = shared and not name.upper().startswith(_KODUS_PREFIXES)
        if not (ours or (near and (shared or is_in_file)) or (is_named_like_ours and is_in_file)):
            continue
        near = near or difflib.get_close_matches(name.upper(), sorted(known), n=1, cutoff=0.6)
        advice = f"Did you mean {near[0]}?" if near else "See .env.example for all names, or remove it."
        problems.append(f"{name}: there is no such setting. {advice}")
    return problems


def _secrets_from_files(given: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    values = {}
    for field, name in _names():
        path = given.get(f"{name}_FILE")
        if path is None or not _is_secret(field):
            continue
        if name in given:
            problems.append(f"{name}: is set, and {name}_FILE too. Keep one of them.")
            continue
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else "it is no text file"
            problems.append(f"{name}_FILE: the file cannot be read: {why}. Check the path and who may read it.")
            continue
        if not text:
            problems.append(f"{name}_FILE: the file is empty. Put the secret into it.")
            continue
        values[field] = text
    return values


def _validated(values: dict[str, str], problems: list[str]) -> tuple[Settings, frozenset[str]]:
    """The settings, with a default for each one that was refused, and the names of those."""
    try:
        return Settings.model_validate(values), frozenset()
    except ValidationError as error:
        rejected = {str(item["loc"][0]) for item in error.errors(include_input=False)}
        told: set[str] = set()
        for item in error.errors(include_input=False, include_url=False):
            field = str(item["loc"][0])
            if field not in told:
                told.add(field)
                problems.append(f"{field.upper()}: {_words(item['type'], item.get('ctx', {}))}")
    return Settings.model_validate({k: v for k, v in values.items() if k not in rejected}), frozenset(rejected)


def _words(kind: str, context: Mapping[str, Any]) -> str:
    match kind:
        case "int_parsing" | "int_from_float" | "int_type":
            return "is not a whole number. Write digits only."
        case "float_parsing" | "float_type" | "finite_number":
            return "is not a number. Write digits, with a point for fractions."
        case "bool_parsing" | "bool_type":
            return "is neither true nor false. Write true or false."
        case "json_invalid" | "json_type":
            return 'is not valid JSON. Write an object such as {"thinking":{"type":"disabled"}}.'
        case "dict_type":
            return "is JSON, but not an object. Write {…} with names and values."
        case "literal_error" | "enum":
            return f"is not one of the known words. Write {context.get('expected', 'one of .env.example')}."
        case "greater_than_equal":
            return f"is too small. Write {context['ge']} or more."
        case "greater_than":
            return f"is too small. Write more than {context['gt']}."
        case "less_than_equal":
            return f"is too large. Write {context['le']} or less."
        case _:
            return "has a value that cannot be used. See .env.example for what it takes."
