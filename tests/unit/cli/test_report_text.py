"""What the terminal shows, and what it must not obey."""

from __future__ import annotations

import io
import json

from rich.console import Console

from worker.cli.report_text import show_plan, show_report
from worker.core.diff.model import FileDiff, Hunk
from worker.core.finding import Anchor, Finding, Severity
from worker.core.ledger import Ledger, NotReviewed
from worker.core.planning.plan import Chunk, ChunkFile, Plan, plan_as_json
from worker.core.report import Report
from worker.core.report_json import report_json
from worker.core.usage import Usage

ESCAPE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"
MARKUP = "[bold red]not markup[/] [link=http://evil.example]click[/link] :boom:"


def finding(**changes: object) -> Finding:
    values: dict[str, object] = {
        "path": "src/a.py",
        "anchor": Anchor("src/a.py", "RIGHT", 3, 5),
        "severity": Severity.HIGH,
        "category": "bug",
        "title": "The lock is never released",
        "body": "Two calls wait for ever.",
        "quote": "lock.acquire()",
        "fingerprint": "f" * 16,
    }
    return Finding(**values | changes)  # type: ignore[arg-type]  # fields by name


def report(*findings: Finding, **changes: object) -> Report:
    values: dict[str, object] = {
        "change": "main..topic",
        "head": "a" * 40,
        "base": "b" * 40,
        "model": "kimi-k2.6",
        "findings": findings,
        "unanchored": (),
        "ledger": Ledger(10, 8, (NotReviewed("yarn.lock", "lock file", 2),)),
        "usage": Usage(requests=2, input_tokens=1200, cached_tokens=200, output_tokens=300, cost_usd=0.0123),
    }
    return Report(**values | changes)  # type: ignore[arg-type]  # fields by name


def shown(value: Report, *, terminal: bool = False) -> str:
    out = io.StringIO()
    console = Console(
        file=out, width=100, markup=False, emoji=False, highlight=False, force_terminal=terminal, color_system=None
    )
    show_report(value, console, seconds=1.5)
    return out.getvalue()


def test_a_report_shows_place_words_ledger_and_cost() -> None:
    text = shown(report(finding()))
    for part in (
        "HIGH", "src/a.py:3-5", "The lock is never released", "8 of 10 changed lines reviewed", "yarn.lock",
        "lock file", "2 requests", "1,200 input tokens (200 cached)", "$0.0123", "1.5 s",
    ):  # fmt: skip
        assert part in text


def test_escapes_of_strangers_are_drawn_and_not_sent_to_the_terminal() -> None:
    hostile = finding(title=ESCAPE, body=ESCAPE, path=ESCAPE, anchor=None, category=ESCAPE, suggestion=ESCAPE)
    ledger = Ledger(1, 0, (NotReviewed(ESCAPE, ESCAPE, 1),))
    text = shown(report(hostile, change=ESCAPE, model=ESCAPE, notes=(ESCAPE,), ledger=ledger), terminal=True)
    for mark in "\x07\x9b\u202e":
        assert mark not in text
    assert "\x1b]" not in text
    assert "\x1b[2J" not in text


def test_markup_and_emoji_codes_of_strangers_stay_text() -> None:
    text = shown(report(finding(title=MARKUP, body=MARKUP)), terminal=True)
    assert "[bold red]not markup[/]" in text
    assert ":boom:" in text
    assert "\x1b]8;" not in text


def test_nothing_found_is_said_apart_from_nothing_reviewed() -> None:
    assert "No findings in the lines that were reviewed" in shown(report())
    nothing = shown(report(ledger=Ledger(4, 0, (NotReviewed("a", "the model did not answer", 4),))))
    assert "Nothing was reviewed" in nothing
    assert "No findings" not in nothing
    assert "Nothing to review" in shown(report(ledger=Ledger(0, 0)))


def test_the_stand_in_is_named_in_every_report() -> None:
    assert "no model" in shown(report(is_standin=True))


def test_a_plan_shows_chunks_and_what_is_left_out() -> None:
    hunk = Hunk(1, 0, 1, 2, b"", b"+a\n+b\n", 2, 0)
    file = ChunkFile("F1", FileDiff(None, b"a.py", "added", hunks=(hunk,)), (hunk,))
    out = io.StringIO()
    plan = Plan(262_144, 32_768, (Chunk("c0ffee", (file,), 900, 4096),), Ledger(5, 2, (NotReviewed("b.bin", "x", 3),)))
    show_plan(plan, Console(file=out, width=100))
    for part in ("c0ffee", "900", "a.py", "1 request", "262,144", "2 of 5 changed lines would be reviewed", "b.bin"):
        assert part in out.getvalue()


def test_the_json_has_the_members_that_scripts_rely_on() -> None:
    value = report_json(report(finding(), unanchored=(finding(anchor=None),)))
    assert set(value) >= {
        "version", "change", "head", "base", "model", "findings", "unanchored", "ledger", "usage", "complete",
    }  # fmt: skip
    assert set(value["findings"][0]) >= {
        "path", "side", "start_line", "line", "severity", "category", "title", "body", "suggestion", "confidence",
        "fingerprint",
    }  # fmt: skip
    ledger = value["ledger"]
    assert ledger["reviewed_lines"] + sum(row["lines"] for row in ledger["not_reviewed"]) == ledger["changed_lines"]
    assert set(value["usage"]) >= {"requests", "input_tokens", "cached_tokens", "output_tokens", "cost_usd"}
    assert value["unanchored"][0]["line"] is None
    assert value["complete"] is False


def test_a_path_that_is_not_utf_8_can_be_written_as_json() -> None:
    path = b"caf\xe9.py".decode("utf-8", "surrogateescape")
    value = json.dumps(report_json(report(finding(path=path, anchor=None))), ensure_ascii=False)
    value.encode("utf-8")
    assert "caf\\\\xe9.py" in value


def test_a_plan_that_names_a_path_which_is_not_utf_8_is_json_for_every_reader() -> None:
    hunk = Hunk(1, 0, 1, 2, b"", b"+a\n+b\n", 2, 0)
    file = ChunkFile("F1", FileDiff(None, b"caf\xe9.py", "added", hunks=(hunk,)), (hunk,))
    left_out = NotReviewed(b"\xff.bin".decode("utf-8", "surrogateescape"), "x", 3)
    plan = Plan(262_144, 32_768, (Chunk("c0ffee", (file,), 900, 4096),), Ledger(5, 2, (left_out,)))
    value = plan_as_json(plan)
    json.dumps(value, ensure_ascii=False).encode("utf-8")
    assert value["chunks"][0]["files"][0]["path"] == "caf\\xe9.py"
    assert value["ledger"]["not_reviewed"][0]["path"] == "\\xff.bin"
