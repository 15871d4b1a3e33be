"""Claims → findings: put in their place, merged where two say the same, worst first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from worker.core.diff.anchor import resolve
from worker.core.finding import Claim, Finding
from worker.core.fingerprint import fingerprint
from worker.core.planning.plan import Chunk, ChunkFile
from worker.core.suggestion import is_applicable

_SAME_TITLE = 0.6
"""Share of common words from which two titles on the same lines say the same thing."""


def compose(claims: Iterable[tuple[Chunk, Claim]]) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """Return (anchored, unanchored) findings, each merged and ranked: worst severity, then path and line."""
    findings = merge(locate(chunk, claim) for chunk, claim in claims)
    ranked = sorted(findings, key=_rank)
    return (
        tuple(finding for finding in ranked if finding.anchor is not None),
        tuple(finding for finding in ranked if finding.anchor is None),
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
    by_path: dict[str, list[Finding]] = {}
    for finding in findings:
        kept = by_path.setdefault(finding.path, [])
        for index, other in enumerate(kept):
            if _says_the_same(finding, other):
                if finding.severity.rank < other.severity.rank:
                    kept[index] = finding
                break
        else:
            kept.append(finding)
    return [finding for kept in by_path.values() for finding in kept]


def _says_the_same(one: Finding, other: Finding) -> bool:
    if one.fingerprint == other.fingerprint and (one.anchor == other.anchor or None in (one.anchor, other.anchor)):
        return True
    return _overlap(one, other) and _alike(one.title, other.title) >= _SAME_TITLE


def _overlap(one: Finding, other: Finding) -> bool:
    if one.anchor is None or other.anchor is None:
        return one.anchor is other.anchor
    return (
        one.anchor.side == other.anchor.side
        and one.anchor.start_line <= other.anchor.line
        and other.anchor.start_line <= one.anchor.line
    )


def _alike(one: str, other: str) -> float:
    """Share of common words, 0 to 1 (Jaccard)."""
    ours, theirs = (set(re.findall(r"\w+", title.lower())) for title in (one, other))
    return len(ours & theirs) / len(ours | theirs) if ours | theirs else 1.0


def _named(chunk: Chunk, name: str) -> ChunkFile | None:
    """The file the model means: by its short id, or by its path when that names one file only."""
    by_id = [file for file in chunk.files if file.id == name.strip()]
    by_path: Sequence[ChunkFile] = [file for file in chunk.files if file.path == name.strip()]
    found = by_id or by_path
    return found[0] if found else None


def _rank(finding: Finding) -> tuple[int, str, int]:
    return (finding.severity.rank, finding.path, finding.anchor.line if finding.anchor else 0)
