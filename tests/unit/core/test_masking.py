"""Secrets are out of the text before a model sees it, and the text around them stays."""

from __future__ import annotations

import random
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.masking import SHAPES, find, mask

LETTERS = "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0z"
SECRETS = {
    "AWS key": "AKIA" + "ABCDEFGH12345678",
    "AWS secret key": 'AWS_SECRET_ACCESS_KEY="' + (LETTERS * 2)[:38] + '/+"',
    "GitHub token": "ghp_" + (LETTERS * 2)[:36],
    "GitLab token": "glpat-" + LETTERS[:20],
    "Slack token": "xoxb-" + "123456789012-" + LETTERS[:24],
    "Slack webhook": "hooks.slack.com/services/" + "T00000000/B00000000/" + LETTERS[:24],
    "Stripe key": "sk_live_" + LETTERS[:24],
    "Google key": "AIza" + (LETTERS * 2)[:35],
    "npm token": "npm_" + (LETTERS * 2)[:36],
    "PyPI token": "pypi-" + (LETTERS * 3)[:70],
    "SendGrid key": "SG." + LETTERS[:22] + "." + LETTERS[:22],
    "Hugging Face token": "hf_" + (LETTERS * 2)[:34],
    "Azure storage key": "AccountKey=" + (LETTERS * 3)[:86] + "==",
    "Google OAuth secret": "GOCSPX-" + LETTERS[:28],
    "DigitalOcean token": "dop_v1_" + "0a1b2c3d" * 8,
    "Shopify token": "shpat_" + "0a1b2c3d" * 4,
    "Atlassian token": "ATATT3" + (LETTERS * 6)[:180],
    "Vault token": "hvs." + (LETTERS * 3)[:90],
    "API key": "sk-" + (LETTERS * 2)[:48],
    "URL password": "postgres://app:S3cret-of-2026@db.example.com/app",
    "JWT": "eyJ" + LETTERS[:20] + ".eyJ" + LETTERS[:20] + "." + LETTERS[:20],
}
KEY_ROWS = ["MIIEpAIBAAKCAQEA" + LETTERS, LETTERS + "abc/+", "ab=="]


def test_every_shape_has_an_example() -> None:
    assert {shape.kind for shape in SHAPES} == set(SECRETS)


OF_A_NAME = {"URL password", "AWS secret key", "Azure storage key"}
"""Known by what stands before them, which stays."""


@pytest.mark.parametrize("kind", sorted(SECRETS.keys() - OF_A_NAME))
def test_a_secret_is_replaced_where_it_stands(kind: str) -> None:
    secret = SECRETS[kind]
    assert mask(f'+key = "{secret}" # why\n') == f'+key = "«masked: {kind}»" # why\n'
    (span,) = find(f"-{secret}\n")
    assert (span.start, span.end, span.kind) == (1, 1 + len(secret), kind)


@pytest.mark.parametrize(
    "line",
    [
        "AWS_SECRET_ACCESS_KEY={}",
        "aws_secret_access_key = {}",
        '"SecretAccessKey": "{}",',
        "  secretAccessKey: '{}',",
    ],
)
def test_the_half_of_an_aws_key_that_has_no_prefix_is_known_by_its_name(line: str) -> None:
    secret = (LETTERS * 2)[:38] + "/+"
    assert mask(line.format(secret)) == line.format("«masked: AWS secret key»")


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"),
        ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----", "-----END PGP PRIVATE KEY BLOCK-----"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", None),
        (None, "-----END EC PRIVATE KEY-----"),
    ],
)
def test_the_rows_of_a_private_key_are_masked_even_where_its_beginning_or_end_is_not_shown(
    begin: str | None, end: str | None
) -> None:
    rows = ["def before():", *filter(None, [begin]), *KEY_ROWS, *filter(None, [end]), "x = after()"]
    text = "".join(f"+{row}\n" for row in rows)
    masked = mask(text)
    assert not any(row in masked for row in KEY_ROWS)
    assert masked.count("\n") == text.count("\n")
    assert "+def before():\n" in masked
    assert "+x = after()\n" in masked


def test_a_private_key_on_one_line_is_masked() -> None:
    text = '+KEY = "-----BEGIN PRIVATE KEY-----\\n' + "\\n".join(KEY_ROWS) + '\\n-----END PRIVATE KEY-----\\n"\n'
    assert not any(row in mask(text) for row in KEY_ROWS)


@pytest.mark.parametrize(
    "text",
    [
        "sk-fading-circle-animation-delay-long",
        "sk-of-the-benchmark-0123",
        "sk-a-false-secret-of-the-tests-2026",
        "sk-loading-animation2-container-of-ours",
        "disk-of-the-machine-0a1b2c3d4e5f6a7b8c9d",
        "postgres://postgres:postgres@localhost:5432/test",
        "postgres://app:app12345@localhost/test",
        "amqp://guest:guest@rabbit/",
        "https://user:${PASSWORD1}@example.com/{path}",
        "https://example.com:8080/a1@b2/c",
        "ssh://git@example.com:22/acme/shop.git",
        "mailto:somebody12@example.com",
        "AKIA is a prefix",
        "aws_secret_access_key = os.environ['AWS_SECRET_ACCESS_KEY']",
        "half_of_the_words_that_we_have_seen_in_all",
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\nmQENBF\n",
        "ghp_short",
        "risk-averse-20-letters",
        "eyJ.eyJ.x",
    ],
)
def test_what_only_looks_a_little_like_a_secret_stays(text: str) -> None:
    assert mask(text) == text


BASE64URL = string.ascii_letters + string.digits + "-_"
ALPHANUMERIC = string.ascii_letters + string.digits
HEX = "0123456789abcdef"


@pytest.mark.parametrize(
    ("prefix", "letters", "length", "suffix"),
    [
        ("sk-", ALPHANUMERIC, 48, ""),  # Moonshot, and OpenAI's old ones
        ("sk-", HEX, 32, ""),  # DeepSeek
        ("sk-kimi-", ALPHANUMERIC, 64, ""),
        ("sk-proj-", BASE64URL, 74, "T3BlbkFJ"),
        ("sk-proj-", BASE64URL, 156, ""),
        ("sk-svcacct-", BASE64URL, 156, ""),
        ("sk-admin-", BASE64URL, 124, ""),
        ("sk-ant-api03-", BASE64URL, 93, "AA"),
        ("sk-ant-oat01-", BASE64URL, 93, "AA"),
        ("sk-or-v1-", HEX, 64, ""),
        ("ghp_", ALPHANUMERIC, 36, ""),
        ("gho_", ALPHANUMERIC, 36, ""),
        ("ghs_", ALPHANUMERIC, 36, ""),
        ("github_pat_", ALPHANUMERIC, 22, "_" + "aB3" * 19 + "ab"),
        ("glpat-", BASE64URL, 20, ""),
        ("AKIA", string.ascii_uppercase + "234567", 16, ""),
        ("xoxb-", string.digits, 12, "-123456789012-" + LETTERS[:24]),
        ("xoxp-", string.digits, 12, "-123456789012-" + LETTERS),
        ("AIza", BASE64URL, 35, ""),
        ("rk_live_", ALPHANUMERIC, 24, ""),
    ],
)
def test_keys_as_their_vendors_make_them_are_masked_whole(prefix: str, letters: str, length: int, suffix: str) -> None:
    dice = random.Random(f"{prefix}{length}")
    for _ in range(300):
        key = prefix + "".join(dice.choices(letters, k=length)) + suffix
        assert [(span.start, span.end) for span in find(f'+"{key}"\n')] == [(2, 2 + len(key))], key


def test_a_key_that_is_a_uuid_is_masked() -> None:
    key = "sk-lf-0f1e2d3c-1111-2222-3333-444455556666"
    assert mask(f"key = {key}") == "key = «masked: API key»"


def test_of_a_url_its_password_alone_is_masked() -> None:
    assert mask("postgres://app:S3cret-of-2026@db:5432/x") == "postgres://app:********@db:5432/x"
    assert mask("redis://:Zx81-Spectrum-48k-of-April-1982@cache.example.com") == (
        "redis://:«masked: URL password»@cache.example.com"
    )


@given(st.lists(st.one_of(st.sampled_from(sorted(SECRETS.values())), st.text(max_size=20)), max_size=12))
def test_masking_never_makes_a_text_longer_and_keeps_its_lines(parts: list[str]) -> None:
    text = "\n+".join(parts)
    masked = mask(text)
    assert len(masked.encode("utf-8", "replace")) <= len(text.encode("utf-8", "replace"))
    assert masked.count("\n") == text.count("\n")


def test_hostile_text_does_not_make_masking_slow() -> None:
    started = time.perf_counter()
    for text in (
        "sk-" + "-" * 300_000,
        "eyJ" * 100_000,
        "-----BEGIN PRIVATE KEY-----\n" * 5_000,
        "xoxb-" * 60_000,
        "sk-a1" * 60_000,
        "://a:b1" * 40_000,
        "://" + "a:" * 150_000,
        "sk-" + "a" * 300_000,
        "sk-" + "1a-" * 90_000,
    ):
        mask(text)
    assert time.perf_counter() - started < 2
