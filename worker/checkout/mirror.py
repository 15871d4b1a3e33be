"""A change's mirror: opened, fetched when it is, held while it is read, trimmed when it is closed."""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from worker.checkout.fetch import Fetch
from worker.checkout.folder import DamagedMirror, MirrorFolder, hold_shared, trim
from worker.checkout.limits import CheckoutLimits
from worker.checkout.process import Bounds, GitRunner
from worker.checkout.tree import ObjectTree
from worker.core.change import Change
from worker.core.egress import DIRECT, Egress
from worker.core.errors import NotFound, Superseded, Unprocessable, Unreachable
from worker.ports import Remote, Tree

_FULL_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")

# What git itself forbids in a ref (git-check-ref-format), so that a name with any of it is no ref's name.
_NOT_A_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)|\.$|/$")

log = structlog.get_logger()

_STEP = Bounds(total_s=120)


@dataclass(frozen=True, slots=True)
class MirrorCheckout:
    """`worker.ports.Checkout` over `folder` (`<home>/mirrors`)."""

    folder: Path
    limits: CheckoutLimits = field(default_factory=CheckoutLimits)
    egress: Egress = DIRECT
    """How fetches leave."""

    @asynccontextmanager
    async def open(self, change: Change, remote: Remote) -> AsyncIterator[Tree]:
        """Fetch base and head of `change` into the repository's mirror and hold it while the context lasts.

        Raises `Superseded` when the head is gone, `NotAuthorised`, `NotFound`, `WrongEndpoint`, `Unreachable`,
        `RateLimited`, `Unprocessable` when it is larger than the limits, `Transient` when the disk is full.
        """
        mirror = MirrorFolder(self.folder / folder_name(remote.url))
        cancelled = threading.Event()
        with hold_shared(mirror):
            fetch = Fetch(mirror, remote, self.limits, cancelled, self.egress)
            try:
                yield await asyncio.to_thread(_open, change, fetch)
            finally:
                # A thread cannot be cancelled; git in it can, and is ended at the next look at this.
                cancelled.set()
        await asyncio.to_thread(trim, self.folder, self.limits.mirrors_bytes)


def folder_name(url: str) -> str:
    """A directory name made of host and repository: readable letters for people, a digest for being unique."""
    parts = urlsplit(url)
    readable = re.sub(r"[^a-z0-9]+", "-", f"{parts.netloc}{parts.path}".lower()).strip("-")[:80]
    return f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:12]}.git"


def _open(change: Change, fetch: Fetch) -> ObjectTree:
    """`_prepare`, a second time where the mirror was damaged: by then it is new."""
    try:
        return _prepare(change, fetch)
    except DamagedMirror as damage:
        log.warning("mirror.made_anew", mirror=fetch.mirror.path.name, reason=str(damage))
        return _prepare(change, fetch)


def _prepare(change: Change, fetch: Fetch) -> ObjectTree:
    """Fetch commits and trees of both sides; find the merge base."""
    if not _FULL_SHA.fullmatch(change.head):
        raise NotFound(f"{change.ref} has no full head revision; ask the forge for the change first.")
    git = fetch.reader()
    number = int(change.ref.number)
    # The local names hold a number alone: branches `a` and `a/b` may follow one another on the far side.
    ours = {side: f"refs/review/{number}/{side}" for side in ("head", "base")}
    head_ref = fetch.remote.head_ref or f"refs/pull/{number}/head"
    base_ref = fetch.remote.base_ref or (f"refs/heads/{change.base_branch}" if change.base_branch else "")
    wanted = [f"+{_checked(head_ref)}:{ours['head']}"]
    if base_ref:
        wanted.append(f"+{_checked(base_ref)}:{ours['base']}")
    with fetch.exclusive() as descriptor:
        fetch.make_ready(descriptor)
        before = _resolve(git, ours["head"])
        try:
            fetch.commits(wanted, descriptor)
        except NotFound:
            # A base branch that was deleted (after a merge, say) may still have its commits.
            fetch.commits(wanted[:1], descriptor)
        tip = _resolve(git, ours["head"])
        if tip is None:
            # Or the server named something else; then a new mirror tells the same.
            raise fetch.damaged(f"the ref of {change.ref} names no commit.")
        for commit in (change.head, change.base):
            if _FULL_SHA.fullmatch(commit) and _resolve(git, commit) is None:
                fetch.commit_if_there(commit, descriptor)
        fetch.consolidate(descriptor)
    if tip == change.head and not _is_ancestor(git, tip, tip):
        raise fetch.damaged(f"its commit {tip[:12]} cannot be read.")
    _check_head(git, change, tip=tip, before=before)
    bases = [name for name in (ours["base"] if base_ref else "", change.base) if name and _resolve(git, name)]
    if not bases:
        raise NotFound(f"The base of {change.ref} is not in the repository any more.")
    return ObjectTree(git, change.head, _merge_base(git, bases, change), fetch.limits, supply=fetch)


def _check_head(git: GitRunner, change: Change, *, tip: str, before: str | None) -> None:
    """Whether the head is what the change's ref leads to. Raises `Superseded`, `Unreachable`."""
    is_here = _resolve(git, change.head) is not None
    if is_here and (_is_ancestor(git, change.head, tip) or _is_ancestor(git, tip, change.head)):
        # Reachable; or the ref follows the webhook late, as on forges with replicas.
        return
    if not is_here and tip == before:
        raise Unreachable(f"git does not show {change.head[:12]} of {change.ref} yet; its ref is still at {tip[:12]}.")
    raise Superseded(f"The head {change.head[:12]} of {change.ref} is gone; the ref is at {tip[:12]}.", by=tip)


def _merge_base(git: GitRunner, bases: list[str], change: Change) -> str:
    """Of the merge bases with the branch's tip and with the base the forge named, the one nearest to the head.

    The forge's base may be older than what the head has merged since; the tip of a branch that has taken the
    head in leaves nothing to show, so it does not count.
    """
    found: list[str] = []
    for base in bases:
        done = git.run(["merge-base", "--end-of-options", base, change.head], bounds=_STEP)
        if done.code == 0:
            found.append(done.output.decode("ascii").strip())
        elif done.code != 1:
            raise Unprocessable(f"git found no merge base for {change.ref}; the mirror lacks history.")
    if not found:
        # Unrelated histories: the forge shows the difference of the two trees, and so do we.
        return _resolve(git, bases[0]) or change.base
    nearest = found[0]
    for other in found[1:]:
        if nearest == change.head or (other != change.head and _is_ancestor(git, nearest, other)):
            nearest = other
    return nearest


def _checked(ref: str) -> str:
    """`ref` if it can be one: then it is a name and nothing else in a refspec. Raises `NotFound`."""
    if not ref.startswith("refs/") or _NOT_A_REF.search(ref):
        raise NotFound("The forge named a branch that git cannot have.")
    return ref


def _resolve(git: GitRunner, name: str) -> str | None:
    """The commit that `name` stands for, None when its object is not here."""
    command = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"]
    done = git.run(command, bounds=_STEP)
    return done.output.decode("ascii").strip() if done.code == 0 else None


def _is_ancestor(git: GitRunner, older: str, newer: str) -> bool:
    return git.run(["merge-base", "--is-ancestor", "--end-of-options", older, newer], bounds=_STEP).code == 0
