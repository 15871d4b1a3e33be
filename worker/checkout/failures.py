"""What a failed fetch means: git's words on stderr → our errors."""

from __future__ import annotations

import re
from collections.abc import Callable

from worker.core.errors import (
    NotAuthorised,
    NotFound,
    RateLimited,
    ReviewError,
    Transient,
    Unprocessable,
    Unreachable,
    WrongEndpoint,
)

_Make = Callable[[str], ReviewError]


class NotGivenOut(WrongEndpoint):
    """The server names refs alone: what a partial mirror lacks, and a commit that no ref leads to, cannot be had."""


# In order; the first that is found in git's errors (LC_ALL=C) decides. HTTP statuses are told by libcurl's
# sentence, and 401 by git's attempt to ask for a user name.
_MEANINGS: tuple[tuple[re.Pattern[str], _Make, str], ...] = (
    (
        re.compile(r"No space left on device|Disk quota exceeded"),
        Transient,
        "The disk is full. Free space where KIMI_REVIEW_HOME lies; what was half fetched has been removed.",
    ),
    (
        re.compile(r"Out of memory|out of memory"),
        Unprocessable,
        "git needed more memory than it is allowed for what the server sent.",
    ),
    (
        # git does not even ask where a server of protocol 0 has announced none of its uploadpack.allow…SHA1InWant:
        # https://git-scm.com/docs/protocol-capabilities#_allow_tip_sha1_in_want
        re.compile(r"unadvertised object"),
        NotGivenOut,
        "The server gives out no object by its id: it answers in git's protocol 0. Let the header Git-Protocol reach it"
        " through the proxy before it, for protocol 2, or set uploadpack.allowAnySHA1InWant=true there.",
    ),
    (
        re.compile(r"not our ref"),
        NotFound,
        "The revision is not there any more, or the server does not give it out.",
    ),
    (
        re.compile(r"returned error: 401|could not read Username|could not read Password|Authentication failed"),
        NotAuthorised,
        "The token was not accepted (401). Check that it is valid and may read the repository's contents.",
    ),
    (
        re.compile(r"returned error: 403"),
        NotAuthorised,
        "Access was refused (403). Check that the token may read the repository's contents.",
    ),
    (
        re.compile(r"returned error: 429"),
        RateLimited,
        "The forge limits how often it is read (429).",
    ),
    (
        re.compile(r"returned error: 404|repository '.*' not found"),
        NotFound,
        "The repository is not there, or the token may not see it (404).",
    ),
    (
        re.compile(r"couldn't find remote ref"),
        NotFound,
        "The server shows no ref of the change: it was removed, or the forge's URL leads to another server.",
    ),
    (
        re.compile(r"returned error: 4(10|51)"),
        NotFound,
        "The repository was removed or blocked by the forge (410, 451).",
    ),
    (
        re.compile(r"returned error: 407|tunnel failed, response 407|HTTP code 407 from proxy"),
        NotAuthorised,
        "The proxy asks for a name and a password (407). Put them into its address, in HTTPS_PROXY.",
    ),
    (
        re.compile(r"tunnel failed, response \d+|HTTP code \d+ from proxy"),
        Unreachable,
        "The proxy did not make a way. Check what it lets through.",
    ),
    (
        re.compile(r"returned error: 4\d\d"),
        WrongEndpoint,
        "The server does not understand git's requests (4xx). Check the forge's URL, and the proxy.",
    ),
    (
        re.compile(r"returned error: 3\d\d|unable to update url base from redirection"),
        WrongEndpoint,
        "The address redirects, and a token follows no redirect. Set the forge's URL to its final address.",
    ),
    (
        re.compile(r"[Cc]ertificate|SSL|TLS|gnutls|schannel"),
        WrongEndpoint,
        "The TLS connection was not trusted. Check the forge's URL; SSL_CERT_FILE names a private authority.",
    ),
    (
        re.compile(r"is this a git repository|invalid server response|transport '.*' not allowed"),
        WrongEndpoint,
        "What answered is not a git server. Check the forge's URL.",
    ),
    (
        re.compile(r"Could not resolve host|Could not resolve proxy"),
        Unreachable,
        "The host's name could not be resolved.",
    ),
    (
        re.compile(r"Failed to connect|Couldn't connect|Connection refused|Connection timed out"),
        Unreachable,
        "No connection could be made.",
    ),
    (
        re.compile(r"^fatal: remote error:", re.MULTILINE),
        Transient,
        "The server refused with words of its own; `git ls-remote` shows them.",
    ),
    (
        re.compile(
            r"returned error: 5\d\d|Empty reply|Recv failure|early EOF|RPC failed|unexpected disconnect|hung up"
            r"|Connection reset|unexpected flush|bad line length|invalid index-pack output|index-pack failed"
            r"|expected '|protocol error|bad pack header"
        ),
        Unreachable,
        "The connection broke before everything had come, or something between spoke in the server's place.",
    ),
)

# What git says of files of a repository that somebody cut off, emptied or removed: a full disk or a power cut, say.
_DAMAGE = re.compile(
    r"not a git repository: '|bad config |reference broken|unexpected line in|unable to resolve reference|inflate"
    r"|corrupt|object file .* is empty|invalid sha1 pointer|bad object|unable to read|bad index file|bad tree"
    r"|did not send all necessary objects|is too small|does not match index|non-monotonic"
)
_SENT = re.compile(r"index-pack|unpack-objects|pack has ")
"""The same words of a pack that has only come are the server's fault."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]+")


def fetch_failed(errors: str, *, what: str, secret: str | None = None, remark: str = "") -> ReviewError:
    """The error for a fetch that ended with `errors` on stderr. `what` names the remote, without a token.

    `remark` ends the sentence on what was not reached.
    """
    # What the server had git print could pass for git's own words.
    own = "\n".join(row for row in re.split(r"[\r\n]+", errors) if not row.startswith("remote:"))
    for pattern, make, sentence in _MEANINGS:
        if pattern.search(own):
            told = f"{sentence.removesuffix('.')}{remark}." if remark and make is Unreachable else sentence
            return make(f"git could not read {what}: {told}")
    return Transient(f"git could not read {what}: {last_words(errors, secret=secret)}")


def tells_damage(errors: str) -> bool:
    """Whether `errors` speak of a repository on this disk that can no longer be read."""
    return _DAMAGE.search(errors) is not None and _SENT.search(errors) is None


def last_words(errors: str, *, secret: str | None = None) -> str:
    """git's own last `fatal:` or `error:` line, short, without control characters and without `secret`.

    Lines a server sent (`remote: …`) are not repeated: they are a stranger's words.
    """
    own = [row for row in re.split(r"[\r\n]+", errors) if row.startswith(("fatal:", "error:"))]
    words = own[-1] if own else "it gave no reason"
    if secret:
        for part in (secret, secret.split()[-1]):
            words = words.replace(part, "***")
    return _CONTROLS.sub(" ", words)[:300]
