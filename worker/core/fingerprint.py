"""A finding's identity: what stays the same over re-runs, rebases and moved lines."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable

_IDENTIFIER = re.compile(r"[^\W\d]\w*(?:[.:]+[^\W\d]\w*)*")
# A word of prose changes with the model's mood; what looks like code does not.
_CODE_LIKE = re.compile(r"[_.:\d]|[a-z][A-Z]|^[A-Z]{2,}$")
_QUOTED = re.compile(r"[`'\"]([^`'\"\s]{1,80})[`'\"]")


def fingerprint(*, path: str, code: str, category: str, title: str) -> str:
    """16 hex digits over the path, the quoted code without white space, the category and the title's identifiers.

    The line is left out on purpose: it moves when anything above it changes. Identifiers are what stands
    in quotes or back-ticks and what is spelt like code (`snake_case`, `camelCase`, `a.b`, `SQL`).
    """
    parts = (path, "".join(code.split()), category.strip().casefold(), " ".join(sorted(_identifiers(title))))
    # Lengths keep ("ab", "c") and ("a", "bc") apart whatever the parts hold.
    material = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(material.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def told_apart(fingerprints: Iterable[str]) -> list[str]:
    """The fingerprints in order, `.2`, `.3` … behind one that came before: a file may hold the same fault twice."""
    seen: Counter[str] = Counter()
    names = []
    for one in fingerprints:
        seen[one] += 1
        names.append(one if seen[one] == 1 else f"{one}.{seen[one]}")
    return names


def _identifiers(title: str) -> set[str]:
    quoted = {name.rstrip("()") for name in _QUOTED.findall(title)}
    spelt = {name for name in _IDENTIFIER.findall(title) if _CODE_LIKE.search(name)}
    return {name for name in quoted | spelt if name}
