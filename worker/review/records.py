"""What a job stores between attempts, as JSON bytes: one place for writing and reading each record.

A newer program may add fields, which are passed over. What cannot be read at all raises `WrittenByNewer`.

The standard library writes the JSON: a path that is not UTF-8 is held with surrogate escapes, which it
keeps as `\\udcff` and pydantic's own writer refuses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from worker import __version__
from worker.core.errors import WrittenByNewer
from worker.core.exchange import Answer
from worker.core.model_info import Budget
from worker.core.report import Report
from worker.core.usage import Usage

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class SavedAnswer:
    """One chunk's answer under `unit:<chunk id>`, or the fact that the chunk was split."""

    text: str = ""
    model: str = ""
    usage: Usage = Usage()
    notes: tuple[str, ...] = ()
    was_split: bool = False

    @classmethod
    def of(cls, answer: Answer) -> SavedAnswer:
        return cls(text=answer.text, model=answer.model, usage=answer.usage, notes=answer.notes)

    @classmethod
    def split(cls) -> SavedAnswer:
        return cls(was_split=True)

    def as_inherited(self) -> SavedAnswer:
        """The same answer in another job, which did not pay for it."""
        return SavedAnswer(text=self.text, model=self.model, notes=self.notes, was_split=self.was_split)

    def answer(self) -> Answer:
        return Answer(text=self.text, model=self.model, usage=self.usage, notes=self.notes)

    def dump(self) -> bytes:
        return _dump(_ANSWER, self)

    @classmethod
    def load(cls, record: bytes) -> SavedAnswer:
        return _read(_ANSWER, record, "an answer")


UNIT = "unit:"
"""What the name of a chunk's checkpoint starts with; the chunk's id follows."""

VERDICTS = "verdicts:"
"""What the name of a second look's checkpoint starts with; the candidates' fingerprints follow."""

SUMMARY = "summary:"
"""What the name of a summary's checkpoint starts with; a hash of what it was asked about follows."""

PLANNED = "plan"
"""The checkpoint of what decides a plan besides the change and the settings: the token factor and the window."""

REPORT = "report"
"""The checkpoint that holds the finished report."""


def dump_budget(budget: Budget) -> bytes:
    """What was learned of the model; the rest of a budget is settings."""
    return json.dumps(
        {
            "token_factor": budget.token_factor,
            "window_tokens": budget.window_tokens,
            "output_tokens": budget.output_tokens,
        }
    ).encode()


def load_budget(record: bytes, budget: Budget) -> Budget:
    """`budget` as an earlier attempt planned with it. An older program wrote the factor alone."""
    held = _object(record, "the plan")
    try:
        return replace(
            budget,
            token_factor=float(held["token_factor"]),
            window_tokens=int(held.get("window_tokens", budget.window_tokens)),
            output_tokens=int(held.get("output_tokens", budget.output_tokens)),
        )
    except (LookupError, TypeError, ValueError) as error:
        raise _beyond_us("the plan") from error


def dump_report(report: Report) -> bytes:
    return _dump(_REPORT, report)


def load_report(record: bytes) -> Report:
    return _read(_REPORT, record, "the report")


def dump_posted(*, has_summary: bool, fingerprints: Iterable[str], over: bytes | None) -> bytes:
    """What the forge confirmed, in place of `over`, of which all stays that a newer program wrote besides."""
    said = {} if over is None else _object(over, "what was posted")
    said["summary"] = has_summary
    said["fingerprints"] = sorted(fingerprints)
    return json.dumps(said).encode()


def load_posted(record: bytes | None) -> tuple[bool, frozenset[str]]:
    """Whether the summary was confirmed, and the fingerprints of the comments that were."""
    if record is None:
        return False, frozenset()
    said = _object(record, "what was posted")
    try:
        return bool(said["summary"]), frozenset(map(str, said["fingerprints"]))
    except (LookupError, TypeError) as error:
        raise _beyond_us("what was posted") from error


def _object(record: bytes, what: str) -> dict[str, Any]:
    return _read(_OBJECT, record, what)


def _read(adapter: TypeAdapter[Read], record: bytes, what: str) -> Read:
    try:
        said = json.loads(record)
        return adapter.validate_python(said)
    except ValueError as error:
        raise _beyond_us(what) from error


def _beyond_us(what: str) -> WrittenByNewer:
    return WrittenByNewer(
        f"{what} in a checkpoint cannot be read by version {__version__}: a newer one wrote it, or it is damaged;"
        " upgrade the workers"
    )


def _dump(adapter: TypeAdapter[Any], value: object) -> bytes:
    return json.dumps(adapter.dump_python(value), separators=(",", ":")).encode("ascii")


_ANSWER = TypeAdapter(SavedAnswer)
_REPORT = TypeAdapter(Report)
_OBJECT = TypeAdapter(dict[str, Any])
