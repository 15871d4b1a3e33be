"""The hidden mark in everything we post: how we find it again, and how we know that it is ours.

    <!-- kimi-review:v1 job=… head=… fp=… sig=… -->

It stands first in a body, so that cutting a body at the end never loses it. The signature covers the
change as well, so a mark copied from another change, or made up by a stranger, does not hide our review.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass

from worker.core.change import ChangeRef

SUMMARY = "summary"
"""The fingerprint of a review's own body, in place of a finding's."""
MORE = "more"
"""Stands beside `SUMMARY` where further posts follow: until one of them says `LAST`, the review is unfinished."""
LAST = "last"
OWN = frozenset({SUMMARY, MORE, LAST})
"""What a mark may say in place of a finding's fingerprint, of a review as a whole."""

_SAFE = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_MARK = re.compile(
    r"<!-- kimi-review:v1 job=([A-Za-z0-9_.:-]{1,128}) head=([0-9a-f]{40}|[0-9a-f]{64})"
    r" fp=([A-Za-z0-9_.:-]{1,128}) sig=([0-9a-f]{32}) -->"
)
_TRACE = re.compile(r"<!--\s*kimi-review\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Mark:
    """What one mark says. `fingerprint` is a finding's, or one of `OWN`."""

    job: str
    head: str
    fingerprint: str


def key_from(secret: str) -> bytes:
    """The key that signs marks, derived from a long-lived secret so that no mark gives that secret away."""
    return hmac.new(b"kimi-review marker v1", secret.encode(), hashlib.sha256).digest()


def write(mark: Mark, *, key: bytes, ref: ChangeRef) -> str:
    """The mark as one line of HTML comment. Raises `ValueError` for parts that could end the comment."""
    for part in (mark.job, mark.fingerprint, mark.head):
        if not _SAFE.fullmatch(part) or "--" in part:
            raise ValueError(f"{part!r} cannot stand in a marker: letters, digits and single _.:- only.")
    return (
        f"<!-- kimi-review:v1 job={mark.job} head={mark.head} fp={mark.fingerprint}"
        f" sig={_signature(mark, key=key, ref=ref)} -->"
    )


def read(text: str, *, key: bytes, ref: ChangeRef) -> Iterator[Mark]:
    """The marks in `text` that we wrote for the change `ref`; all others are passed over."""
    for found in _MARK.finditer(text):
        mark = Mark(job=found[1], head=found[2], fingerprint=found[3])
        if hmac.compare_digest(found[4], _signature(mark, key=key, ref=ref)):
            yield mark


def is_ours(text: str) -> bool:
    """Whether `text` looks as if we had posted it: loose, for breaking loops, never for trusting."""
    return _TRACE.search(text) is not None


def _signature(mark: Mark, *, key: bytes, ref: ChangeRef) -> str:
    # Forges do not care about the case of a repository's name; a rename of the case must not hide our marks.
    said = "\0".join((ref.forge, ref.repository.lower(), str(ref.number), mark.job, mark.head, mark.fingerprint))
    return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()[:32]
