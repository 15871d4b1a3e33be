"""What the program's end means to the shell, and how an error becomes one clear line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from worker.core.errors import BadInput, ConfigurationError, ReviewError
from worker.core.redaction import Redactor
from worker.logs import escape


class Exit(IntEnum):
    """The exit codes that scripts rely on."""

    DONE = 0
    FINDINGS = 1
    """Findings at or above --fail-on."""
    USAGE = 2
    INCOMPLETE = 3
    """Not everything was reviewed."""
    FAILED = 4
    """Provider, forge or store failed."""
    CONFIGURATION = 78
    """EX_CONFIG of sysexits.h."""


INTERRUPTED = 130
"""As a shell counts an end by Ctrl-C: 128 and the signal's number."""


@contextmanager
def told_clearly() -> Iterator[None]:
    """Turn our own errors into lines on stderr and an exit code; a fault of ours keeps its traceback."""
    try:
        yield
    except ConfigurationError as error:
        for problem in error.problems:
            complain(problem)
        sys.exit(Exit.CONFIGURATION)
    except BadInput as error:
        complain(str(error))
        sys.exit(Exit.USAGE)
    except ReviewError as error:
        complain(str(error) or type(error).__name__)
        sys.exit(Exit.FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def complain(problem: str) -> None:
    """One line on stderr; what a server wrote into it is escaped, what looks like a key is masked."""
    print(f"kimi-review: {escape(Redactor()(problem))}", file=sys.stderr)
