"""Bare partial mirrors, one per repository: fetched under a lock, read by many, swept and trimmed."""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from worker.checkout.failures import fetch_failed
from worker.checkout.limits import CheckoutLimits
from worker.checkout.process import Bounds, Cancelled, GitRunner, TimedOut
from worker.checkout.storage import MirrorFolder, hold_shared, trim
from worker.checkout.tree import ObjectTree
from worker.core.change import Change
from worker.core.errors import NotFound, Superseded, Unprocessable, Unreachable, WrongEndpoint
from worker.ports import Remote, Tree

_FULL_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")

# What git itself forbids in a ref (git-check-ref-format), so that a name with any of it is no ref's name.
_NOT_A_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)|\.$|/$")


@dataclass(frozen=True, slots=True)
class MirrorCheckout:
    """`worker.ports.Checkout` over `folder` (`<home>/mirrors`)."""

    folder: Path
    limits: CheckoutLimits = field(default_factory=CheckoutLimits)

    @asynccontextmanager
    async def open(self, change: Change, remote: Remote) -> AsyncIterator[Tree]:
        """Fetch base and head of `change` into the repository's mirror and hold it while the context lasts.

        Raises `Superseded` when the head is gone, `NotAuthorised`, `NotFound`, `WrongEndpoint`, `Unreachable`,
        `RateLimited`, `Unprocessable` when it is larger than the limits, `Transient` when the disk is full.
        """
        mirror = MirrorFolder(self.folder / folder_name(remote.url))
        cancelled = threading.Event()
        with hold_shared(mirror):
            fetch = _Fetch(mirror, remote, self.limits, cancelled)
            try:
                tree = await asyncio.to_thread(fetch.prepare, change)
                yield tree
            finally:
                # A thread cannot be cancelled; git in it can, and leaves at its next look at this.
                cancelled.set()
        await asyncio.to_thread(trim, self.folder, self.limits.mirrors_bytes)


def folder_name(url: str) -> str:
    """A directory name made of host and repository: readable letters for people, a digest for being unique."""
    parts = urlsplit(url)
    readable = re.sub(r"[^a-z0-9]+", "-", f"{parts.netloc}{parts.path}".lower()).strip("-")[:80]
    return f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:12]}.git"


@dataclass(frozen=True, slots=True)
class _Fetch:
    """Brings objects of one remote into one mirror."""

    mirror: MirrorFolder
    remote: Remote
    limits: CheckoutLimits
    cancelled: threading.Event

    def prepare(self, change: Change) -> ObjectTree:
        """Fetch commits and trees of both sides; find the merge base."""
        if not _FULL_SHA.fullmatch(change.head):
            raise NotFound(f"{change.ref} has no full head revision; ask the forge for the change first.")
        local = self._reader()
        with self.mirror.fetching(self.limits.lock_wait_s, self.cancelled):
            self.mirror.create(lambda arguments: self._writer().run(arguments, bounds=Bounds(total_s=60)))
            self.mirror.sweep()
            tip = self._fetch_refs(change, local)
            base = self._base(change, local)
        if not _reaches(local, change.head, tip):
            raise Superseded(f"The head {change.head[:12]} of {change.ref} is gone; the ref is at {tip[:12]}.", by=tip)
        return ObjectTree(local, change.head, self._merge_base(local, base, change), self.limits, supply=self)

    # ----------------------------------------------------------------------------- Supply's side

    def blobs(self, oids: Sequence[str]) -> None:
        """Fetch these blobs in one request, as git's own lazy fetch does, but with our header and bounds."""
        if not oids:
            return
        with self.mirror.fetching(self.limits.lock_wait_s, self.cancelled):
            self._fetch(["--filter=blob:none"], oids, negotiate=False)

    def snapshot_of(self, tree: str, *, blob_limit_bytes: int) -> None:
        found = self._reader().run(["rev-parse", "--verify", "--end-of-options", tree], bounds=Bounds(total_s=60))
        with self.mirror.fetching(self.limits.lock_wait_s, self.cancelled):
            oid = found.output.decode("ascii").strip()
            self._fetch([f"--filter=blob:limit={blob_limit_bytes}"], [oid], negotiate=False)

    # ------------------------------------------------------------------------------------ steps

    def _fetch_refs(self, change: Change, local: GitRunner) -> str:
        """Both refs in one fetch; the SHA that the head's ref has now."""
        head_ref = self.remote.head_ref or f"refs/pull/{change.ref.number}/head"
        base_ref = self.remote.base_ref or (f"refs/heads/{change.base_branch}" if change.base_branch else "")
        number = int(change.ref.number)
        wanted = [f"+{_checked(head_ref)}:refs/review/{number}/head"]
        # The local names hold a number alone: branches `a` and `a/b` may follow one another on the far side.
        if base_ref:
            wanted.append(f"+{_checked(base_ref)}:refs/review/{number}/base")
        else:
            wanted.append(change.base)
        self._fetch(["--filter=blob:none", "--force"], wanted)
        return _resolve(local, f"refs/review/{number}/head") or ""

    def _base(self, change: Change, local: GitRunner) -> str:
        """The base revision that the forge named where the mirror has it, else the base branch's tip."""
        if _FULL_SHA.fullmatch(change.base) and _resolve(local, change.base):
            return change.base
        tip = _resolve(local, f"refs/review/{int(change.ref.number)}/base")
        if tip is None:
            raise NotFound(f"The base of {change.ref} is not in the repository any more.")
        return tip

    def _merge_base(self, local: GitRunner, base: str, change: Change) -> str:
        done = local.run(["merge-base", "--end-of-options", base, change.head], bounds=Bounds(total_s=120))
        if done.code == 0:
            return done.output.decode("ascii").strip()
        if done.code == 1:
            # Unrelated histories: the forge shows the difference of the two trees, and so do we.
            return base
        raise Unprocessable(f"git found no merge base for {change.ref}; fetch it again or check the repository.")

    def _fetch(self, options: Sequence[str], wanted: Sequence[str], *, negotiate: bool = True) -> None:
        arguments = ["fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"]
        arguments += ["--no-auto-maintenance", *options, "--stdin", "--end-of-options", "origin"]
        before = self.mirror.size_bytes()

        def grows_within_limit() -> None:
            if self.mirror.size_bytes() - before > self.limits.fetch_bytes:
                raise Unprocessable(
                    f"{self._where} holds more than {self.limits.fetch_bytes:,} bytes to fetch for this change."
                )

        bounds = Bounds(self.limits.fetch_total_s, self.limits.fetch_idle_s, check=grows_within_limit)
        writer = self._writer()
        if not negotiate:
            # git would offer what it has and be spared what it lacks: the far side thinks a commit's blobs are here.
            writer = replace(writer, config=(*writer.config, ("fetch.negotiationAlgorithm", "noop")))
        try:
            done = writer.run(arguments, bounds=bounds, stdin="\n".join(wanted).encode() + b"\n")
        except TimedOut as error:
            self.mirror.sweep()
            raise Unreachable(f"git could not read {self._where}: {error}.") from error
        except (Unprocessable, Cancelled):
            self.mirror.sweep()
            raise
        if done.code != 0:
            self.mirror.sweep()
            raise fetch_failed(done.errors, what=self._where, secret=self.remote.authorization)

    @property
    def _where(self) -> str:
        parts = urlsplit(self.remote.url)
        return f"{parts.hostname}{parts.path}"

    def _reader(self) -> GitRunner:
        """Knows no remote, so that no read can turn into a fetch nobody bounded."""
        return GitRunner(self.mirror.path, cancelled=self.cancelled)

    def _writer(self) -> GitRunner:
        parts = urlsplit(self.remote.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise WrongEndpoint("A repository is read by http or https, from an address without user name.")
        secrets: tuple[tuple[str, str], ...] = ()
        if self.remote.authorization is not None:
            host = f"{parts.scheme}://{parts.netloc}/"
            secrets = ((f"http.{host}.extraHeader", f"Authorization: {self.remote.authorization}"),)
        config = (
            ("remote.origin.url", self.remote.url),
            # Said here and not in the mirror's file: a reader that knew of them would fetch by itself.
            ("remote.origin.promisor", "true"),
            ("remote.origin.partialCloneFilter", "blob:none"),
        )
        return GitRunner(self.mirror.path, "http:https", config, secrets, cancelled=self.cancelled)


def _checked(ref: str) -> str:
    """`ref` if it can be one: then it is a name and nothing else in a refspec. Raises `NotFound`."""
    if not ref.startswith("refs/") or _NOT_A_REF.search(ref):
        raise NotFound("The forge named a branch that git cannot have.")
    return ref


def _resolve(git: GitRunner, name: str) -> str | None:
    """The commit that `name` stands for, None when its object is not here."""
    command = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"]
    done = git.run(command, bounds=Bounds(total_s=60))
    return done.output.decode("ascii").strip() if done.code == 0 else None


def _reaches(git: GitRunner, commit: str, tip: str) -> bool:
    """Whether `commit` is `tip` or one of its ancestors."""
    if commit == tip:
        return True
    if _resolve(git, commit) is None:
        return False
    return git.run(["merge-base", "--is-ancestor", commit, tip], bounds=Bounds(total_s=120)).code == 0
