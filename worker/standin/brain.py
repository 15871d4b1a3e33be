"""What the stand-in answers to each kind of request: deterministic, and always with the word that it is no model."""

from __future__ import annotations

import json

from worker.core.exchange import Kind
from worker.standin.checks import faults_in
from worker.standin.exchange import Question, read

DISCLAIMER = "Found by the stand-in, a fixed list of patterns; it is no model."


def answer(user: str, *, kind: str = "") -> str:
    """The JSON text for one user's message. `kind` (from the schema's name) wins over the message's own mark."""
    question = read(user)
    match kind or question.kind:
        case Kind.FINDINGS:
            return _json({"findings": findings(question)})
        case Kind.VERDICTS:
            return _json({"verdicts": verdicts(question)})
        case Kind.SUMMARY:
            return _json({"summary": summary()})
        case other:
            return _json({"answer": f"This is the stand-in, which is no model; it knows no request of kind {other!r}."})


def findings(question: Question) -> list[dict[str, object]]:
    """One finding for each check that an added line fails, in the order of the lines."""
    return [
        {
            "file": file.id,
            "line": line.number,
            "end_line": line.number,
            "quote": line.text,
            "severity": check.severity,
            "category": check.category,
            "title": check.title,
            "body": f"{check.body} {DISCLAIMER}",
            "confidence": 0.5,
        }
        for file in question.files
        for line in file.lines
        if line.sign == "+"
        for check in faults_in(line.text, path=file.path)
    ]


def verdicts(question: Question) -> list[dict[str, object]]:
    return [
        {
            "candidate": candidate,
            "verdict": "confirmed",
            "evidence": "The stand-in is no model and refutes nothing: the line has the shape it looks for.",
        }
        for candidate in question.candidates
    ]


def summary() -> str:
    return "nobody knows: the stand-in is no model and cannot tell. Set API_OPEN_AI_API_KEY to have Kimi read it."


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
