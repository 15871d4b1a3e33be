"""What the program's end means to the shell."""

from __future__ import annotations

import pytest

from worker.core.errors import BadInput, ConfigurationError, NotFound
from worker.exits import Exit, told_clearly


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (ConfigurationError(["A: is wrong.", "B: is wrong."]), Exit.CONFIGURATION, 2),
        (BadInput("Say what to read."), Exit.USAGE, 1),
        (NotFound("There is no such job."), Exit.FAILED, 1),
        (KeyboardInterrupt(), 130, 0),
    ],
)
def test_an_end_is_a_code_and_a_line_for_each_problem(
    error: BaseException, code: int, lines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, told_clearly():
        raise error
    assert ended.value.code == code
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", lines)


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), told_clearly():
        raise ZeroDivisionError
