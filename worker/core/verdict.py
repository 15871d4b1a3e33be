"""Findings under a second look: how they are shown, and what follows from the verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from worker.core.answers import Verdict
from worker.core.diff.model import FileDiff, Hunk, Line
from worker.core.exchange import Prompt
from worker.core.finding import Anchor, Finding
from worker.core.masking import mask
from worker.core.planning.identity import name_of
from worker.core.planning.rendering import between, opening
from worker.core.planning.tokens import Counter, text_size
from worker.core.showing import shown, shown_path
from worker.core.words import Words

AROUND = 12
"""Lines of code shown before and after the lines a candidate cites."""
LONGEST_LINE = 400
"""Characters of a line that are shown."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A finding under its short closed name, "C1", with the code it is about."""

    id: str
    finding: Finding
    code: str


def candidates(findings: Sequence[Finding], files: Mapping[str, FileDiff]) -> tuple[Candidate, ...]:
    """Number the findings and cut the code they are about out of their files' hunks."""
    return tuple(
        Candidate(f"C{number}", finding, _code(finding, files.get(finding.path)))
        for number, finding in enumerate(findings, start=1)
    )


def standing(
    numbered: Sequence[Candidate], verdicts: Iterable[Verdict]
) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """Return (kept, refuted). What nobody judged is kept, and of two verdicts the milder: silence refutes nothing."""
    said: dict[str, set[str]] = {}
    for verdict in verdicts:
        said.setdefault(verdict.candidate, set()).add(verdict.verdict)
    refuted = {name for name, words in said.items() if words == {"refuted"}}
    return (
        tuple(each.finding for each in numbered if each.id not in refuted),
        tuple(each.finding for each in numbered if each.id in refuted),
    )


def render_candidates(
    numbered: Sequence[Candidate],
    *,
    words: Words,
    count: Counter,
    factor: float,
    max_output_tokens: int,
    cache_key: str = "",
) -> Prompt:
    """The request that asks for a verdict on each candidate. Candidates are data, like the change they speak of."""
    content = "".join(_shown(each) for each in numbered)
    user = opening(words.kind) + between("candidates", name_of(content), content) + words.reminder
    size = text_size(f"{words.system}{user}{words.schema}", count)
    return Prompt(
        kind=words.kind,
        system=words.system,
        user=user,
        schema=words.schema,
        input_tokens=size.bound(factor),
        max_output_tokens=max_output_tokens,
        cache_key=cache_key,
    )


def _shown(candidate: Candidate) -> str:
    finding = candidate.finding
    place = shown_path(finding.path) + (f":{_span(finding.anchor)}" if finding.anchor else "")
    claim = mask(shown(f"{finding.title}\n{finding.body}".encode("utf-8", "replace")))
    rows = "".join(f"  | {row}\n" for row in claim.split("\n"))
    return f"{candidate.id} {place} ({finding.severity.value}, {finding.category})\n{rows}{candidate.code}"


def _span(anchor: Anchor) -> str:
    lines = f"{anchor.line}" if anchor.start_line == anchor.line else f"{anchor.start_line}-{anchor.line}"
    return f"{lines}, deleted" if anchor.side == "LEFT" else lines


def _code(finding: Finding, file: FileDiff | None) -> str:
    """Rows `  <number>  <text>`, the cited ones marked `>`; never in the form of a unit's rows."""
    anchor = finding.anchor
    if file is None or anchor is None:
        return ""
    return "".join(
        row for hunk in file.hunks if _touches(anchor, hunk.old_start, hunk.new_start) for row in _rows(hunk, anchor)
    )


def _touches(anchor: Anchor, old_start: int, new_start: int) -> bool:
    """Whether a hunk that starts there may reach the anchor; cheap, for files with many hunks."""
    return (old_start if anchor.side == "LEFT" else new_start) <= anchor.line + AROUND


def _rows(hunk: Hunk, anchor: Anchor) -> Iterable[str]:
    # Masked as a whole: a row of a private key is known by what stands above or below it.
    texts = (row[1:] for row in mask(shown(hunk.body)).split("\n") if not row.startswith("\\"))
    return (_row(line, text, anchor) for line, text in zip(hunk.lines(), texts, strict=False))


def _row(line: Line, text: str, anchor: Anchor) -> str:
    number = line.old_number if anchor.side == "LEFT" else line.new_number
    if number is None or not anchor.start_line - AROUND <= number <= anchor.line + AROUND:
        return ""
    sign = ">" if anchor.start_line <= number <= anchor.line else " "
    what = {"+": "added", "-": "gone", " ": "as it was"}[line.sign]
    return f"{sign} {number} ({what})  {text[:LONGEST_LINE]}\n"
