"""How a person names a change on the command line: by its URL, or as `owner/name#7`."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from worker.core.change import ChangeRef
from worker.core.errors import BadInput
from worker.settings import Settings

_SHORT = re.compile(r"(?:(?P<forge>[a-z-]+):)?(?P<repository>[\w.-]+(?:/[\w.-]+)+)[#!](?P<number>[0-9]{1,10})")


def parse_change(text: str, settings: Settings) -> ChangeRef | None:
    """The change that a URL or `owner/name#7` names; None when it is neither. Raises `BadInput` for a foreign host."""
    if found := _SHORT.fullmatch(text):
        return ChangeRef(found["forge"] or "github", found["repository"], int(found["number"]))
    if "://" not in text:
        return None
    parts = urlsplit(text)
    if parts.hostname != urlsplit(settings.github_url).hostname:
        raise BadInput("That URL is of no configured forge. GITHUB_URL names the host of GitHub.")
    found = re.fullmatch(r"/([\w.-]+/[\w.-]+)/pull/([0-9]{1,10})(?:/.*)?", parts.path)
    if found is None:
        raise BadInput("That URL names no pull request. It ends in /owner/name/pull/7.")
    return ChangeRef("github", found[1], int(found[2]))
