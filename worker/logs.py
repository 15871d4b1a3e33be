"""The log: one line per event, console or JSON; our lines, Celery's and the server's in one form, redacted last.

A line is time, level, event, then fields. Whatever a stranger wrote is escaped before it is written, so
that no text can end a line early and forge the next one, or steer a terminal.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from worker.core.redaction import Redactor

Format = Literal["console", "json"]

# These say at info what our own lines say better, or repeat each request with its URL.
_QUIET = (
    "httpx",
    "httpcore",
    "git",
    "asyncio",
    "uvicorn.access",
    "uvicorn.error",
    "celery.apps.worker",
    "celery.worker.consumer.connection",
    "celery.worker.strategy",
    "celery.app.trace",
    # At debug these print the source of generated functions, and each step of putting a worker together.
    "celery.utils.functional",
    "celery.bootsteps",
)
_MICROSECONDS = re.compile(r".*\.\d{6}Z")
"""JSON keeps them; whoever reads along on a console does not miss them."""
# These bring handlers of their own, which would write the line a second time.
_OWN_HANDLERS = ("uvicorn", "uvicorn.error", "celery", "celery.task", "celery.worker")


def configure(
    format: Format = "console", level: str = "info", *, secrets: Iterable[str] = (), stream: TextIO | None = None
) -> None:
    """Send every log line of the process to `stream` (stderr when None) in `format`; `secrets` never appear in it."""
    redact = Redactor(secrets)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared[:2],
            *shared[3:],
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _values_redacted(redact),
            _as_json if format == "json" else _as_text,
            _line_redacted(redact),
        ],
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _OWN_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.captureWarnings(True)


def _values_redacted(redact: Redactor) -> Processor:
    """Before rendering, so that a mask over a private key's many lines leaves valid JSON."""

    def values(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {key: redact(value) if isinstance(value, str) else value for key, value in event.items()}

    return values


def _line_redacted(redact: Redactor) -> Processor:
    """Last, over the finished line: whatever came in nested, in an object's own text, or in a field's name."""

    def line(_logger: WrappedLogger, _method: str, line: Any) -> str:
        return redact(str(line))

    return line


def _as_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    head = {key: event.pop(key) for key in ("time", "level", "event") if key in event}
    # ASCII only: a reader's terminal then sees no control character, no U+2028 and no bidirectional mark.
    return json.dumps({**head, **event}, ensure_ascii=True, default=str)


def _as_text(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    time, level, name = (str(event.pop(key, "")) for key in ("time", "level", "event"))
    if _MICROSECONDS.fullmatch(time):
        time = f"{time[:-4]}Z"
    trace = event.pop("exception", None)
    fields = [f"{key}={_quoted(value)}" for key, value in event.items()]
    if trace:
        fields.append(f"exception={_quoted(trace)}")
    return " ".join([time, f"{level:<7}", escape(name), *fields])


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    escaped = escape(text)
    if escaped and escaped == text and not any(mark in ' "=' for mark in text):
        return text
    return '"' + escaped.replace('"', '\\"') + '"' if isinstance(value, str) else escaped


def escape(text: str) -> str:
    """`text` in one line without a character that steers: controls, separators and bidirectional marks as `\\x1b`."""
    if text.isascii() and text.isprintable():
        return text.replace("\\", "\\\\") if "\\" in text else text
    return "".join(
        "\\\\" if mark == "\\" else mark if mark.isprintable() else mark.encode("unicode_escape").decode()
        for mark in text
    )
