"""`PROVIDERS`, and what a host, a model and a key tell."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.providers.connect import ADAPTERS
from worker.providers.endpoint import Endpoint
from worker.providers.http import QUOTED_CHARS, complaint_of, safe_words
from worker.providers.table import PROVIDERS, dialect_of, provider_for, provider_for_key


def test_the_table_is_closed() -> None:
    hosts = [host for row in PROVIDERS for host in row.hosts]
    prefixes = [row.key_prefix for row in PROVIDERS if row.key_prefix]
    assert len(hosts) == len(set(hosts))
    assert len(prefixes) == len(set(prefixes))
    for row in PROVIDERS:
        assert provider_for(row.base_url) is row
        assert row.dialect in ADAPTERS
        assert dialect_of(row.base_url) == row.dialect


@pytest.mark.parametrize(
    ("base_url", "model", "line"),
    [
        (
            "https://api.moonshot.ai/v1",
            "kimi-k2.6",
            "provider=moonshot model=kimi-k2.6 host=api.moonshot.ai plan=developer",
        ),
        (
            "https://api.moonshot.cn/v1/",
            "kimi-k2.6",
            "provider=moonshot model=kimi-k2.6 host=api.moonshot.cn plan=developer",
        ),
        (
            "https://api.kimi.com/coding/v1",
            "kimi-for-coding",
            "provider=kimi-code model=kimi-for-coding host=api.kimi.com plan=code",
        ),
        (
            "http://127.0.0.1:8700/v1",
            "kimi-k2.6",
            "provider=moonshot-compatible model=kimi-k2.6 host=127.0.0.1 plan=local",
        ),
        (
            "https://models.example.org/v1",
            "qwen3",
            "provider=openai-compatible model=qwen3 host=models.example.org plan=custom",
        ),
    ],
)
def test_the_line_at_start_names_provider_model_host_and_plan(base_url: str, model: str, line: str) -> None:
    described = Endpoint(base_url, "sk-x", model).described()
    assert " ".join(f"{name}={value}" for name, value in described.items()) == line


@pytest.mark.parametrize(
    ("key", "base_url"),
    [
        ("sk-kimi-abc", "https://api.kimi.com/coding/v1"),
        ("sk-ant-abc", "https://api.anthropic.com"),
        ("sk-or-v1-abc", "https://openrouter.ai/api/v1"),
        ("sk-proj-abc", "https://api.openai.com/v1"),
        ("sk-abc", None),
    ],
)
def test_a_keys_beginning_tells_where_it_belongs_if_anything_does(key: str, base_url: str | None) -> None:
    row = provider_for_key(key)
    assert (row.base_url if row else None) == base_url


def test_a_key_is_never_shown_with_its_endpoint() -> None:
    assert "secret" not in repr(Endpoint("https://api.moonshot.ai/v1", "sk-secret", "kimi-k2.6"))


# ------------------------------------------------------------------------------- a stranger's words


@given(st.text())
def test_a_strangers_words_become_one_short_printable_line(text: str) -> None:
    words = safe_words(text)
    assert len(words) <= QUOTED_CHARS
    assert words.isprintable()
    assert words == words.strip()


@pytest.mark.parametrize(
    "secret",
    [
        "org-78cd08fac9804d20bac9a1f02fc1e6a5",
        "proj-a418892b55d04bbb929766740804aa41",
        "ak-f94zcrj6ax1111aqsyq1",
        "sk-abcdefgh12345678",
        "user-29a8cq0",
        "0f8fad5b-d9cb-469f-a165-70867728950e",
        "78cd08fac9804d20bac9a1f02fc1e6a5",
        "someone@example.org",
        "my own key",
    ],
)
def test_ids_and_keys_are_taken_out(secret: str) -> None:
    said = safe_words(f"Your account <{secret}> / {secret}, please", "my own key")
    assert secret not in said
    assert said.startswith("Your account <")


def test_plain_words_with_hyphens_stay() -> None:
    text = "key-value pairs and user-defined functions are account-wide"
    assert safe_words(text) == text


@given(st.binary(max_size=300))
def test_any_bytes_are_an_error_body(body: bytes) -> None:
    complaint_of(body)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["error", "message", "type", "code", "detail", "metadata", "raw", "msg", "param"]),
                inner,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_an_error_body(value: object) -> None:
    complaint = complaint_of(json.dumps(value).encode())
    assert all(isinstance(part, str) for part in (complaint.type, complaint.code, complaint.message))
