"""Outline files in a process of their own: a grammar is C code fed by strangers, and may hang or die.

A raw string opened ninety thousand times keeps a grammar busy for minutes without a place to stop it; here the
process is ended, the file is read by the shapes of its lines instead, and the rest goes on.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

from worker.core.evidence.outline import Definition, Outline, guessed_outline, outline

_BATCH_S: Final = 10.0
_STARTS: Final = 3
_MEMORY_BYTES: Final = 1_500_000_000


def outline_apart(files: Mapping[str, bytes], *, limit_s: float = _BATCH_S) -> Mapping[str, Outline]:
    """Path → outline, for every file given. Takes at most a few times `limit_s` seconds."""
    pending = dict(files)
    found: dict[str, Outline] = {}
    for _ in range(_STARTS):
        if not pending:
            break
        for row in _child(pending, limit_s).split(b"\n")[:-1]:
            answer = json.loads(row)
            found[answer["path"]] = Outline(tuple(Definition(*fields) for fields in answer["definitions"]))
            del pending[answer["path"]]
        if pending:
            # The child answers in order, so the first without an answer is the one it could not finish.
            culprit = next(iter(pending))
            found[culprit] = guessed_outline(pending.pop(culprit))
    found.update((path, guessed_outline(source)) for path, source in pending.items())
    return found


def _child(files: Mapping[str, bytes], limit_s: float) -> bytes:
    """One JSON line for each file that was finished."""
    asked = "".join(
        json.dumps({"path": path, "source": base64.b64encode(source).decode("ascii")}) + "\n"
        for path, source in files.items()
    )
    try:
        done = subprocess.run(  # our own interpreter and module, nothing of a change in it
            [sys.executable, "-I", "-m", "worker.review.outlines"],
            input=asked.encode("ascii"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as ended:
        return ended.stdout or b""
    return done.stdout


def main() -> None:
    """The child: a JSON line in, a JSON line out, until the input ends."""
    import resource  # only the child may be limited

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for row in sys.stdin.buffer:
        asked = json.loads(row)
        found = outline(asked["path"], base64.b64decode(asked["source"]))
        fields = [(item.name, item.start, item.end, item.signature_end) for item in found.definitions]
        sys.stdout.write(json.dumps({"path": asked["path"], "definitions": fields}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
