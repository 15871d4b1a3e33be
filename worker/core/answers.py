"""What a model answered → claims, verdicts, a summary, with their types checked.

Models are asked for one bare JSON object; what they send is in `salvage`'s hands. Reading saves every
complete item, invents none, raises nothing, and takes time linear in the answer's length.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from worker.core.finding import CATEGORIES, Claim, Severity
from worker.core.salvage import Item, read_items, read_string, without_thinking

VerdictWord = Literal["confirmed", "refuted", "unclear"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the second look says about one candidate. `candidate` is its short id in the request ("C1")."""

    candidate: str
    verdict: VerdictWord
    evidence: str


@dataclass(frozen=True, slots=True)
class ReadFindings:
    """What an answer of kind `findings` holds."""

    claims: tuple[Claim, ...]
    problems: tuple[str, ...] = ()
    """What was lost or corrected, in words."""
    is_whole: bool = True
    """False when nothing usable was found: ask once more. `{"findings": []}` is whole, and empty."""
    is_cut: bool = False
    """True when the list of findings has no end: what came before the cut is in `claims`."""


@dataclass(frozen=True, slots=True)
class ReadVerdicts:
    """What an answer of kind `verdicts` holds; the flags mean what they mean in `ReadFindings`."""

    verdicts: tuple[Verdict, ...]
    problems: tuple[str, ...] = ()
    is_whole: bool = True
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class ReadSummary:
    """What an answer of kind `summary` holds; `is_whole` is False when `summary` is empty."""

    summary: str
    problems: tuple[str, ...] = ()
    is_whole: bool = True


_FINDING_KEYS = (
    "file",
    "line",
    "end_line",
    "quote",
    "severity",
    "category",
    "title",
    "body",
    "suggestion",
    "confidence",
)
_VERDICT_KEYS = ("candidate", "verdict", "evidence")
_TITLE_LIMIT, _TEXT_LIMIT, _NAME_LIMIT = 300, 20_000, 1_000
_LARGEST_LINE = 2**31 - 1

# Words of other tools for the same four ranks. What is not here is low: severity is never inflated.
_SEVERITIES = {
    **{severity.value: severity for severity in Severity},
    "blocker": Severity.CRITICAL,
    "major": Severity.HIGH,
    "error": Severity.HIGH,
    "moderate": Severity.MEDIUM,
    "warning": Severity.MEDIUM,
}
_LINE_TEXT = re.compile(r"\s*[LlRr]?(\d{1,10})(?:\s*(?:-|–|\.\.|:|to|,)\s*[LlRr]?(\d{1,10}))?\s*")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_FENCE = re.compile(r"```[\w-]*")
_FIRST_SENTENCE = re.compile(r".+?(?:[.!?](?=\s|$)|$)")


def read_findings(text: str) -> ReadFindings:
    """Read an answer of kind `findings`.

    Corrected: `"12"` is line 12, `"12-14"` and `[12, 14]` are a range, what cannot be a line's number is
    None; severity in any case or a usual synonym, anything else is low; a category that is not in
    `CATEGORIES` is "other"; a missing title is the body's first sentence. An item that has neither
    title nor body is no finding. Equal items count once.
    """
    found = read_items(text, "findings", keys=_FINDING_KEYS, is_item=_is_finding)
    claims: dict[Claim, None] = {}
    problems = found.problems
    for item in found.items:
        claim = _claim(item)
        if claim is None:
            problems.append("an item that has neither a title nor a body was left out")
        else:
            claims[claim] = None
    if not found.is_found:
        problems.append('the answer holds no "findings"')
    is_whole = bool(claims) or (found.is_found and not found.is_cut)
    return ReadFindings(tuple(claims), _said(problems), is_whole, found.is_cut)


def read_verdicts(text: str) -> ReadVerdicts:
    """Read an answer of kind `verdicts`; a word that is none of the three, or two of them, is "unclear"."""
    found = read_items(text, "verdicts", keys=_VERDICT_KEYS, is_item=_is_verdict)
    verdicts: dict[str, Verdict] = {}
    problems = found.problems
    for item in found.items:
        candidate = _short_id(item.get("candidate"), "C")
        if not candidate:
            problems.append("a verdict that names no candidate was left out")
            continue
        verdict = Verdict(candidate, _verdict_word(item.get("verdict")), _text(item.get("evidence"), _TEXT_LIMIT))
        first = verdicts.setdefault(candidate, verdict)
        if first.verdict != verdict.verdict:
            problems.append("a candidate has several verdicts; it counts as unclear")
            verdicts[candidate] = Verdict(candidate, "unclear", first.evidence)
    if not found.is_found:
        problems.append('the answer holds no "verdicts"')
    is_whole = bool(verdicts) or (found.is_found and not found.is_cut)
    return ReadVerdicts(tuple(verdicts.values()), _said(problems), is_whole, found.is_cut)


def read_summary(text: str) -> ReadSummary:
    """Read an answer of kind `summary`; prose without any JSON is taken as it is."""
    member = read_string(text, "summary")
    if member is not None:
        summary = _text(member, _TEXT_LIMIT)
        return ReadSummary(summary, () if summary else ("the summary is empty",), bool(summary))
    prose = _text(_FENCE.sub("", without_thinking(text)), _TEXT_LIMIT)
    if not prose or prose.startswith(("{", "[")):
        return ReadSummary("", ("the answer holds no summary",), False)
    return ReadSummary(prose, ("the summary came as plain text",))


def _is_finding(item: Item) -> bool:
    says = bool(_text(item.get("title"), 10) or _text(item.get("body"), 10))
    return says and any(key in item for key in ("file", "line", "quote"))


def _is_verdict(item: Item) -> bool:
    return "candidate" in item and "verdict" in item


def _claim(item: Item) -> Claim | None:
    title, body = _one_line(item.get("title"), _TITLE_LIMIT), _text(item.get("body"), _TEXT_LIMIT)
    if not title:
        sentence = _FIRST_SENTENCE.match(body)
        title = _one_line(sentence[0], _TITLE_LIMIT) if sentence else ""
    if not title:
        return None
    line, end_line = _lines(item.get("line"))
    end_line = _lines(item.get("end_line"))[0] or end_line
    if line is None or (end_line is not None and end_line < line):
        end_line = None
    category = _one_line(item.get("category"), _NAME_LIMIT).casefold().replace("_", "-").replace(" ", "-")
    suggestion = _text(item.get("suggestion"), _TEXT_LIMIT, strip=False)
    return Claim(
        file=_short_id(item.get("file"), "F"),
        line=line,
        end_line=end_line,
        quote=_text(item.get("quote"), _TEXT_LIMIT, strip=False),
        severity=_SEVERITIES.get(_one_line(item.get("severity"), _NAME_LIMIT).casefold(), Severity.LOW),
        category=category if category in CATEGORIES else "other",
        title=title,
        body=body,
        suggestion=suggestion if suggestion.strip() else None,
        confidence=_confidence(item.get("confidence")),
    )


def _verdict_word(value: object) -> VerdictWord:
    word = _one_line(value, _NAME_LIMIT).casefold()
    return "confirmed" if word == "confirmed" else "refuted" if word == "refuted" else "unclear"


def _short_id(value: object, letter: str) -> str:
    """ "F3" for "F3" and for the bare number 3."""
    name = _one_line(value, _NAME_LIMIT)
    return f"{letter}{name}" if isinstance(value, int) and name.isdecimal() else name


def _lines(value: object) -> tuple[int | None, int | None]:
    """First and last line that `value` names; both None when it names none."""
    if isinstance(value, list) and value:
        return _lines(value[0])[0], _lines(value[-1])[0]
    if isinstance(value, str):
        spelt = _LINE_TEXT.fullmatch(value[:64])
        if spelt is None:
            return None, None
        return _line(int(spelt[1])), _line(int(spelt[2])) if spelt[2] else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None, None
    return (_line(int(value)) if value == int(value) else None), None


def _line(number: int) -> int | None:
    return number if 1 <= number <= _LARGEST_LINE else None


def _confidence(value: object) -> float | None:
    """Between 0 and 1; None for anything else, a per cent figure included: nobody says which it is."""
    if isinstance(value, str):
        try:
            value = float(value[:32])
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= 1 else None


def _text(value: object, limit: int, *, strip: bool = True) -> str:
    """Text that can be stored and shown: no control characters but tab and line feed, no lone surrogates."""
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        value = "\n".join(value)
    if not isinstance(value, str):
        return ""
    text = value[:limit].replace("\r\n", "\n")
    if _SURROGATE.search(text):
        # Two escapes may have come as the two halves of one character.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    text = _CONTROL.sub("", text)
    return text.strip() if strip else text


def _one_line(value: object, limit: int) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST_LINE:
        value = str(value)
    return " ".join(_text(value, limit).split())


def _said(problems: Iterable[str]) -> tuple[str, ...]:
    """Each problem once, with how often it came."""
    return tuple(text if times == 1 else f"{text} ({times} times)" for text, times in Counter(problems).items())
