"""A report → what is said on the change: inline comments, and a summary that never says more than is true."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass

from worker.core import markdown, marker
from worker.core.counting import counted
from worker.core.finding import Anchor, Finding, Severity
from worker.core.fingerprint import told_apart
from worker.core.ledger import Ledger, NotReviewed
from worker.core.markdown import Mask
from worker.core.report import Report
from worker.core.usage import Usage

_BADGES = {Severity.CRITICAL: "🔴", Severity.HIGH: "🟠", Severity.MEDIUM: "🟡", Severity.LOW: "🔵"}
_TITLE = 160
_BODY = 3000
_ROW_BODY = 500
_NAMED_ROWS = 4
"""Files that the ledger's line names itself; longer lists are folded."""
_FOLDED_ROWS = 200
_LISTED_FINDINGS = 50
_REF = re.compile(r"(?<![\w`./-])[\w.-]+(?:/[\w.-]+)+#\d+")
"""A change in an error's words; as code it is no link, and needs no space before its number."""


@dataclass(frozen=True, slots=True)
class Comment:
    """One inline comment, rendered and ready. Lines count from 1 on their side; within one hunk."""

    path: str
    side: str
    start_line: int
    line: int
    body: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Voice:
    """How much is said, and what must not be. The defaults are those of the settings."""

    max_comments: int = 10
    max_comments_per_file: int = 3
    min_severity: Severity = Severity.LOW
    mask: Mask | None = None
    """Takes secrets out of everything that the model or the change wrote."""


@dataclass(frozen=True, slots=True)
class Marking:
    """How a summary notes which findings it tells, so that later looks know it."""

    write: Callable[[Sequence[str], bool], str]
    """Fingerprints, and whether they are counted only → one line that a reader does not see (`marker.write_told`)."""
    limit: int
    """How many characters the text may have, the mark included."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Each finding of a report in exactly one place."""

    inline: tuple[Finding, ...]
    listed: tuple[Finding, ...]
    """For the summary: beyond the cap, at no line that a forge could take, or counted by an earlier summary."""
    raised_before: tuple[Finding, ...]
    """Told for an earlier head, at a line or in a summary, and still there."""
    below: int
    """How many are less severe than what is shown."""
    gone: int = 0
    """How many were told for an earlier head, and not found this time."""

    @property
    def shown(self) -> tuple[Finding, ...]:
        return (*self.inline, *self.listed, *self.raised_before)


def select(
    report: Report, voice: Voice, *, raised: Set[str] = frozenset(), counted_before: Set[str] = frozenset()
) -> Selection:
    """Share out the findings, worst first. `raised` are the fingerprints of what was told for earlier heads.

    What was told in a summary gets no comment at a line later, though there be room: a push brings comments on what
    it brings. Lines that it changes need no exception, for a finding on other code has another fingerprint. What
    summaries have only counted so far, `counted_before`, is for the summary to tell.
    """
    inline: list[Finding] = []
    listed: list[Finding] = []
    before: list[Finding] = []
    below = 0
    in_file: Counter[str] = Counter()
    for finding in (*report.findings, *report.unanchored):
        if finding.severity.rank > voice.min_severity.rank:
            below += 1
        elif finding.fingerprint in raised:
            before.append(finding)
        elif (
            finding.fingerprint not in counted_before
            and finding.anchor is not None
            and _is_text(finding.anchor.path)
            and len(inline) < voice.max_comments
            and in_file[finding.anchor.path] < voice.max_comments_per_file
        ):
            in_file[finding.anchor.path] += 1
            inline.append(finding)
        else:
            listed.append(finding)
    for mixed in (listed, before):
        # What stands at no line comes behind all that does, however bad it is.
        mixed.sort(key=lambda finding: finding.severity.rank)
    found = {finding.fingerprint for finding in (*report.findings, *report.unanchored)}
    # The second of two alike bears a number behind its fingerprint (`told_apart`): gone with the first, or not at all.
    gone = sum(fingerprint.partition(".")[0] not in found for fingerprint in raised)
    return Selection(tuple(inline), tuple(listed), tuple(before), below, gone)


def comments(
    report: Report, voice: Voice, *, raised: Set[str] = frozenset(), counted_before: Set[str] = frozenset()
) -> tuple[Comment, ...]:
    """The inline comments, worst first: the same for the same report, so that a restart knows what it posted."""
    chosen = select(report, voice, raised=raised, counted_before=counted_before)
    placed = [(finding, finding.anchor) for finding in chosen.inline if finding.anchor]
    names = told_apart(finding.fingerprint for finding, _ in placed)
    return tuple(
        Comment(
            path=anchor.path,
            side=anchor.side,
            start_line=anchor.start_line,
            line=anchor.line,
            body=_body(finding, anchor, voice),
            fingerprint=name,
        )
        for (finding, anchor), name in zip(placed, names, strict=True)
    )


def summary_text(
    report: Report,
    voice: Voice,
    *,
    raised: Set[str] = frozenset(),
    counted_before: Set[str] = frozenset(),
    marking: Marking | None = None,
) -> str:
    """The review's own text: verdict, coverage, what stands at no line, what it cost, what to do next.

    With `marking`, marks of the findings that it lists or counts stand right behind them, for as many as there is
    room: the last-ranked go without first, and no text gives way to a mark.
    """
    chosen = select(report, voice, raised=raised, counted_before=counted_before)
    parts = [f"### {_headline(report, chosen)}"]
    if report.is_standin:
        parts.append(
            "> **No model took part.** A stand-in with a few fixed checks wrote this, to show how the pipeline works."
        )
    parts += [f"> {markdown.inline(note, limit=400, mask=voice.mask)}" for note in report.notes]
    if chosen.shown:
        parts.append(_counts(chosen))
    parts.append(ledger_text(report.ledger, mask=voice.mask))
    parts += _section("More findings", chosen.listed, voice)
    # The comment or summary that told them explains them: who reads every review is not told twice.
    ending = _section("Raised on an earlier commit and still there", chosen.raised_before, voice, explains=False)
    ending.append(_gone(report, chosen))
    if chosen.below:
        ending.append(
            f"{counted(chosen.below, 'finding')} below severity {voice.min_severity} not shown (`REVIEW_MIN_SEVERITY`)."
        )
    ending += [_next_step(report, chosen), _footer(report)]
    text = _paragraphs(*parts, *ending)
    if marking is None:
        return text
    return _paragraphs(*parts, *_marks(chosen.listed, marking, room=marking.limit - len(text)), *ending)


def with_misplaced(summary: str, comments: Sequence[Comment], *, forge: str, limit: int, ending: str) -> str:
    """`summary` with the comments that `forge` put at no line, in at most `limit` characters.

    All their marks come first, so that each is known as posted whatever is cut. The summary keeps a quarter of the
    room at least; of the comments the longest are cut first. `ending` is added to what was cut.
    """
    if not comments:
        return summary
    marks, said = marker.parted(summary)
    told = []
    for comment in comments:
        own, text = marker.parted(comment.body)
        marks += own
        lines = f"{comment.line}" if comment.start_line == comment.line else f"{comment.start_line}–{comment.line}"
        told.append(f"{markdown.code(f'{comment.path}:{lines}')}\n\n{text}")
    title = f"**Not placed by {forge} at their lines:**"
    head = f"{marks}\n" if marks else ""
    room = limit - len(head) - len(title) - len("\n\n") * (len(told) + 1)
    said = markdown.fit(said, max(room - sum(map(len, told)), room // 4), ending=ending)
    return head + _paragraphs(said, title, *_evenly(told, room - len(said), ending=ending))


def continued_text(*, first: int, last: int, total: int) -> str:
    """The body of a further review, where the forge takes so many comments at once. Counted from 1."""
    return f"Review continued: comments {first} to {last} of {total}."


def note_text(reason: str, *, mask: Mask | None = None) -> str:
    """The plain comment for a change that got no review."""
    said = _REF.sub(lambda ref: f"`{ref[0]}`", reason)
    return (
        "### Not reviewed\n\n"
        f"{markdown.block(said, limit=1000, mask=mask)}\n\n"
        "This says nothing about the change itself. Push a commit or request a review to try again."
    )


def ledger_text(ledger: Ledger, *, mask: Mask | None = None) -> str:
    """`1,204 of 1,260 changed lines reviewed; not reviewed: package-lock.json (lock file, 56)`, long lists folded."""
    line = f"{ledger.reviewed_lines:,} of {ledger.changed_lines:,} changed lines reviewed"
    with_lines = {row.path for row in ledger.not_reviewed if row.lines}
    # A file may have a second row for what happened to it besides its lines: that says nothing new.
    named_once = (row for row in ledger.not_reviewed if row.lines or row.path not in with_lines)
    rows = sorted(named_once, key=lambda row: (-row.lines, row.path))
    if not rows:
        return f"{line}."
    named = "; ".join(_row(row, mask) for row in rows[:_NAMED_ROWS])
    rest = rows[_NAMED_ROWS:]
    if not rest:
        return f"{line}; not reviewed: {named}"
    lines_left = sum(row.lines for row in rest)
    shown = [f"- {_row(row, mask)}" for row in rest[:_FOLDED_ROWS]]
    if len(rest) > _FOLDED_ROWS:
        by_reason: Counter[str] = Counter()
        for row in rest[_FOLDED_ROWS:]:
            by_reason[row.reason] += row.lines
        shown += [
            f"- {counted(len(rest) - _FOLDED_ROWS, 'file')} more: "
            + ", ".join(f"{markdown.inline(reason, mask=mask)} ({lines:,})" for reason, lines in by_reason.items())
        ]
    # `<details>` is ours alone: nothing that a stranger wrote can open or end one.
    return (
        f"{line}; not reviewed: {named}; and {counted(len(rest), 'file')} more ({lines_left:,})\n\n"
        f"<details><summary>All that was not reviewed</summary>\n\n" + "\n".join(shown) + "\n\n</details>"
    )


def _paragraphs(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def _evenly(texts: Sequence[str], room: int, *, ending: str) -> list[str]:
    """`texts` in at most `room` characters together: what the short ones leave of their share the long ones have."""
    share = room
    for nth, length in enumerate(sorted(map(len, texts))):
        share = room // (len(texts) - nth)
        if length > share:
            break
        room -= length
    return [markdown.fit(text, share, ending=ending) for text in texts]


# ----------------------------------------------------------------------------------------- comment


def _body(finding: Finding, anchor: Anchor, voice: Voice) -> str:
    parts = [
        f"{_BADGES[finding.severity]} **{finding.severity.capitalize()}: {_title(finding, voice)}**",
        markdown.block(finding.body, limit=_BODY, mask=voice.mask),
    ]
    # A forge applies a suggestion to the lines of the new file and to no others.
    if finding.suggestion is not None and anchor.side == "RIGHT":
        parts.append(markdown.suggestion(finding.suggestion, mask=voice.mask) or "")
    return "\n\n".join(part for part in parts if part)


def _title(finding: Finding, voice: Voice) -> str:
    return markdown.inline(finding.title, limit=_TITLE, mask=voice.mask) or finding.category


def _is_text(path: str) -> bool:
    """Whether a forge's JSON can carry the path: one that is not UTF-8 is held with lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in path)


# ----------------------------------------------------------------------------------------- summary


def _headline(report: Report, chosen: Selection) -> str:
    """The verdict, computed: the model has no word in it."""
    total = len(chosen.shown) + chosen.below
    ledger = report.ledger
    failed = _failed(ledger)
    if ledger.changed_lines == 0 and total == 0 and not failed:
        return "Nothing to review: no changed lines"
    if total == 0:
        if ledger.is_complete:
            return "No findings; every changed line was reviewed"
        if ledger.reviewed_lines == 0:
            return "Nothing was reviewed" if failed else "Nothing was reviewed: rules leave all of it out"
        by_rule = f"{counted(ledger.changed_lines - ledger.reviewed_lines, 'changed line')} left out by rule"
        return f"No findings in what was reviewed; {failed or by_rule}"
    worst = min((finding.severity for finding in chosen.shown), key=lambda severity: severity.rank, default=None)
    headline = counted(total, "finding")
    if worst is not None and total > 1:
        headline += f", the worst {worst}"
    elif worst is not None:
        headline += f", {worst}"
    return f"{headline}; {failed}" if failed else headline


def _failed(ledger: Ledger) -> str:
    """What was to be reviewed and was not, empty for nothing; what a rule leaves out is meant to be so."""
    rows = [row for row in ledger.not_reviewed if not row.is_by_rule]
    lines = sum(row.lines for row in rows)
    # Of a file that was too large to fetch nobody knows the lines.
    uncounted = sum(not row.lines for row in rows)
    parts = [counted(lines, "changed line")] if lines else []
    parts += [counted(uncounted, "whole file")] if uncounted else []
    return f"{' and '.join(parts)} could not be reviewed" if parts else ""


def _counts(chosen: Selection) -> str:
    """How many of each severity there are, and where; empty where the headline has said it."""
    by_severity = Counter(finding.severity for finding in chosen.shown)
    counts = " · ".join(
        f"{_BADGES[severity]} {by_severity[severity]} {severity}" for severity in Severity if by_severity[severity]
    )
    at_lines = len(chosen.inline)
    elsewhere = len(chosen.listed) + len(chosen.raised_before)
    if at_lines and elsewhere:
        return f"{counts}: {at_lines} at {'its line' if at_lines == 1 else 'their lines'}, {elsewhere} below"
    return counts if len(by_severity) > 1 else ""


def _section(title: str, findings: Iterable[Finding], voice: Voice, *, explains: bool = True) -> list[str]:
    rows = list(findings)
    if not rows:
        return []
    lines = [f"**{title}**", ""]
    for finding in rows[:_LISTED_FINDINGS]:
        where = finding.path if finding.anchor is None else f"{finding.anchor.path}:{finding.anchor.line}"
        said = markdown.inline(finding.body, limit=_ROW_BODY, mask=voice.mask) if explains else ""
        # A claim about no file at all has nothing to show there.
        place = markdown.code(where, mask=voice.mask)
        row = (_BADGES[finding.severity], place, f"**{_title(finding, voice)}**", said)
        lines.append(f"- {' '.join(part for part in row if part)}")
    if len(rows) > _LISTED_FINDINGS:
        lines.append(f"- {counted(len(rows) - _LISTED_FINDINGS, 'finding')} more, none of them worse")
    return ["\n".join(lines)]


def _marks(listed: Sequence[Finding], marking: Marking, *, room: int) -> list[str]:
    """Marks of as many findings as `room` characters take, with the paragraphs' ends: of the explained ones first."""
    names = [finding.fingerprint for finding in listed]
    explained = dict.fromkeys(names[:_LISTED_FINDINGS])
    counted_only = [name for name in dict.fromkeys(names[_LISTED_FINDINGS:]) if name not in explained]
    told = _mark(list(explained), marking, is_counted=False, room=room)
    room -= len(f"{told}\n\n") if told else 0
    return [told, _mark(counted_only, marking, is_counted=True, room=room)]


def _mark(names: Sequence[str], marking: Marking, *, is_counted: bool, room: int) -> str:
    def size(count: int) -> int:
        return len(f"{marking.write(names[:count], is_counted)}\n\n")

    count = bisect_right(range(1, len(names) + 1), room, key=size)
    return marking.write(names[:count], is_counted) if count else ""


def _gone(report: Report, chosen: Selection) -> str:
    """Said only where all was read: else it may stand in what was not. That it is repaired nobody has shown."""
    if not chosen.gone or _failed(report.ledger):
        return ""
    verb = "was" if chosen.gone == 1 else "were"
    return f"{counted(chosen.gone, 'finding')} raised on an earlier commit {verb} not found again."


def _row(row: NotReviewed, mask: Mask | None) -> str:
    path = markdown.inline(row.path, limit=200, mask=mask)
    return f"{path} ({markdown.inline(row.reason, limit=200, mask=mask)}, {row.lines:,})"


def _next_step(report: Report, chosen: Selection) -> str:
    said: list[str] = []
    if _failed(report.ledger):
        said.append("Have a person read what could not be reviewed.")
    if chosen.shown:
        said.append(
            "Check each finding before you act on it: it may be wrong. A new push is reviewed again; these comments are"
            " not repeated."
        )
    return " ".join(said)


def _footer(report: Report) -> str:
    parts = [markdown.code(report.model, limit=100) if report.model else "", f"{report.head[:12]}"]
    parts.append(_usage(report.usage))
    return "<sub>" + " · ".join(part for part in parts if part) + "</sub>"


def _usage(usage: Usage) -> str:
    if not usage.requests:
        return ""
    about = "about " if usage.is_estimated else ""
    cost = f" · {about}${usage.cost_usd:.4f}" if usage.cost_usd is not None else ""
    return (
        f"{counted(usage.requests, 'request')} · {about}{usage.input_tokens:,} input and"
        f" {usage.output_tokens:,} output tokens{cost}"
    )
