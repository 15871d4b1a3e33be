"""A JSON object of a caller, read so that no other reader of the same bytes could take it for another one."""

from __future__ import annotations

import json
import re
from typing import Any

from worker.core.errors import BadInput

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class _Twice(ValueError):
    """`args[0]` is the name that one object holds twice."""


def read_object(body: bytes) -> dict[str, Any]:
    """The object in `body`.

    Raises `BadInput`: not JSON in UTF-8, no object, nested too deeply, half a character, or a name twice.
    """
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_members, parse_constant=_refused)
        if _SURROGATE.search(body):
            # Half a surrogate pair is no character: it could be neither stored nor logged.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except _Twice as error:
        raise BadInput(f"The body holds the name {json.dumps(error.args[0][:80])} twice in one object.") from None
    except RecursionError:
        raise BadInput("The body is nested too deeply.") from None
    except ValueError:
        raise BadInput("The body is not JSON in UTF-8.") from None
    if not isinstance(value, dict):
        raise BadInput("The body is JSON, but not an object.")
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        # Two readers of one body could take two different values.
        if name in members:
            raise _Twice(name)
        members[name] = value
    return members


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
