"""Settings: read once, all problems told at once, no value ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.tls import authority
from worker.core.errors import ConfigurationError
from worker.core.finding import Severity
from worker.core.redaction import Redactor
from worker.settings import Role, Settings, example, foreign_names, load

SECRET = "b0a7c1d2e3f4a5b6c7d8e9f0"
COMPLETE = {
    "API_OPEN_AI_API_KEY": "sk-0123456789abcdef",
    "GITHUB_TOKEN": "ghp_0123456789abcdef",
    "GITHUB_WEBHOOK_SECRET": SECRET,
}


def settings(role: Role = Role.SERVE, **changes: str) -> Settings:
    return load(COMPLETE | changes, role=role, dotenv=None)


def problems(role: Role = Role.SERVE, **changes: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        settings(role, **changes)
    return caught.value.problems


def test_the_defaults_are_fixed_mode_with_kimi() -> None:
    read = settings()
    assert read.api_llm_provider_model == "kimi-k2.6"
    assert read.api_openai_force_base_url == "https://api.moonshot.ai/v1"
    assert read.llm_thinking == "default"
    assert read.llm_extra_body == {}
    assert read.redis_dsn is None


def test_empty_means_unset() -> None:
    read = settings(API_LLM_PROVIDER_MODEL="", LLM_RPM=" ", REVIEW_DRAFTS="", LLM_EXTRA_BODY="")
    assert read.api_llm_provider_model == "kimi-k2.6"
    assert read.llm_rpm is None
    assert read.review_drafts is False


def test_values_come_typed() -> None:
    read = settings(
        LLM_RPM="60",
        LLM_EXTRA_BODY='{"thinking":{"type":"disabled"}}',
        REVIEW_EXCLUDE="vendor/**, *.min.js,",
        REVIEW_MIN_SEVERITY="high",
        REVIEW_VERIFY="false",
        API_OPENAI_FORCE_BASE_URL="https://api.moonshot.cn/v1/",
        KIMI_REVIEW_HOME="/var/lib/kimi-review",
    )
    assert read.llm_rpm == 60
    assert read.llm_extra_body == {"thinking": {"type": "disabled"}}
    assert read.review_exclude == ("vendor/**", "*.min.js")
    assert read.review_min_severity is Severity.HIGH
    assert read.review_verify is False
    assert read.api_openai_force_base_url == "https://api.moonshot.cn/v1"
    assert read.kimi_review_home == Path("/var/lib/kimi-review")


def test_seven_errors_and_a_typo_are_told_at_once_and_without_values(tmp_path: Path) -> None:
    wrong = {
        "API_OPENAI_FORCE_BASE_URL": "http://planted.example/v1",
        "GITHUB_WEBHOOK_SECRET": "planted",
        "LLM_RPM": "planted-rpm",
        "LLM_THINKING": "planted-word",
        "LLM_EXTRA_BODY": "{planted",
        "API_PORT": "99999999",
        "REVIEW_MAX_COMMENTS": "-4711",
        "API_OPEN_AI_API_KY": "planted-key",
    }
    dotenv = tmp_path / ".env"
    dotenv.write_text("".join(f"{name}='{value}'\n" for name, value in wrong.items()))
    with pytest.raises(ConfigurationError) as caught:
        load({}, role=Role.SERVE, dotenv=dotenv)
    told = caught.value.problems
    for name in wrong:
        assert any(line.startswith(f"{name}: ") for line in told), name
    assert "API_OPEN_AI_API_KY: there is no such setting. Did you mean API_OPEN_AI_API_KEY?" in told
    assert any(line.startswith("GITHUB_TOKEN: is not set") for line in told)
    for value in ("planted", "99999999", "4711"):
        assert value not in str(caught.value)


@given(st.dictionaries(st.sampled_from([*Settings.model_fields]), st.text(min_size=7), max_size=12))
def test_no_problem_ever_shows_a_value(values: dict[str, str]) -> None:
    marked = {name.upper(): f"vAlUe{value}" for name, value in values.items()}
    # The short secret makes sure that something is wrong, whatever the rest is.
    with pytest.raises(ConfigurationError) as caught:
        load(marked | {"API_TOKEN": "vAlUe"}, role=Role.SERVE, dotenv=None)
    assert "vAlUe" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("API_LLM_PROVIDER_MODE", "API_LLM_PROVIDER_MODEL"),
        ("API_OPENAI_API_KEY", "API_OPEN_AI_API_KEY"),
        ("API_OPENAI_BASE_URL", "API_OPENAI_FORCE_BASE_URL"),
        ("FALLBACK_LLM_MODEL", "FALLBACK_LLM_PROVIDER_MODEL"),
        ("GITHUB_WEBHOOK_SECRT", "GITHUB_WEBHOOK_SECRET"),
        ("GITHUB_WEBHOOK_SECRET_FIL", "GITHUB_WEBHOOK_SECRET_FILE"),
        ("REVIEW_DRAFT", "REVIEW_DRAFTS"),
        ("LOG_FORMATS", "LOG_FORMAT"),
        ("review_drafts", "REVIEW_DRAFTS"),
    ],
)
def test_a_misspelt_name_is_told_with_the_right_one(name: str, meant: str) -> None:
    assert f"{name}: there is no such setting. Did you mean {meant}?" in problems(**{name: "1"})


def test_an_unknown_name_of_ours_without_a_likeness_is_told_all_the_same() -> None:
    assert problems(LLM_QQQQQQQQ="1") == [
        "LLM_QQQQQQQQ: there is no such setting. See .env.example for all names, or remove it."
    ]


def test_names_of_other_programs_are_left_alone() -> None:
    actions = ("GITHUB_ACTIONS", "GITHUB_SHA", "GITHUB_REPOSITORY", "GITHUB_RUN_ID", "GITHUB_SERVER_URL", "GITHUB_PATH")
    others = ("PATH", "LOG_DIR", "API_KEY", "REDIS_HOST", "JOB_NAME", "WORKER_ID", "HOME", "QUEUE_NAME")
    settings(**dict.fromkeys(actions + others, "x"))


def test_the_file_of_kodus_can_be_used_as_it_is(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text(
        "API_NODE_ENV=production\nAPI_PORT=3001\nAPI_HOST=0.0.0.0\nAPI_PG_DB_HOST=db_postgres\nAPI_JWT_SECRET=x\n"
        "API_LOG_LEVEL=error\nAPI_RATE_MAX_REQUEST=100\nAPI_WEBHOOKS_PORT=3332\nAPI_CRYPTO_KEY=x\nWORKER_ROLE=code-review\n"
        "API_RABBITMQ_URI=amqp://x\nAPI_LLM_TEMPERATURE_OVERRIDE=\nAPI_OPEN_ROUTER_API_KEY=\nGLOBAL_GITHUB_CLIENT_ID=x\n"
        "API_LLM_PROVIDER_MODEL=kimi-k2.5\nAPI_OPENAI_FORCE_BASE_URL=https://api.moonshot.ai/v1\n"
        "API_OPEN_AI_API_KEY=sk-of-the-test-0123456789\n"
    )
    found = load({}, role=Role.CHECK, dotenv=dotenv)
    assert (found.api_llm_provider_model, found.api_port) == ("kimi-k2.5", 3001)
    assert set(foreign_names(dotenv)) >= {"API_PG_DB_HOST", "WORKER_ROLE", "GLOBAL_GITHUB_CLIENT_ID"}
    assert "API_LLM_TEMPERATURE_OVERRIDE" not in foreign_names(dotenv)


def test_a_setting_of_a_forge_that_is_not_spoken_to_is_told(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("GITLAB_TOKEN=x\nGITLAB_WEBHOOK_SECRET=x\n")
    with pytest.raises(ConfigurationError) as told:
        load({}, role=Role.QUERY, dotenv=dotenv)
    assert told.value.problems == [
        f"GITLAB_{name}: this version speaks to no such forge, so nothing reads it. Remove it."
        for name in ("TOKEN", "WEBHOOK_SECRET")
    ]


def test_a_word_may_be_written_in_capitals() -> None:
    found = settings(LOG_LEVEL="INFO", LOG_FORMAT="JSON", REVIEW_MIN_SEVERITY="High", LLM_THINKING="Off")
    assert (found.log_level, found.log_format, found.llm_thinking) == ("info", "json", "off")
    assert found.review_min_severity is Severity.HIGH


def test_the_environment_wins_over_the_file_and_empty_does_not(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("API_PORT=1111\nLOG_LEVEL=debug\nGITHUB_TOKEN=ghp_$HOME_0123456789\n")
    read = load(
        {k: v for k, v in COMPLETE.items() if k != "GITHUB_TOKEN"} | {"API_PORT": "2222", "LOG_LEVEL": ""},
        role=Role.SERVE,
        dotenv=dotenv,
    )
    assert (read.api_port, read.log_level) == (2222, "debug")
    assert read.github_token is not None
    assert read.github_token.get_secret_value() == "ghp_$HOME_0123456789"


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    given = {k: v for k, v in COMPLETE.items() if k != "GITHUB_WEBHOOK_SECRET"}
    read = load(given | {"GITHUB_WEBHOOK_SECRET_FILE": str(path)}, role=Role.SERVE, dotenv=None)
    assert read.github_webhook_secret is not None
    assert read.github_webhook_secret.get_secret_value() == SECRET


def test_a_secret_given_twice_or_in_a_bad_file_is_told(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.touch()
    binary.write_bytes(b"\xff\xfe\x00")
    assert problems(GITHUB_TOKEN_FILE=str(empty)) == [
        "GITHUB_TOKEN: is set, and GITHUB_TOKEN_FILE too. Keep one of them."
    ]
    assert any("is empty" in line for line in problems(API_TOKEN_FILE=str(empty)))
    assert any("no text file" in line for line in problems(API_TOKEN_FILE=str(binary)))
    assert any("No such file" in line for line in problems(API_TOKEN_FILE=str(tmp_path / "none")))


@pytest.mark.parametrize(
    "value", ["", "short", "changeme", "secret", "aaaaaaaaaaaaaaaaaaaaaaaa", f'"{SECRET}"', f"{SECRET} x"]
)
@pytest.mark.parametrize("role", [Role.SERVE, Role.API])
def test_a_webhook_secret_that_protects_nothing_is_refused(role: Role, value: str) -> None:
    found = problems(role, GITHUB_WEBHOOK_SECRET=value, REDIS_URL="redis://localhost:6379/0")
    assert [line.partition(":")[0] for line in found] == ["GITHUB_WEBHOOK_SECRET"]


def test_a_worker_needs_no_webhook_secret() -> None:
    given = {k: v for k, v in COMPLETE.items() if k != "GITHUB_WEBHOOK_SECRET"}
    assert load(given | {"REDIS_URL": "redis://h:1/0"}, role=Role.WORKER, dotenv=None).github_webhook_secret is None


@pytest.mark.parametrize("role", [Role.PLAN, Role.DEMO, Role.QUERY])
def test_a_plan_a_demo_and_a_question_need_nothing(role: Role) -> None:
    assert load({}, role=role, dotenv=None).api_open_ai_api_key is None


def test_a_review_needs_a_key_unless_the_model_is_on_this_machine() -> None:
    with pytest.raises(ConfigurationError, match=r"API_OPEN_AI_API_KEY: is not set"):
        load({}, role=Role.REVIEW, dotenv=None)
    load({"API_OPENAI_FORCE_BASE_URL": "http://127.0.0.1:9/v1"}, role=Role.REVIEW, dotenv=None)


@pytest.mark.parametrize("role", [Role.API, Role.WORKER, Role.UPKEEP])
def test_a_single_role_needs_a_redis_to_share(role: Role) -> None:
    assert [line.partition(":")[0] for line in problems(role)] == ["REDIS_URL"]


@pytest.mark.parametrize(
    ("url", "cure"),
    [
        ("https://api.moonshot.ai", "https://api.moonshot.ai/v1"),
        ("https://api.moonshot.cn/", "https://api.moonshot.cn/v1"),
        ("https://api.kimi.com/v1", "https://api.kimi.com/coding/v1"),
        ("https://api.moonshot.ai/v1/chat/completions", "https://api.moonshot.ai/v1."),
        ("https://platform.moonshot.ai/console", "https://api.moonshot.ai/v1"),
        ("http://api.moonshot.ai/v1", "https://"),
        ("https://user:pw@api.moonshot.ai/v1", "scheme, host and path only"),
        ("ftp://api.moonshot.ai/v1", "https://HOST/PATH"),
        ("api.moonshot.ai/v1", "https://HOST/PATH"),
        ("https://[::1/v1", "https://HOST/PATH"),
        ("https://host:port/v1", "https://HOST/PATH"),
    ],
)
def test_a_wrong_base_url_is_told_with_what_to_write(url: str, cure: str) -> None:
    (line,) = problems(API_OPENAI_FORCE_BASE_URL=url)
    assert line.startswith("API_OPENAI_FORCE_BASE_URL: ")
    assert cure in line


@pytest.mark.parametrize(
    ("url", "insecure"),
    [
        ("http://localhost:1234/v1", ""),
        ("http://127.0.0.1/v1", ""),
        ("http://[::1]:8/v1", ""),
        ("http://model.internal:8000/v1", "other,model.internal"),
        ("https://model.example/openai/v1", ""),
    ],
)
def test_http_is_for_loopback_and_named_hosts_alone(url: str, insecure: str) -> None:
    assert settings(API_OPENAI_FORCE_BASE_URL=url, ALLOW_INSECURE_HOSTS=insecure).api_openai_force_base_url == url


@pytest.mark.parametrize("host", ["127.0.0.1.example.org", "localhost.example.org", "10.0.0.1", "0.0.0.0"])
def test_a_host_that_only_looks_like_loopback_is_none(host: str) -> None:
    assert any("http://" in line for line in problems(API_OPENAI_FORCE_BASE_URL=f"http://{host}/v1"))


def test_each_wait_must_end_before_the_one_around_it() -> None:
    assert problems(LLM_IDLE_TIMEOUT_S="1500") == [
        "LLM_IDLE_TIMEOUT_S: must be less than LLM_TOTAL_TIMEOUT_S. Lower the one or raise the other."
    ]
    assert any("JOB_DEADLINE_S" in line for line in problems(LLM_TOTAL_TIMEOUT_S="3000"))
    assert any("QUEUE_VISIBILITY_TIMEOUT_S" in line for line in problems(JOB_DEADLINE_S="3600"))


def test_a_fallback_is_whole_or_absent() -> None:
    found = problems(FALLBACK_LLM_PROVIDER_MODEL="gpt-5")
    assert [line.partition(":")[0] for line in found] == ["FALLBACK_OPENAI_BASE_URL", "FALLBACK_API_KEY"]


def test_an_app_needs_id_and_key_and_no_token() -> None:
    pem = "-----BEGIN RSA PRIVATE KEY-----\\nabc\\n-----END RSA PRIVATE KEY-----"
    assert any(line.startswith("GITHUB_APP_PRIVATE_KEY: is not set") for line in problems(GITHUB_APP_ID="1"))
    assert any("Keep one way" in line for line in problems(GITHUB_APP_ID="1", GITHUB_APP_PRIVATE_KEY=pem))
    read = settings(GITHUB_TOKEN="", GITHUB_APP_ID="1", GITHUB_APP_PRIVATE_KEY=pem)
    assert read.has_github
    assert read.github_app_private_key is not None
    assert read.github_app_private_key.get_secret_value().count("\n") == 2


@pytest.mark.parametrize(
    "globs",
    [
        "https://github.com/acme/shop",
        "https://github.com/acme/*",
        "github.com/acme/shop",
        "acme",
        "acme/",
        "acme/shop.git",
        "acme/shop other/one",
    ],
)
def test_a_pattern_that_fits_no_repository_is_told_before_it_makes_silence(globs: str) -> None:
    assert problems(GITHUB_REPOSITORIES=f"acme/good,{globs}") == [
        "GITHUB_REPOSITORIES: holds what fits no repository's name, an address or a name without its owner."
        " Write acme/shop or acme/*, comma separated."
    ]


@pytest.mark.parametrize("globs", ["*", "*/*", "acme/*", "acme*", "acme/shop", "acme/[a-m]*,Other.Org/one_two.js"])
def test_a_pattern_that_may_fit_is_taken(globs: str) -> None:
    assert settings(GITHUB_REPOSITORIES=globs).github_repositories == tuple(globs.split(","))


def test_the_password_is_put_into_the_redis_url() -> None:
    read = settings(REDIS_URL="redis://redis:6379/0", REDIS_PASSWORD="p@ss/word")
    assert read.redis_dsn is not None
    assert read.redis_dsn.get_secret_value() == "redis://:p%40ss%2Fword@redis:6379/0"
    socket = settings(REDIS_URL="unix:///run/redis.sock?db=0", REDIS_PASSWORD="p@ss/word")
    assert socket.redis_dsn is not None
    assert socket.redis_dsn.get_secret_value() == "unix://:p%40ss%2Fword@/run/redis.sock?db=0"
    own = settings(REDIS_URL="rediss://u:own@redis/0", REDIS_PASSWORD="other")
    assert own.redis_dsn is not None
    assert own.redis_dsn.get_secret_value() == "rediss://u:own@redis/0"


def test_the_password_is_put_before_the_sentinels_too() -> None:
    read = settings(REDIS_URL="sentinel://one;sentinel://two:9/1?master_name=m", REDIS_PASSWORD="p@ss/word")
    assert read.redis_dsn is not None
    assert read.redis_dsn.get_secret_value() == (
        "sentinel://:p%40ss%2Fword@one:26379/1;sentinel://two:9/1?master_name=m"
    )


def test_a_redis_url_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    assert problems(REDIS_URL="sentinel://one;sentinel://two/0") == [
        "REDIS_URL: lacks the name under which the Sentinels watch the master. Write"
        " sentinel://HOST1:26379;sentinel://HOST2:26379;sentinel://HOST3:26379/0?master_name=NAME."
    ]


def test_certificates_for_redis_are_read_at_the_start(tmp_path: Path) -> None:
    own = authority(tmp_path)
    pair = own.signed(tmp_path, "planted")
    empty = tmp_path / "planted-empty.pem"
    empty.write_text("")
    url = f"rediss://host/0?ssl_ca_certs={own.path}"
    for right in (url, f"{url}&ssl_certfile={pair}"):
        assert settings(REDIS_URL=right).redis_dsn is not None
    for absent in (f"{tmp_path}/planted-absent.pem", str(empty)):
        (line,) = problems(REDIS_URL=f"rediss://host/0?ssl_ca_certs={absent}")
        assert line.startswith("REDIS_URL: ssl_ca_certs names no readable file")
        assert "planted" not in line
    for certificate, key in ((own.path, ""), (pair, own.path), (pair, tmp_path / "planted-absent.pem")):
        (line,) = problems(REDIS_URL=f"{url}&ssl_certfile={certificate}&ssl_keyfile={key}")
        assert line.startswith("REDIS_URL: ssl_certfile and ssl_keyfile name no certificate with its key")
        assert "planted" not in line


def test_secrets_show_in_no_repr_and_are_all_handed_to_the_redactor() -> None:
    read = settings(REDIS_URL="redis://:redis-pass@h:1/0", API_TOKEN=SECRET[::-1])
    for value in (*COMPLETE.values(), "redis-pass", SECRET[::-1]):
        assert value not in repr(read)
        assert value in read.secrets()
    guarded = settings(REDIS_URL="sentinel://:redis-pass@h?master_name=m&sentinel_password=guards%2Fpass")
    assert {"redis-pass", "guards/pass", "guards%2Fpass"} <= set(guarded.secrets())


def test_where_redis_is_may_be_read_in_the_log_and_its_password_not() -> None:
    assert "redis://store:6379/0" not in settings(REDIS_URL="redis://store:6379/0").secrets()
    told = Redactor(settings(REDIS_URL="redis://:pass-of-redis-2026@store:6379/0").secrets())
    assert "pass-of-redis" not in told("redis://:pass-of-redis-2026@store:6379/0 pass-of-redis-2026")


def test_only_settings_that_alter_the_result_alter_its_hash() -> None:
    same = settings(LOG_LEVEL="debug", API_OPEN_AI_API_KEY="sk-another-key-0123", REVIEW_SETTLE_S="9")
    assert same.result_hash == settings().result_hash
    assert settings(REVIEW_LANGUAGE="German").result_hash != settings().result_hash
    assert settings(API_LLM_PROVIDER_MODEL="kimi-k3").result_hash != settings().result_hash


def test_the_example_file_is_what_the_settings_say(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / ".env.example").read_text(encoding="utf-8")
    assert text == example()
    copy = tmp_path / ".env"
    copy.write_text(text)
    assert set(dotenv_values(copy)) == {field.upper() for field in Settings.model_fields}
    assert load({}, role=Role.QUERY, dotenv=copy) == load({}, role=Role.QUERY, dotenv=None)


def test_proxies_of_the_environment_are_used_when_the_setting_says_so_and_their_login_is_secret() -> None:
    proxy = {"HTTPS_PROXY": "http://worker:pass-of-the-proxy@egress.corp:3128"}
    unused, used = settings(**proxy), settings(**proxy, USE_ENV_PROXIES="true")
    assert unused.egress.proxy_for("https://api.moonshot.ai/v1") is None
    way = used.egress.proxy_for("https://api.moonshot.ai/v1")
    assert way is not None
    assert way.where == "egress.corp:3128"
    assert "pass-of-the-proxy" in unused.secrets()
    assert "pass-of-the-proxy" not in repr(used)
    assert used.result_hash == unused.result_hash
    assert used.model_copy(update={"llm_rpm": 3}).egress == used.egress
    [problem] = problems(HTTPS_PROXY="socks5://egress.corp:1080", USE_ENV_PROXIES="true")
    assert problem.startswith("HTTPS_PROXY: is no address of an HTTP proxy.")
    assert problems(USE_ENV_PROXY="true") == ["USE_ENV_PROXY: there is no such setting. Did you mean USE_ENV_PROXIES?"]
