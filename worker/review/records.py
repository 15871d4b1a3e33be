"""What a job stores between attempts, as JSON bytes: one place for writing and reading each record.

The standard library writes the JSON: a path that is not UTF-8 is held with surrogate escapes, which it
keeps as `\\udcff` and pydantic's own writer refuses.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from worker.core.exchange import Answer
from worker.core.report import Report, Usage


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
        return _ANSWER.validate_python(json.loads(record))


UNIT = "unit:"
"""What the name of a chunk's checkpoint starts with; the chunk's id follows."""

VERDICTS = "verdicts:"
"""What the name of a second look's checkpoint starts with; the candidates' fingerprints follow."""

SUMMARY = "summary:"
"""What the name of a summary's checkpoint starts with; a hash of what it was asked about follows."""

PLANNED = "plan"
"""The checkpoint of what decides a plan besides the change and the settings: the model's token factor."""

REPORT = "report"
"""The checkpoint that holds the finished report."""


def dump_factor(factor: float) -> bytes:
    return json.dumps({"token_factor": factor}).encode()


def load_factor(record: bytes) -> float:
    return float(json.loads(record)["token_factor"])


def dump_report(report: Report) -> bytes:
    return _dump(_REPORT, report)


def load_report(record: bytes) -> Report:
    return _REPORT.validate_python(json.loads(record))


def _dump(adapter: TypeAdapter[Any], value: object) -> bytes:
    return json.dumps(adapter.dump_python(value), separators=(",", ":")).encode("ascii")


_ANSWER = TypeAdapter(SavedAnswer)
_REPORT = TypeAdapter(Report)
