"""The hidden mark in everything we post: how we find it again, and how we know that it is ours.

    <!-- kimi-review:v1 job=… head=… fp=… sig=… -->

It stands first in a body, so that cutting a body at the end never loses it. The signature covers the change as well, so
a mark copied from another change, or made up by a stranger, does not hide our review. Where the forge tells the
repository's id, a second mark follows that is signed for it: the id stays when the repository is renamed or moved.

What a summary tells of at no line has one mark for all of it, with both signatures:

    <!-- kimi-review:told job=… head=… fps=…,… sig=…,… -->

It stands right behind the text that it vouches for, so that cutting a body never leaves it without that text, and who
edits the text away takes it along: what nobody can read any more is told again. What it counts without naming it has
another one, with `counted` in place of `told`.
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
_LEADING = re.compile(rf"(?:{_MARK.pattern})*")
_TOLD = re.compile(
    r"<!-- kimi-review:(told|counted) job=([A-Za-z0-9_.:-]{1,128}) head=([0-9a-f]{40}|[0-9a-f]{64})"
    r" fps=([A-Za-z0-9_.:-]{1,128}(?:,[A-Za-z0-9_.:-]{1,128})*) sig=([0-9a-f]{32}(?:,[0-9a-f]{32})?) -->"
)
_TRACE = re.compile(r"<!--\s*kimi-review\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Mark:
    """What one mark says. `fingerprint` is a finding's, or one of `OWN`."""

    job: str
    head: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Told:
    """What one mark says of several findings: a summary for `head` names and explains them, or counts them."""

    job: str
    head: str
    fingerprints: tuple[str, ...]
    is_counted: bool = False
    """Whether the summary counts them only."""

    @property
    def word(self) -> str:
        return "counted" if self.is_counted else "told"


def key_from(secret: str) -> bytes:
    """The key that signs marks, derived from a long-lived secret so that no mark gives that secret away."""
    return hmac.new(b"kimi-review marker v1", secret.encode(), hashlib.sha256).digest()


def write(mark: Mark, *, key: bytes, ref: ChangeRef, repository_id: str = "") -> str:
    """The mark as one line of HTML comment, once for the repository's name and once for its id where that is known.

    Raises `ValueError` for parts that could end the comment.
    """
    _check(mark.job, mark.fingerprint, mark.head)
    return "".join(
        f"<!-- kimi-review:v1 job={mark.job} head={mark.head} fp={mark.fingerprint} sig={signature} -->"
        for signature in _signatures(mark, key=key, ref=ref, repository_id=repository_id)
    )


def read(text: str, *, key: bytes, ref: ChangeRef, repository_id: str = "") -> Iterator[Mark]:
    """The marks in `text` that we wrote for the change `ref`, each as often as it stands there; others are passed over.

    With `repository_id`, those too that were written while the repository had another name.
    """
    for found in _MARK.finditer(text):
        mark = Mark(job=found[1], head=found[2], fingerprint=found[3])
        ours = _signatures(mark, key=key, ref=ref, repository_id=repository_id)
        if any(hmac.compare_digest(found[4], signature) for signature in ours):
            yield mark


def write_told(told: Told, *, key: bytes, ref: ChangeRef, repository_id: str = "") -> str:
    """The mark as one line of HTML comment. Raises `ValueError` as `write` does, and where there is no fingerprint.

    Older programs do not know its form and pass it over.
    """
    _check(told.job, told.head, *(told.fingerprints or ("",)))
    signatures = ",".join(_signatures(told, key=key, ref=ref, repository_id=repository_id))
    return (
        f"<!-- kimi-review:{told.word} job={told.job} head={told.head} fps={','.join(told.fingerprints)}"
        f" sig={signatures} -->"
    )


def read_told(text: str, *, key: bytes, ref: ChangeRef, repository_id: str = "") -> Iterator[Told]:
    """The marks over several findings in `text` that we wrote for the change `ref`; trusted as `read` trusts."""
    for found in _TOLD.finditer(text):
        told = Told(found[2], found[3], tuple(found[4].split(",")), is_counted=found[1] == "counted")
        ours = _signatures(told, key=key, ref=ref, repository_id=repository_id)
        if any(hmac.compare_digest(given, signature) for given in found[5].split(",") for signature in ours):
            yield told


def parted(body: str) -> tuple[str, str]:
    """The marks that `body` begins with, whoever wrote them, and what follows them."""
    leading = _LEADING.match(body)
    marks = leading[0] if leading is not None else ""
    return marks, body.removeprefix(marks).removeprefix("\n")


def is_ours(text: str) -> bool:
    """Whether `text` looks as if we had posted it: loose, for breaking loops, never for trusting."""
    return _TRACE.search(text) is not None


def _check(*parts: str) -> None:
    for part in parts:
        if not _SAFE.fullmatch(part) or "--" in part:
            raise ValueError(f"{part!r} cannot stand in a marker: letters, digits and single _.:- only.")


def _signatures(mark: Mark | Told, *, key: bytes, ref: ChangeRef, repository_id: str) -> list[str]:
    # Forges do not care about the case of a repository's name; a rename of the case must not hide our marks.
    names = [ref.repository.lower()]
    if repository_id:
        # No name has a space in it, so none can pass for an id.
        names.append(f"id {repository_id}")
    return [_signature(mark, key=key, ref=ref, name=name) for name in names]


def _signature(mark: Mark | Told, *, key: bytes, ref: ChangeRef, name: str) -> str:
    # No fingerprint has a space in it, so no kind of mark can pass for the other.
    of = mark.fingerprint if isinstance(mark, Mark) else f"{mark.word} {' '.join(mark.fingerprints)}"
    said = "\0".join((ref.forge, name, str(ref.number), mark.job, mark.head, of))
    return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()[:32]
