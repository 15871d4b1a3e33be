"""GitHub's webhook calls: are they GitHub's, and what do they ask for? No input or output here.

https://docs.github.com/en/webhooks/webhook-events-and-payloads
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from pydantic import ValidationError

from worker.core.change import ChangeRef
from worker.core.delivery import Delivery, Ignored
from worker.core.errors import BadInput, ConfigurationError, NotSigned
from worker.core.marker import is_ours
from worker.core.strict_json import read_object
from worker.forges.github.payloads import PullRequestEvent

_SIGNATURE = re.compile(r"sha256=[0-9a-f]{64}")
_DELIVERY = re.compile(r"[A-Za-z0-9-]{1,64}")
_EVENT = re.compile(r"[a-z_]{1,64}")
_REVIEWED = frozenset({"opened", "synchronize", "reopened", "ready_for_review", "review_requested"})


def verify(headers: Mapping[str, str], body: bytes, *, secret: str) -> None:
    """Check `X-Hub-Signature-256` over the raw bytes, in constant time. Raises `NotSigned`.

    `headers` must be looked up without regard to case, or have lower-case names.
    """
    if not secret:
        # Anybody can sign with an empty key; the settings refuse one too, and this must not hang on that.
        raise ConfigurationError(["GITHUB_WEBHOOK_SECRET: is not set. Set it here and in GitHub's form."])
    signature = headers.get("x-hub-signature-256")
    if signature is None:
        raise NotSigned(
            "The call has no X-Hub-Signature-256 header. Set the webhook's secret on GitHub.", reason="missing"
        )
    if not _SIGNATURE.fullmatch(signature):
        raise NotSigned("X-Hub-Signature-256 is not sha256= and 64 lower-case hex digits.", reason="malformed")
    expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(signature.encode(), expected.encode()):
        raise NotSigned(
            "The signature does not fit the body. GITHUB_WEBHOOK_SECRET must be the secret in GitHub's form.",
            reason="wrong",
        )


def parse(headers: Mapping[str, str], body: bytes) -> Delivery | Ignored:
    """What a verified call asks for. Raises `BadInput` for a body that GitHub would not send."""
    event = headers.get("x-github-event", "")
    if not _EVENT.fullmatch(event):
        raise BadInput("The call has no X-GitHub-Event header.")
    payload = read_object(_unwrapped(body) if _is_form(headers) else body)
    if event == "ping":
        return Ignored("ping")
    if event != "pull_request":
        return Ignored(_other(payload))
    try:
        said = PullRequestEvent.model_validate(payload)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
        raise BadInput(f"The pull_request payload is not as GitHub documents it, at {where!r}.") from None
    if (reason := _uninteresting(said)) is not None:
        return Ignored(reason)
    pull = said.pull_request
    delivery = headers.get("x-github-delivery", "")
    return Delivery(
        id=delivery if _DELIVERY.fullmatch(delivery) else "",
        event=f"pull_request.{said.action}",
        ref=ChangeRef(forge="github", repository=said.repository.full_name, number=said.number),
        head=pull.head.sha,
        is_draft=pull.draft,
        is_fork=pull.is_fork,
        is_bot=_is_bot(said),
        has_new_base=_changes_base(said),
    )


def _other(payload: dict[str, Any]) -> str:
    """Why a call that is not about a pull request itself is ignored; our own posts come back as such calls."""
    for name in ("comment", "review"):
        post = payload.get(name)
        if isinstance(post, dict) and is_ours(str(post.get("body"))):
            return "our own post"
    sender = payload.get("sender")
    if isinstance(sender, dict) and sender.get("type") == "Bot":
        return "author is a bot"
    return "event not handled"


def _uninteresting(said: PullRequestEvent) -> str | None:
    if said.number != said.pull_request.number:
        raise BadInput("The payload names two different pull requests.")
    if said.pull_request.state != "open":
        return "change is closed"
    if said.action not in _REVIEWED and not _changes_base(said):
        return "action not handled"
    return None


def _changes_base(said: PullRequestEvent) -> bool:
    return said.action == "edited" and said.changes is not None and said.changes.base is not None


def _is_bot(said: PullRequestEvent) -> bool:
    author, sender = said.pull_request.user, said.sender
    return (author is not None and author.is_bot) or (sender is not None and sender.is_bot)


def _is_form(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "application/x-www-form-urlencoded"


def _unwrapped(body: bytes) -> bytes:
    """The JSON in the field `payload`: the other content type that GitHub's form offers."""
    try:
        fields = parse_qsl(body.decode("ascii"), strict_parsing=True, max_num_fields=1, errors="strict")
    except ValueError:
        fields = []
    match fields:
        case [("payload", text)]:
            return text.encode()
    raise BadInput("The body is no form with the one field payload, as GitHub sends it.")
