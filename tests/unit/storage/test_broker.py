"""What is taken from a queue, and what is put into it."""

from __future__ import annotations

import json
from typing import Any

import redis
from hypothesis import given
from hypothesis import strategies as st

from worker.storage.broker import fault_of, message_for, name_in
from worker.storage.queue import celery_app

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def shape(value: Any) -> Any:
    """The members and the kinds of their values."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    return type(value)


def test_our_messages_have_the_form_of_celery_s_own(redis_url: str) -> None:
    app = celery_app(redis_url)
    app.send_task("review.run", args=["0" * 20], queue="interactive", priority=0, retry=False, ignore_result=True)
    with redis.Redis.from_url(redis_url) as client:
        theirs = client.lindex("interactive", 0)
    app.close()
    assert isinstance(theirs, bytes)
    ours = message_for(app, "review.run", "0" * 20, queue="interactive", priority=0)
    assert fault_of(theirs) == fault_of(ours) == ""
    assert shape(json.loads(ours)) == shape(json.loads(theirs))
    assert json.loads(ours)["body"] == json.loads(theirs)["body"]
    assert name_in(ours) == "review.run"


@given(st.binary())
def test_any_bytes_are_judged(message: bytes) -> None:
    assert fault_of(message) != ""
    assert name_in(message) == ""


@given(ANYTHING, st.dictionaries(st.sampled_from(["task", "id", "eta", "stamps", "timelimit"]), ANYTHING))
def test_any_json_is_judged(body: object, headers: dict[str, object]) -> None:
    properties = {
        "delivery_tag": "t",
        "delivery_info": {"exchange": "", "routing_key": "q"},
        "body_encoding": "base64",
    }
    message = {
        "body": body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": headers,
        "properties": properties,
    }
    assert fault_of(json.dumps(message)) != ""
    assert fault_of(json.dumps(body)) != ""
