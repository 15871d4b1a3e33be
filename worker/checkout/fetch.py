"""Bringing objects of one remote into its mirror, within bounds and under the mirror's lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import count
from math import ceil
from urllib.parse import urlsplit

from worker.checkout.failures import NotGivenOut, fetch_failed, last_words, tells_damage
from worker.checkout.folder import DamagedMirror, MirrorFolder
from worker.checkout.limits import CheckoutLimits
from worker.checkout.process import Bounds, Cancelled, GitRunner, TimedOut
from worker.core.egress import DIRECT, Egress
from worker.core.errors import NotFound, Transient, Unprocessable, Unreachable, WrongEndpoint
from worker.patience import wait_s_after
from worker.ports import Remote


@dataclass(frozen=True, slots=True)
class Fetch:
    """Partial fetches: commits and trees of everything, blobs only where they are asked for."""

    mirror: MirrorFolder
    remote: Remote
    limits: CheckoutLimits
    cancelled: threading.Event
    egress: Egress = DIRECT

    def reader(self) -> GitRunner:
        """git in the mirror without a remote, so that no read can turn into a fetch that nobody bounded."""
        return GitRunner(self.mirror.path, cancelled=self.cancelled)

    def exclusive(self) -> AbstractContextManager[int]:
        """The mirror's fetch lock. Raises `Transient` when another worker keeps it too long."""
        return self.mirror.fetching(self.limits.lock_wait_s, self.cancelled)

    def make_ready(self, lock: int) -> None:
        """Make the mirror if there is none; remove what a killed fetch left in it."""
        runner = replace(self.reader(), held=(lock,))
        self.mirror.create(lambda arguments: runner.run(arguments, bounds=Bounds(total_s=60)))
        self.mirror.sweep()

    def commits(self, wanted: Sequence[str], lock: int) -> None:
        """Fetch refspecs or commits with their history and trees, without blobs."""
        self._fetch(["--filter=blob:none", "--force"], wanted, lock, self.limits.fetch_bytes)

    def commit_if_there(self, commit: str, lock: int) -> None:
        """Fetch one commit that no ref of ours led to. Forges give any commit they still have; not all do."""
        try:
            self.commits([commit], lock)
        except (NotFound, NotGivenOut):
            # Its absence is the answer; the caller looks for it.
            return

    def consolidate(self, lock: int) -> None:
        """Make one pack of many. Readers go on: git looks again when a pack it knew is gone."""
        if self.mirror.packs() <= self.limits.packs:
            return
        runner = replace(self._writer(), held=(lock,), protocols="none")
        bounds = Bounds(total_s=self.limits.fetch_total_s)
        done = runner.run(["repack", "-a", "-d", "--quiet", "--no-write-bitmap-index"], bounds=bounds)
        if done.code != 0:
            self.mirror.sweep()
            raise Transient(f"The mirror {self.mirror.path.name} could not be repacked: {last_words(done.errors)}")

    def blobs(self, oids: Sequence[str]) -> None:
        """Fetch these blobs in one request, as git's own lazy fetch does, but with our header and bounds.

        Raises `Unprocessable` when together they exceed `limits.blobs_bytes`.
        """
        if oids:
            with self.exclusive() as lock:
                self._fetch(["--filter=blob:none"], oids, lock, self.limits.blobs_bytes, negotiates=False)

    def below(self, tree: str, *, blob_limit_bytes: int, limit_bytes: int) -> None:
        """Fetch the blobs below a tree (by object id) that are smaller than `blob_limit_bytes`.

        Raises `Unprocessable` when together they exceed `limit_bytes`.
        """
        with self.exclusive() as lock:
            # The tree is here already, so git would see nothing to do; --refetch asks for it as if it were not.
            options = ["--refetch", f"--filter=blob:limit={blob_limit_bytes}"]
            self._fetch(options, [tree], lock, limit_bytes, negotiates=False)

    def damaged(self, reason: str) -> DamagedMirror:
        """The error to raise where the mirror turns out to be unreadable; the next opening makes it anew."""
        self.mirror.doubt()
        return DamagedMirror(
            f"The mirror {self.mirror.path.name} is damaged, and made anew at the next attempt: {reason}"
        )

    def known_large(self) -> set[str]:
        try:
            return set(self.mirror.large_blobs.read_text("ascii").split())
        except FileNotFoundError:
            return set()

    def note_large(self, oids: Sequence[str]) -> None:
        with self.exclusive(), self.mirror.large_blobs.open("a", encoding="ascii") as file:
            file.writelines(f"{oid}\n" for oid in oids)

    def _fetch(
        self, options: Sequence[str], wanted: Sequence[str], lock: int, limit_bytes: int, *, negotiates: bool = True
    ) -> None:
        """One fetch, made again while the other side stumbles: it is as safe as it was the first time."""
        began = time.monotonic()
        for attempt in count(1):
            try:
                return self._fetch_once(options, wanted, lock, limit_bytes, negotiates=negotiates)
            except Unreachable as error:
                elapsed_s = time.monotonic() - began
                wait_s = wait_s_after(
                    error,
                    self.limits.fetch_again,
                    attempt=attempt,
                    elapsed_s=elapsed_s,
                    what="git fetch",
                    remote=self._where,
                )
                if wait_s is None:
                    raise
            if self.cancelled.wait(wait_s):
                raise Cancelled("nobody waits for the fetch any more")

    def _fetch_once(
        self, options: Sequence[str], wanted: Sequence[str], lock: int, limit_bytes: int, *, negotiates: bool
    ) -> None:
        arguments = ["fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"]
        arguments += ["--no-auto-maintenance", *options, "--stdin", "--end-of-options", "origin"]
        before = self.mirror.size_bytes()

        def grows_within_limit() -> None:
            if self.mirror.size_bytes() - before > limit_bytes:
                raise Unprocessable(
                    f"{self._where} would have more than {limit_bytes:,} bytes fetched for this change."
                )

        bounds = Bounds(self.limits.fetch_total_s, self.limits.fetch_idle_s, check=grows_within_limit)
        runner = replace(self._writer(), held=(lock,))
        if not negotiates:
            # git would offer the commits it has and be spared their blobs: the far side thinks they are here.
            runner = replace(runner, config=(*runner.config, ("fetch.negotiationAlgorithm", "noop")))
        is_done = False
        try:
            done = runner.run(arguments, bounds=bounds, stdin="\n".join(wanted).encode() + b"\n")
            is_done = done.code == 0
        except TimedOut as error:
            raise Unreachable(f"git could not read {self._where}: {error}{self._remark}.") from error
        finally:
            if not is_done:
                self.mirror.sweep()
        if not is_done:
            if tells_damage(done.errors):
                raise self.damaged(last_words(done.errors, secret=self.remote.authorization))
            raise fetch_failed(done.errors, what=self._where, secret=self.remote.authorization, remark=self._remark)

    @property
    def _remark(self) -> str:
        return self.egress.remark(self.remote.url)

    @property
    def _where(self) -> str:
        parts = urlsplit(self.remote.url)
        return f"{parts.hostname}{parts.path}"

    def _writer(self) -> GitRunner:
        parts = urlsplit(self.remote.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise WrongEndpoint("A repository is read by http or https, from an address without user name.")
        secrets: tuple[tuple[str, str], ...] = ()
        if self.remote.authorization is not None:
            host = f"{parts.scheme}://{parts.netloc}/"
            secrets = ((f"http.{host}.extraHeader", f"Authorization: {self.remote.authorization}"),)
        if (proxy := self.egress.proxy_for(self.remote.url)) is not None:
            # Its address may hold a login, so it is no argument that the machine's other users could read.
            secrets = (*secrets, ("http.proxy", proxy.url))
        config = (
            ("remote.origin.url", self.remote.url),
            # Said here and not in the mirror's file: a reader that knew of them would fetch by itself.
            ("remote.origin.promisor", "true"),
            ("remote.origin.partialCloneFilter", "blob:none"),
            # A fetch whose worker was killed would hold the mirror's lock for as long as the other side is silent.
            ("http.lowSpeedLimit", "1"),
            ("http.lowSpeedTime", str(2 * ceil(self.limits.fetch_idle_s))),
        )
        return GitRunner(self.mirror.path, "http:https", config, secrets, cancelled=self.cancelled)
