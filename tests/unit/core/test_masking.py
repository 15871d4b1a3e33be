"""Secrets are out of the text before a model sees it, and the text around them stays."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.masking import SHAPES, find, mask

LETTERS = "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0z"
SECRETS = {
    "AWS key": "AKIA" + "ABCDEFGH12345678",
    "GitHub token": "ghp_" + (LETTERS * 2)[:36],
    "GitLab token": "glpat-" + LETTERS[:20],
    "Slack token": "xoxb-" + "123456789012-" + LETTERS[:24],
    "Slack webhook": "hooks.slack.com/services/" + "T00000000/B00000000/" + LETTERS[:24],
    "Stripe key": "sk_live_" + LETTERS[:24],
    "Google key": "AIza" + (LETTERS * 2)[:35],
    "npm token": "npm_" + (LETTERS * 2)[:36],
    "PyPI token": "pypi-" + (LETTERS * 3)[:70],
    "SendGrid key": "SG." + LETTERS[:22] + "." + LETTERS[:22],
    "API key": "sk-" + (LETTERS * 2)[:48],
    "JWT": "eyJ" + LETTERS[:20] + ".eyJ" + LETTERS[:20] + "." + LETTERS[:20],
}
KEY_ROWS = ["MIIEpAIBAAKCAQEA" + LETTERS, LETTERS + "abc/+", "ab=="]


def test_every_shape_has_an_example() -> None:
    assert {shape.kind for shape in SHAPES} == set(SECRETS)


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_replaced_where_it_stands(kind: str) -> None:
    secret = SECRETS[kind]
    assert mask(f'+key = "{secret}" # why\n') == f'+key = "«masked: {kind}»" # why\n'
    (span,) = find(f"-{secret}\n")
    assert (span.start, span.end, span.kind) == (1, 1 + len(secret), kind)


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"),
        ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"),
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
        "AKIA is a prefix",
        "ghp_short",
        "risk-averse-20-letters",
        "eyJ.eyJ.x",
    ],
)
def test_what_only_looks_a_little_like_a_secret_stays(text: str) -> None:
    assert mask(text) == text


@given(st.lists(st.one_of(st.sampled_from(sorted(SECRETS.values())), st.text(max_size=20)), max_size=12))
def test_masking_never_makes_a_text_longer_and_keeps_its_lines(parts: list[str]) -> None:
    text = "\n+".join(parts)
    masked = mask(text)
    assert len(masked.encode("utf-8", "replace")) <= len(text.encode("utf-8", "replace"))
    assert masked.count("\n") == text.count("\n")


def test_hostile_text_does_not_make_masking_slow() -> None:
    started = time.perf_counter()
    for text in ("sk-" + "-" * 300_000, "eyJ" * 100_000, "-----BEGIN PRIVATE KEY-----\n" * 5_000, "xoxb-" * 60_000):
        mask(text)
    assert time.perf_counter() - started < 2
