"""What is sent: every family's way of thinking, the operator's overrides, and what a 400 taught."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.fakes.admission import OpenThrottle
from tests.fakes.anthropic import KEY as ANTHROPIC_KEY
from tests.fakes.anthropic import AnthropicServer
from tests.fakes.clock import FakeClock
from tests.fakes.kimi import KEY, Fault, KimiServer, canned, error, problem_with
from tests.fakes.message_content import images_of, text_of
from worker.core.errors import ConfigurationError, Unprocessable
from worker.core.exchange import Kind, Prompt
from worker.core.images import Image
from worker.core.model_info import ModelInfo
from worker.ports import Flow
from worker.providers.catalogue import lookup
from worker.providers.connect import connect
from worker.providers.endpoint import Endpoint
from worker.providers.remote import RemoteModel, Thinking, Wishes, encode
from worker.review.prompts import words

FLOW = Flow(change="github:a/b#1", repository="a/b")
PROMPT = Prompt(
    Kind.FINDINGS,
    system="Find faults.",
    user="kind: findings\nF1 a.py\n1|+|x\n",
    schema=words(Kind.FINDINGS).schema,
    input_tokens=900,
    max_output_tokens=32_000,
    cache_key="job-1",
)


def model(
    name: str = "kimi-k2.6",
    *,
    base_url: str = "https://api.moonshot.ai/v1",
    key: str = KEY,
    thinking: Thinking = "default",
    extra: Mapping[str, object] | None = None,
    info: ModelInfo | None = None,
) -> RemoteModel:
    return connect(
        Endpoint(base_url, key, name),
        info=info or lookup(name),
        throttle=OpenThrottle(),
        clock=FakeClock(),
        wishes=Wishes(thinking, extra or {}),
    )


def test_the_body_holds_what_kimi_wants_and_nothing_it_refuses() -> None:
    body = model().body(PROMPT)
    assert problem_with(body) == ""
    assert body == {
        "model": "kimi-k2.6",
        "messages": [
            {"role": "system", "content": "Find faults."},
            {"role": "user", "content": "kind: findings\nF1 a.py\n1|+|x\n"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 32_000,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "findings", "strict": True, "schema": words(Kind.FINDINGS).schema},
        },
        "prompt_cache_key": "job-1",
    }


@pytest.mark.parametrize("kind", list(Kind))
def test_every_schema_we_send_is_in_moonshots_subset(kind: Kind) -> None:
    assert problem_with(model().body(replace(PROMPT, kind=kind, schema=words(kind).schema))) == ""


def test_what_is_rendered_is_byte_for_byte_what_is_sent() -> None:
    with KimiServer(brain=canned('{"findings":[]}')) as kimi:
        asked = model(base_url=kimi.base_url)
        rendered = encode(asked.body(PROMPT))
        asyncio.run(asked.complete(PROMPT, flow=FLOW))
        assert kimi.requests[0].raw == rendered


def test_we_call_ourselves_by_our_own_name() -> None:
    with KimiServer(brain=canned('{"findings":[]}')) as kimi:
        asyncio.run(model(base_url=kimi.base_url).complete(PROMPT, flow=FLOW))
        assert kimi.requests[0].headers["user-agent"].startswith("kimi-review/")


@pytest.mark.parametrize(
    ("name", "thinking", "members"),
    [
        ("kimi-k2.6", "default", {}),
        ("kimi-k2.6", "off", {"thinking": {"type": "disabled"}}),
        ("kimi-k2.6", "low", {"thinking": {"type": "enabled"}}),
        ("kimi-k2.6", "high", {"thinking": {"type": "enabled"}}),
        ("kimi-k2.7-code", "off", {}),
        ("kimi-k2.7-code", "high", {}),
        ("kimi-k3", "default", {}),
        ("kimi-k3", "off", {"reasoning_effort": "low"}),
        ("kimi-k3", "low", {"reasoning_effort": "low"}),
        ("kimi-k3", "medium", {"reasoning_effort": "high"}),
        ("kimi-k3", "high", {"reasoning_effort": "max"}),
        ("gpt-5", "medium", {"reasoning_effort": "medium"}),
        ("some-model", "high", {}),
    ],
)
def test_thinking_is_said_in_each_familys_way(name: str, thinking: Thinking, members: dict[str, object]) -> None:
    body = model(name, thinking=thinking).body(PROMPT)
    assert {key: body[key] for key in ("thinking", "reasoning_effort") if key in body} == members


def test_a_small_change_goes_without_thinking_whatever_the_setting() -> None:
    body = model(thinking="high").body(replace(PROMPT, without_thinking=True))
    assert body["thinking"] == {"type": "disabled"}


@pytest.mark.parametrize(
    ("thinking", "cap", "expected"),
    [
        ("default", 32_000, None),
        ("off", 32_000, {"type": "disabled"}),
        ("low", 32_000, {"type": "enabled", "budget_tokens": 4_096}),
        ("high", 32_000, {"type": "enabled", "budget_tokens": 16_000}),
        ("high", 2_000, None),
    ],
)
def test_the_thinking_budget_leaves_half_of_the_cap_to_the_answer(
    thinking: Thinking, cap: int, expected: dict[str, object] | None
) -> None:
    claude = model("claude-sonnet-4-5", base_url="https://api.anthropic.com", thinking=thinking)
    assert claude.body(replace(PROMPT, max_output_tokens=cap)).get("thinking") == expected


def test_the_operators_own_members_come_last_and_replace_ours_whole() -> None:
    extra = {"thinking": {"type": "enabled", "keep": None}, "safety_identifier": "x", "prompt_cache_key": "mine"}
    body = model(thinking="off", extra=extra).body(PROMPT)
    assert {name: body[name] for name in extra} == extra


@pytest.mark.parametrize("name", ["model", "messages", "stream", "max_completion_tokens", "max_tokens"])
def test_the_operator_may_not_replace_what_the_limits_are_reckoned_with(name: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"LLM_EXTRA_BODY: must not hold {name}, .* the model is API_LLM_PROVIDER_MODEL"
    ):
        model(extra={name: 1})


def test_a_model_without_schemas_is_asked_for_any_json_object() -> None:
    info = replace(lookup("kimi-k2.6"), takes_schema=False)
    assert model(info=info).body(PROMPT)["response_format"] == {"type": "json_object"}


def test_the_cap_is_never_above_what_the_server_takes() -> None:
    info = replace(lookup("kimi-k2.6"), max_output_tokens=8_192)
    assert model(info=info).body(PROMPT)["max_completion_tokens"] == 8_192


def test_what_is_no_character_is_sent_as_a_question_mark() -> None:
    body = json.loads(encode(model().body(replace(PROMPT, user="kind: findings\na\udcffb"))))
    assert body["messages"][1]["content"] == "kind: findings\na?b"


# ------------------------------------------------------------------------------- what a 400 taught


def ask(asked: RemoteModel) -> tuple[str, ...]:
    return asyncio.run(asked.complete(PROMPT, flow=FLOW)).notes


def bodies(kimi: KimiServer) -> list[dict[str, Any]]:
    return [request.body for request in kimi.requests]


@pytest.mark.parametrize(
    ("extra", "refused"),
    [
        ({"temperature": 0.2}, "temperature"),
        ({"thinking": {"type": "enabled", "budget_tokens": 4096}}, "thinking"),
        ({"mood": "kind"}, "mood"),
    ],
)
def test_a_parameter_that_a_400_names_is_dropped_once_said_and_remembered(
    extra: dict[str, object], refused: str
) -> None:
    with KimiServer(brain=canned('{"findings":[]}')) as kimi:
        asked = model(base_url=kimi.base_url, extra=extra)
        assert ask(asked) == (f"dropped parameter {refused}",)
        assert ask(asked) == (f"dropped parameter {refused}",)
        assert [refused in body for body in bodies(kimi)] == [True, False, False]
        assert asked.refused_parameters == {refused}


def test_of_a_nested_parameter_only_what_was_named_is_dropped() -> None:
    with KimiServer(brain=canned('{"findings":[]}')) as kimi:
        kimi.script(Fault(400, error("invalid_request_error", "thinking.keep: unsupported value")))
        ask(model(base_url=kimi.base_url, extra={"thinking": {"type": "disabled", "keep": "all"}}))
        assert bodies(kimi)[1]["thinking"] == {"type": "disabled"}


def test_a_refused_schema_steps_down_to_any_object_and_then_to_words_alone() -> None:
    with KimiServer(brain=canned('{"findings":[]}'), refuses=("response_format",)) as kimi:
        asked = model(base_url=kimi.base_url)
        ask(asked)
        ask(asked)
        formats = [body.get("response_format", {}).get("type") for body in bodies(kimi)]
        assert formats == ["json_schema", "json_object", None, None]


def test_two_refusals_at_once_take_one_step_not_two() -> None:
    async def both(asked: RemoteModel) -> None:
        await asyncio.gather(asked.complete(PROMPT, flow=FLOW), asked.complete(PROMPT, flow=FLOW))

    refusal = Fault(400, error("invalid_request_error", "invalid response_format: no schemas here"), delay_s=0.1)
    with KimiServer(brain=canned('{"findings":[]}')) as kimi:
        kimi.script(refusal, refusal)
        asked = model(base_url=kimi.base_url)
        asyncio.run(both(asked))
        assert [body["response_format"]["type"] for body in bodies(kimi)][2:] == ["json_object", "json_object"]


def test_a_server_that_knows_only_the_older_name_of_the_cap_gets_it() -> None:
    refusal = error("invalid_request_error", "Unsupported parameter: 'max_completion_tokens' is not supported")
    with KimiServer(brain=canned("{}")) as kimi:
        kimi.script(Fault(400, refusal), Fault(401))
        asked = model(base_url=kimi.base_url)
        with pytest.raises(Exception, match="key not accepted"):
            ask(asked)
        assert (bodies(kimi)[1].get("max_completion_tokens"), bodies(kimi)[1]["max_tokens"]) == (None, 32_000)


def test_a_400_that_names_what_we_cannot_do_without_is_final() -> None:
    with KimiServer() as kimi:
        kimi.script(*[Fault(400, error("invalid_request_error", "invalid messages: no"))] * 5)
        with pytest.raises(Unprocessable):
            ask(model(base_url=kimi.base_url))
        assert len(kimi.requests) == 1


def test_an_override_that_cannot_be_left_out_ends_instead_of_going_round() -> None:
    extra = {"response_format": {"type": "json_schema", "json_schema": {"name": "mine", "strict": True}}}
    with KimiServer(refuses=("response_format",)) as kimi:
        with pytest.raises(Unprocessable):
            ask(model(base_url=kimi.base_url, extra=extra))
        assert len(kimi.requests) <= 2


def test_the_anthropic_adapter_forgets_what_was_refused_too() -> None:
    with AnthropicServer(path="/anthropic/v1/messages", refuses="thinking") as server:
        asked = model("claude-sonnet-4-5", base_url=f"{server.address}/anthropic", key=ANTHROPIC_KEY, thinking="low")
        assert ask(asked) == ("dropped parameter thinking",)
        assert ["thinking" in body for _, body in server.requests] == [True, False]


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://api.anthropic.com", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/v1/", "https://api.anthropic.com/v1/messages"),
        ("https://api.moonshot.ai/anthropic", "https://api.moonshot.ai/anthropic/v1/messages"),
        ("https://api.kimi.com/coding/v1/messages", "https://api.kimi.com/coding/v1/messages"),
        ("https://api.kimi.com/coding/v1", "https://api.kimi.com/coding/v1/chat/completions"),
        ("https://api.moonshot.ai/v1/", "https://api.moonshot.ai/v1/chat/completions"),
    ],
)
def test_the_address_decides_which_api_is_spoken(base_url: str, url: str) -> None:
    assert model(base_url=base_url).url == url


IMAGES = (Image("a.png", "image/png", b"\x89PNG not really"), Image("b.webp", "image/webp", b"RIFF"))


def test_images_follow_the_text_as_data_urls() -> None:
    with KimiServer() as kimi:
        answer = asyncio.run(model(base_url=kimi.base_url).complete(replace(PROMPT, images=IMAGES), flow=FLOW))
        [request] = kimi.answered
    content = request.body["messages"][1]["content"]
    assert answer.text
    assert content[0] == {"type": "text", "text": PROMPT.user}
    assert images_of(content) == ["data:image/png;base64,iVBORyBub3QgcmVhbGx5", "data:image/webp;base64,UklGRg=="]
    assert text_of(content) == PROMPT.user


def test_a_model_that_takes_no_images_gets_the_text_alone() -> None:
    blind = replace(lookup("kimi-k2.6"), takes_images=False)
    assert model(info=blind).body(replace(PROMPT, images=IMAGES)) == model().body(PROMPT)


def test_images_are_said_in_the_words_of_the_messages_api() -> None:
    with AnthropicServer(path="/anthropic/v1/messages") as server:
        claude = model("claude-sonnet-4-5", base_url=f"{server.address}/anthropic", key=ANTHROPIC_KEY)
        assert claude.info.takes_images
        asyncio.run(claude.complete(replace(PROMPT, images=IMAGES[:1]), flow=FLOW))
        [(_, body)] = server.requests
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORyBub3QgcmVhbGx5"}
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": PROMPT.user},
        {"type": "image", "source": source},
    ]


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}],
        [{"type": "image_url", "image_url": {"url": "data:image/svg+xml;base64,AAAA"}}],
        [{"type": "image", "source": {}}],
        [],
        "",
        None,
    ],
)
def test_the_strict_server_takes_no_other_content(content: object) -> None:
    body = model().body(PROMPT)
    body["messages"] = [{"role": "user", "content": content}]
    assert problem_with(body).startswith("invalid request: ")
