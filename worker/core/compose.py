"""Claims → findings: put in their place, merged where two say the same, worst first."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from worker.core.diff.anchor import resolve
from worker.core.finding import Anchor, Claim, Finding, Severity
from worker.core.fingerprint import fingerprint
from worker.core.planning.plan import Chunk, ChunkFile
from worker.core.planning.secret_lines import SecretLine
from worker.core.suggestion import is_applicable

_SAME_TITLE = 0.6
"""Share of common words from which two titles on the same lines say the same thing."""
_COMPARED = 200
"""With how many findings of its file each is compared, the latest. A change that talks the model into thousands would
otherwise cost minutes, and so many are read by nobody one by one."""
_WORD = re.compile(r"\w+")


def compose(claims: Iterable[tuple[Chunk, Claim]]) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """Return (anchored, unanchored) findings, each merged and ranked: worst severity, then path and line."""
    findings = merge(locate(chunk, claim) for chunk, claim in claims)
    in_order = ranked(findings)
    return (
        tuple(finding for finding in in_order if finding.anchor is not None),
        tuple(finding for finding in in_order if finding.anchor is None),
    )


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Worst severity first, then by path and line."""
    return tuple(sorted(findings, key=_rank))


def with_disclosed(findings: Sequence[Finding], secrets: Iterable[SecretLine]) -> tuple[Finding, ...]:
    """`findings` and one for each added secret, ranked; what the model guessed about such a line is left out."""
    told = disclosed(secrets)
    lines = {(finding.path, finding.anchor) for finding in told}
    others = [
        finding for finding in findings if finding.category != "security" or (finding.path, finding.anchor) not in lines
    ]
    return ranked((*told, *others))


def disclosed(secrets: Iterable[SecretLine]) -> list[Finding]:
    """A finding for each added line that holds a secret: the model never sees the value, and neither does the reader.

    A removed line is none: taking a secret out is what should happen.
    """
    findings: list[Finding] = []
    seen: Counter[tuple[str, str]] = Counter()
    # In the order in which they will be read: the first is explained, the others need no more than what to do.
    for secret in sorted(
        (secret for secret in secrets if secret.side == "RIGHT"), key=lambda one: (one.path, one.line)
    ):
        # Two of a kind in one file are two findings, and stay the same two when lines move.
        seen[secret.path, secret.kind] += 1
        code = f"{secret.kind} {seen[secret.path, secret.kind]}"
        findings.append(
            Finding(
                path=secret.path,
                anchor=Anchor(secret.path, "RIGHT", secret.line, secret.line),
                severity=Severity.HIGH,
                category="security",
                title=f"Secret in the change: {secret.kind}",
                body=_EXPOSED_TOO if findings else _EXPOSED,
                quote="",
                fingerprint=fingerprint(path=secret.path, code=code, category="security", title=""),
            )
        )
    return findings


_EXPOSED = (
    "This line adds what has the shape of a real credential. Whoever can read the repository can use it, also after a"
    " later commit removes it: revoke it, and read its successor from the environment or a secret store."
    " It was masked before the change was shown to the model."
)
_EXPOSED_TOO = (
    "This line too adds what has the shape of a real credential: revoke it, and read its successor from the environment"
    " or a secret store."
)


def locate(chunk: Chunk, claim: Claim) -> Finding:
    """Anchor a claim to lines the chunk showed; a claim about a file it did not show keeps no line."""
    file = _named(chunk, claim.file)
    anchor = resolve(claim, file.diff, file.hunks) if file is not None else None
    path = file.path if file is not None else claim.file
    suggestion = None
    if (
        claim.suggestion
        and file is not None
        and anchor is not None
        and is_applicable(claim.suggestion, anchor, file.hunks)
    ):
        suggestion = claim.suggestion
    return Finding(
        path=path,
        anchor=anchor,
        severity=claim.severity,
        category=claim.category,
        title=claim.title,
        body=claim.body,
        quote=claim.quote,
        fingerprint=fingerprint(path=path, code=claim.quote, category=claim.category, title=claim.title),
        suggestion=suggestion,
        confidence=claim.confidence,
    )


def merge(findings: Iterable[Finding]) -> list[Finding]:
    """Keep one of those that say the same about the same lines: the worst, else the first."""
    by_path: dict[str, list[_Told]] = {}
    for finding in findings:
        kept = by_path.setdefault(finding.path, [])
        told = _Told(finding, frozenset(_WORD.findall(finding.title.lower())))
        for index in range(max(0, len(kept) - _COMPARED), len(kept)):
            if _says_the_same(told, kept[index]):
                if finding.severity.rank < kept[index].finding.severity.rank:
                    kept[index] = told
                break
        else:
            kept.append(told)
    return [told.finding for kept in by_path.values() for told in kept]


@dataclass(frozen=True, slots=True)
class _Told:
    finding: Finding
    words: frozenset[str]
    """Of its title, in lower case."""


def _says_the_same(one: _Told, other: _Told) -> bool:
    ours, theirs = one.finding, other.finding
    if ours.fingerprint == theirs.fingerprint and (
        ours.anchor == theirs.anchor or None in (ours.anchor, theirs.anchor)
    ):
        return True
    return _overlap(ours, theirs) and _alike(one.words, other.words) >= _SAME_TITLE


def _overlap(one: Finding, other: Finding) -> bool:
    if one.anchor is None or other.anchor is None:
        return one.anchor is other.anchor
    return (
        one.anchor.side == other.anchor.side
        and one.anchor.start_line <= other.anchor.line
        and other.anchor.start_line <= one.anchor.line
    )


def _alike(ours: frozenset[str], theirs: frozenset[str]) -> float:
    """Share of common words, 0 to 1 (Jaccard)."""
    return len(ours & theirs) / len(ours | theirs) if ours or theirs else 1.0


def _named(chunk: Chunk, name: str) -> ChunkFile | None:
    """The file the model means: by its short id, else by its path."""
    wanted = name.strip()
    by_id = (file for file in chunk.files if file.id == wanted)
    by_path = (file for file in chunk.files if file.path == wanted)
    return next(by_id, None) or next(by_path, None)


def _rank(finding: Finding) -> tuple[int, str, int]:
    return (finding.severity.rank, finding.path, finding.anchor.line if finding.anchor else 0)
