"""GitHub's webhook calls: only GitHub's own are read, and only names and numbers are taken from them."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.delivery import Delivery, Ignored
from worker.core.errors import BadInput, ConfigurationError, NotSigned
from worker.core.marker import Mark, key_from, write
from worker.forges.github import webhook

SECRET = "a false secret of the tests"
HEAD = "a" * 40


def signature(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def payload(action: str = "opened", **pull: Any) -> dict[str, Any]:
    repository = {"full_name": "acme/shop", "clone_url": "http://169.254.169.254/x.git"}
    return {
        "action": action,
        "number": 7,
        "pull_request": {
            "number": 7,
            "state": "open",
            "draft": False,
            "user": {"login": "alice", "type": "User"},
            "diff_url": "file:///etc/passwd",
            "head": {"sha": HEAD, "ref": "--upload-pack=touch x", "repo": repository},
            "base": {"sha": "b" * 40, "ref": "main", "repo": repository},
            **pull,
        },
        "repository": repository,
        "sender": {"login": "alice", "type": "User"},
    }


def parse(said: object, event: str = "pull_request") -> Delivery | Ignored:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    return webhook.parse({"x-github-event": event, "x-github-delivery": "72d3162e-cc78-11e3"}, body)


# ------------------------------------------------------------------------------------------ verify


def test_a_signed_body_passes() -> None:
    webhook.verify({"x-hub-signature-256": signature(b"{}")}, b"{}", secret=SECRET)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "missing"),
        ({"x-hub-signature": "sha1=" + "0" * 40}, "missing"),
        ({"x-hub-signature-256": ""}, "malformed"),
        ({"x-hub-signature-256": signature(b"{}")[:-1]}, "malformed"),
        ({"x-hub-signature-256": signature(b"{}").upper()}, "malformed"),
        ({"x-hub-signature-256": "sha256=" + signature(b"{}")[7:].upper()}, "malformed"),
        ({"x-hub-signature-256": signature(b"{}").replace("sha256=", "")}, "malformed"),
        ({"x-hub-signature-256": signature(b"{}") + "\n"}, "malformed"),
        ({"x-hub-signature-256": "sha256=" + "é" * 64}, "malformed"),
        ({"x-hub-signature-256": signature(b"{} ")}, "wrong"),
        ({"x-hub-signature-256": signature(b"{}", "another secret of 16+")}, "wrong"),
    ],
)
def test_a_body_without_its_own_signature_does_not(headers: dict[str, str], reason: str) -> None:
    with pytest.raises(NotSigned) as caught:
        webhook.verify(headers, b"{}", secret=SECRET)
    assert caught.value.reason == reason
    assert SECRET not in str(caught.value)


def test_an_empty_secret_admits_nobody() -> None:
    with pytest.raises(ConfigurationError, match="GITHUB_WEBHOOK_SECRET"):
        webhook.verify({"x-hub-signature-256": signature(b"{}", "")}, b"{}", secret="")


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_signature_fits_one_body_only(signed: bytes, sent: bytes) -> None:
    headers = {"x-hub-signature-256": signature(signed)}
    if signed == sent:
        webhook.verify(headers, sent, secret=SECRET)
    else:
        with pytest.raises(NotSigned):
            webhook.verify(headers, sent, secret=SECRET)


# ------------------------------------------------------------------------------------------- parse


@pytest.mark.parametrize("action", ["opened", "synchronize", "reopened", "ready_for_review", "review_requested"])
def test_what_changes_a_pull_request_asks_for_a_review(action: str) -> None:
    said = parse(payload(action))
    assert isinstance(said, Delivery)
    assert str(said.ref) == "github:acme/shop#7"
    assert (said.head, said.id, said.event) == (HEAD, "72d3162e-cc78-11e3", f"pull_request.{action}")
    assert (said.is_draft, said.is_fork, said.is_bot) == (False, False, False)


def test_a_new_base_asks_for_a_review_and_a_new_title_does_not() -> None:
    moved = parse(payload("edited") | {"changes": {"base": {"ref": {"from": "old"}}}})
    assert isinstance(moved, Delivery)
    assert moved.has_new_base
    opened = parse(payload("opened"))
    assert isinstance(opened, Delivery)
    assert not opened.has_new_base
    assert parse(payload("edited") | {"changes": {"title": {"from": "old"}}}) == Ignored("action not handled")


@pytest.mark.parametrize("action", ["labeled", "assigned", "enqueued", "something_new"])
def test_other_actions_are_ignored(action: str) -> None:
    assert parse(payload(action)) == Ignored("action not handled")


def test_a_closed_pull_request_is_ignored() -> None:
    assert parse(payload("synchronize", state="closed")) == Ignored("change is closed")
    assert parse(payload("closed", state="closed")) == Ignored("change is closed")


def test_a_ping_and_unknown_events_are_ignored() -> None:
    assert parse({"zen": "Keep it logically awesome."}, "ping") == Ignored("ping")
    assert parse({"action": "created"}, "sponsorship") == Ignored("event not handled")


def test_our_own_posts_coming_back_are_ignored() -> None:
    ref = parse(payload())
    assert isinstance(ref, Delivery)
    mark = write(Mark("job", HEAD, "fp"), key=key_from(SECRET), ref=ref.ref)
    for event, name in (("issue_comment", "comment"), ("pull_request_review", "review")):
        assert parse({"action": "created", name: {"body": f"{mark}\nText"}}, event) == Ignored("our own post")
    assert parse({"sender": {"type": "Bot"}, "comment": {"body": "hi"}}, "issue_comment") == Ignored("author is a bot")
    said = {"sender": {"type": "User"}, "comment": {"body": "hi"}}
    assert parse(said, "issue_comment") == Ignored("event not handled")


@pytest.mark.parametrize(
    "said",
    [
        payload(user={"login": "dependabot[bot]", "type": "Bot"}),
        payload(user={"login": "renovate[bot]", "type": "User"}),
        payload() | {"sender": {"login": "fixer", "type": "Bot"}},
    ],
)
def test_bots_are_marked(said: dict[str, Any]) -> None:
    delivery = parse(said)
    assert isinstance(delivery, Delivery)
    assert delivery.is_bot


def test_forks_are_marked_deleted_ones_too() -> None:
    for repo in ({"full_name": "mallory/shop"}, None):
        delivery = parse(payload(head={"sha": HEAD, "ref": "x", "repo": repo}))
        assert isinstance(delivery, Delivery)
        assert delivery.is_fork


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe{}",
        b'{"action": "opened", "action": "closed"}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"a": "\\ud800"}',
        b'{"a": ["\\uDFFF", "\\udc00\\ud83d"]}',
        b"payload=%7B%7D",
    ],
)
def test_what_is_not_one_sound_json_object_is_bad_input(body: bytes) -> None:
    with pytest.raises(BadInput):
        parse(body)


SOUND = json.dumps(payload(title="Better")).encode()


@pytest.mark.parametrize(
    ("sound", "unsound"),
    [
        (b'{"action": "opened",', b'{"action": "opened", "action": "opened",'),
        (b'"state": "open",', b'"state": "open", "state": "open",'),
        (b'"title": "Better"', b'"what nobody reads": NaN'),
        (b'"title": "Better"', b'"title": "\\udfff"'),
        (b'"title": "Better"', b'"\\ud800": "Better"'),
        (b'"title": "Better"', b'"title": "\xff"'),
    ],
    ids=["a name twice", "a name twice within", "no number", "half a character", "half a name", "not UTF-8"],
)
def test_one_flaw_makes_a_sound_payload_bad_input(sound: bytes, unsound: bytes) -> None:
    """Each flaw alone: a payload that lacks its members is refused whatever else is wrong with it."""
    assert isinstance(parse(SOUND), Delivery)
    assert SOUND.count(sound) == 1
    with pytest.raises(BadInput):
        parse(SOUND.replace(sound, unsound))


@pytest.mark.parametrize("event", ["ping", "issue_comment"])
def test_what_is_no_object_is_bad_input_for_every_event(event: str) -> None:
    with pytest.raises(BadInput):
        parse([payload()], event)


@pytest.mark.parametrize("headers", [{}, {"x-github-event": ""}, {"x-github-event": "Pull Request\n"}], ids=repr)
def test_a_call_that_names_no_event_is_bad_input(headers: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="X-GitHub-Event"):
        webhook.parse(headers, SOUND)


def test_an_edit_without_changes_and_an_author_who_is_gone_are_no_fault_of_the_payload() -> None:
    assert parse(payload("edited")) == Ignored("action not handled")
    assert parse(payload("edited") | {"changes": None}) == Ignored("action not handled")
    ghost = parse(payload(user=None) | {"sender": None})
    assert isinstance(ghost, Delivery)
    assert not ghost.is_bot


FORM = {"x-github-event": "pull_request", "content-type": "application/x-www-form-urlencoded; charset=utf-8"}


def test_a_payload_in_a_form_is_read_as_the_json_in_it() -> None:
    said = payload(title="50 % & more = größer + 😀")
    assert webhook.parse(FORM, urlencode({"payload": json.dumps(said)}).encode()) == webhook.parse(
        {"x-github-event": "pull_request"}, json.dumps(said).encode()
    )
    assert webhook.parse(FORM | {"x-github-event": "ping"}, b"payload=%7B%22zen%22%3A%22x%22%7D") == Ignored("ping")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"payload",
        b"payload=",
        b"payload=[]",
        b"zen=x",
        b"payload=%FF",
        b"payload=\xff",
        b"payload={}&payload={}",
        b"{}",
    ],
)
def test_a_form_that_is_not_as_github_sends_it_is_bad_input(body: bytes) -> None:
    with pytest.raises(BadInput):
        webhook.parse(FORM, body)


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert parse(b'{"zen": "\\ud83d\\ude00"}', "ping") == Ignored("ping")


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"action": "opened"},
        payload() | {"number": 8},
        payload() | {"number": -1},
        payload() | {"number": "7"},
        payload(number=1) | {"number": True},
        payload() | {"repository": {"full_name": "acme/../../etc"}},
        payload() | {"repository": {"full_name": "acme/.."}},
        payload() | {"repository": {"full_name": "acme/shop\n"}},
        payload() | {"repository": {"full_name": "acme@evil.example/shop"}},
        payload() | {"repository": {"full_name": "-acme/shop"}},
        payload() | {"repository": {"full_name": "acme/shop?x=1"}},
        payload(head={"sha": "HEAD", "ref": "x", "repo": None}),
        payload(head={"sha": "--upload-pack=x", "ref": "x", "repo": None}),
        payload(head={"sha": HEAD + "\n", "ref": "x", "repo": None}),
        payload(head=None),
    ],
)
def test_names_that_could_be_more_than_names_are_bad_input(said: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        parse(said)


def test_nothing_of_a_payload_but_names_and_numbers_is_kept() -> None:
    delivery = parse(payload())
    assert "169.254" not in repr(delivery)
    assert "passwd" not in repr(delivery)
    assert "upload-pack" not in repr(delivery)


def test_a_delivery_id_that_is_none_is_dropped() -> None:
    body = json.dumps(payload()).encode()
    said = webhook.parse({"x-github-event": "pull_request", "x-github-delivery": "x\ny" * 99}, body)
    assert isinstance(said, Delivery)
    assert said.id == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["action", "number", "pull_request", "repository", "sender", "changes"]), JSON)
def test_any_value_anywhere_is_a_delivery_ignored_or_bad_input(name: str, value: object) -> None:
    try:
        said = parse(payload() | {name: value})
    except BadInput:
        return
    assert isinstance(said, Delivery | Ignored)
