"""A storm: real deliveries, workers, git, forge and model while everything is killed, paused and lied to.

What is thrown at whom is drawn from a seed. The times at which processes get to run are not, so a seed repeats the
plan of a storm and not each interleaving.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import httpx
import redis

from tests.chaos.fleet import Member, role, worker
from tests.chaos.purchases import Account, Blow, purchases_of, settle
from tests.fakes.github import TOKEN, GitHubServer
from tests.fakes.github import Fault as ForgeFault
from tests.fakes.kimi import KEY, KimiServer, overloaded
from tests.fakes.kimi import Fault as ModelFault
from worker.core.errors import ReviewError
from worker.core.job import Decision, Job, State
from worker.core.retry import JOB_RULE
from worker.storage.connection import connect
from worker.storage.embedded import EmbeddedRedis, start
from worker.storage.jobs import LEASE_S, RedisJobs

SECRET = "a-webhook-secret-of-the-storm"
TAKEOVER_S = 30.0
RARE = 20
"""Changes without a review, at the end of a storm, that a person would look after."""
LINES = 40


@dataclass(frozen=True, slots=True)
class Plan:
    """How large the storm is. `push_share` of the changes get one to four more heads."""

    seed: int
    changes: int
    workers: int = 3
    threads: int = 4
    push_share: float = 0.25
    redelivery_share: float = 0.2
    blow_every_s: float = 2.0
    settle_s: float = 0.5
    lease_s: float | None = None
    """None: as shipped."""
    limit_s: float = 900.0
    """The storm is over when all is reviewed, or has failed after so long."""


@dataclass
class Outcome:
    """What was seen afterwards. Everything in `wrong` is a broken promise, in words."""

    seed: int
    took_s: float = 0.0
    delivered_s: float = 0.0
    changes: int = 0
    heads: int = 0
    reviews: int = 0
    blows: Counter[str] = field(default_factory=Counter)
    forge_faults: int = 0
    dead: int = 0
    """Jobs that were killed three times, told on their changes, and retried by hand."""
    account: Account = field(default_factory=Account)
    takeovers_s: list[float] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def text(self) -> str:
        slowest = max(self.takeovers_s, default=0.0)
        middle = median(self.takeovers_s) if self.takeovers_s else 0.0
        return "\n".join(
            [
                f"seed {self.seed}: {self.changes} changes, {self.heads} heads, {self.reviews} reviews"
                f" in {self.took_s:.0f} s (all delivered after {self.delivered_s:.0f} s);",
                f"{sum(self.blows.values())} blows {dict(self.blows)}, {self.forge_faults} forge faults",
                f"jobs by state {dict(self.states)}; {self.dead} killed three times, told and retried by hand",
                f"model requests {self.account.bought}, at most {self.account.bound} allowed:"
                f" {self.account.units} units, {self.account.failed} failed by script,"
                f" {self.account.interrupted} in flight at a blow",
                f"takeovers {len(self.takeovers_s)}, slowest {slowest:.1f} s, median {middle:.1f} s",
                *(self.wrong or ["nothing lost, nothing twice, nothing on a wrong head"]),
            ]
        )


class Storm:
    """One run in `folder`. Use `rage`."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.dice = random.Random(plan.seed)
        self.forge_dice = random.Random(plan.seed + 1)
        self.outcome = Outcome(plan.seed)
        self.members: list[Member] = []
        self._calm = threading.Event()
        self._blows: list[Blow] = []
        self._posts_lost: Counter[str] = Counter()

    def rage(self) -> Outcome:
        """Let the storm pass and look at what it left."""
        began = time.monotonic()
        with ExitStack() as opened:
            server = opened.enter_context(start(self.folder / "home"))
            github = opened.enter_context(GitHubServer(self.folder / "github"))
            kimi = opened.enter_context(KimiServer(default=ModelFault(first_byte_delay_s=1.5)))
            github.chance = self._forge_fault
            opened.enter_context(self._fleet(server, github, kimi))
            changes = self._open_changes(github)
            monkey = threading.Thread(target=self._blow, args=(server, kimi), name="monkey")
            monkey.start()
            try:
                self._deliver(github, changes)
                self.outcome.delivered_s = time.monotonic() - began
                self._await_all(server, github)
            finally:
                self._calm.set()
                monkey.join()
            self.outcome.took_s = time.monotonic() - began
            asyncio.run(self._look(server, github, kimi))
        return self.outcome

    # ------------------------------------------------------------------------------------ the scene

    @contextmanager
    def _fleet(self, server: EmbeddedRedis, github: GitHubServer, kimi: KimiServer) -> Iterator[None]:
        environment = {
            "REDIS_URL": server.url,
            "KIMI_REVIEW_HOME": str(self.folder / "state"),
            "API_LLM_PROVIDER_MODEL": "kimi-k2.6",
            "API_OPENAI_FORCE_BASE_URL": kimi.base_url,
            "API_OPEN_AI_API_KEY": KEY,
            "GITHUB_TOKEN": TOKEN,
            "GITHUB_WEBHOOK_SECRET": SECRET,
            "GITHUB_API_URL": github.api_url,
            "GITHUB_URL": github.git_url,
            "REVIEW_SETTLE_S": str(self.plan.settle_s),
            "WORKER_THREADS": str(self.plan.threads),
            "LOG_FORMAT": "json",
            "PYTHONPATH": os.getcwd(),  # noqa: PTH109 - the tests' own fakes are found from where they are started
        }
        if self.plan.lease_s is not None:
            environment["JOB_LEASE_S"] = str(self.plan.lease_s)
        logs = self.folder / "logs"
        logs.mkdir()
        port = free_port()
        self.webhook_url = f"http://127.0.0.1:{port}/webhooks/github"
        self.members = [worker(n, folder=logs, environment=environment) for n in range(self.plan.workers)]
        self.members.append(role("api", "--port", str(port), folder=logs, environment=environment))
        self.members.append(role("upkeep", folder=logs, environment=environment))
        for member in self.members:
            member.start()
        try:
            yield
        finally:
            for member in self.members:
                if not member.end(timeout_s=40):
                    self.outcome.wrong.append(f"{member.name} did not end on SIGTERM")

    def _open_changes(self, github: GitHubServer) -> list[tuple[str, int]]:
        changes = []
        self._bases = {}
        for index in range(4):
            name = f"acme/shop-{index}"
            repository = github.create(name)
            self._bases[name] = repository.commit({"app.py": text_of(None, 0)})
        for index in range(self.plan.changes):
            name = f"acme/shop-{index % 4}"
            base = self._bases[name]
            head = github.repository(name).commit({"app.py": text_of(index, 0)}, parent=base)
            changes.append((name, github.open_pull(name, head=head, base=base, title=f"change {index}")))
        return changes

    # -------------------------------------------------------------------------------------- the wind

    def _forge_fault(self, method: str, path: str) -> ForgeFault | None:
        """One request in ten goes wrong; a post may be done and its answer lost."""
        if self._calm.is_set() or self.forge_dice.random() > 0.1:
            return None
        self.outcome.forge_faults += 1
        if method == "POST" and self.forge_dice.random() < 0.6:
            return ForgeFault(method, path, None, acts=True)
        return ForgeFault(method, path, 502, body=b"<html>Bad gateway</html>")

    def _blow(self, server: EmbeddedRedis, kimi: KimiServer) -> None:
        workers = [member for member in self.members if member.name.startswith("worker")]
        others = [member for member in self.members if not member.name.startswith("worker")]
        longest_pause_s = 1.5 * (self.plan.lease_s or LEASE_S)
        blows: dict[str, tuple[int, Callable[[], None]]] = {
            "kill worker": (6, lambda: self.dice.choice(workers).kill()),
            "pause worker": (
                3,
                lambda: self._pause(self.dice.choice(workers), self.dice.uniform(1, longest_pause_s)),
            ),
            "end worker": (2, lambda: self.dice.choice(workers).send(signal.SIGTERM)),
            "kill other": (2, lambda: self.dice.choice(others).kill()),
            "kill redis": (2, lambda: self._kill_redis(server, self.dice.uniform(0, 3))),
            "pause redis": (1, lambda: self._pause_redis(server, self.dice.uniform(0.5, 4))),
            "model faults": (4, lambda: kimi.script(*(self._model_fault() for _ in range(self.dice.randint(1, 4))))),
        }
        names, weights = list(blows), [weight for weight, _ in blows.values()]
        while not self._calm.wait(self.dice.uniform(0.2, 2 * self.plan.blow_every_s)):
            name = self.dice.choices(names, weights)[0]
            self.outcome.blows[name] += 1
            blows[name][1]()
            for member in self.members:
                member.start()
        server.ensure_running()
        for member in self.members:
            member.send(signal.SIGCONT)
            member.start()

    def _model_fault(self) -> ModelFault:
        return self.dice.choice(
            [
                ModelFault(status=500, body="<html>oops</html>"),
                ModelFault(status=429, body=overloaded(), headers={"Retry-After": "1"}),
                ModelFault(reset_after_events=self.dice.randint(0, 3)),
                ModelFault(end_after_events=1, has_done=False),
                ModelFault(delay_s=self.dice.uniform(0.5, 3)),
            ]
        )

    def _pause(self, member: Member, seconds: float) -> None:
        process, began = member.process, time.time()
        member.send(signal.SIGSTOP)
        self._calm.wait(seconds)
        member.send(signal.SIGCONT)
        if process is not None:
            self._blows.append(Blow("pause worker", process, began, time.time()))

    def _kill_redis(self, server: EmbeddedRedis, gone_s: float) -> None:
        began = time.time()
        os.kill(process_of(server), signal.SIGKILL)
        self._calm.wait(gone_s)
        server.ensure_running()
        self._blows.append(Blow("kill redis", None, began, time.time()))

    def _pause_redis(self, server: EmbeddedRedis, seconds: float) -> None:
        process, began = process_of(server), time.time()
        os.kill(process, signal.SIGSTOP)
        self._calm.wait(seconds)
        os.kill(process, signal.SIGCONT)
        self._blows.append(Blow("pause redis", None, began, time.time()))

    # --------------------------------------------------------------------------------- the deliveries

    def _deliver(self, github: GitHubServer, changes: list[tuple[str, int]]) -> None:
        dice = random.Random(self.plan.seed + 2)
        pushes: list[tuple[str, int, int]] = []
        for index, (name, number) in enumerate(changes):
            self._send(github, name, number, f"{index}-0")
            if dice.random() < self.plan.redelivery_share:
                self._send(github, name, number, f"{index}-0")
            if dice.random() < self.plan.push_share:
                pushes.append((name, number, index))
            while pushes and (dice.random() < 0.3 or index == len(changes) - 1):
                self._push(github, *pushes.pop(0), heads=dice.randint(1, 4))

    def _push(self, github: GitHubServer, name: str, number: int, index: int, *, heads: int) -> None:
        for generation in range(1, heads + 1):
            files = {"app.py": text_of(index, generation)}
            head = github.repository(name).commit(files, parent=self._bases[name])
            github.push(name, number, head)
            self._send(github, name, number, f"{index}-{generation}", action="synchronize")

    def _send(self, github: GitHubServer, name: str, number: int, delivery: str, action: str = "opened") -> None:
        """Deliver until it is taken: a person would press "redeliver"."""
        payload = github.payload(name, number, action)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                answer = github.deliver(
                    self.webhook_url, secret=SECRET, repository=name, number=number, delivery=delivery, payload=payload
                )
            except httpx.TransportError:
                time.sleep(0.2)
                continue
            if answer.status_code in (200, 202):
                return
            time.sleep(0.2)
        self.outcome.wrong.append(f"the delivery {delivery} was never taken")

    def _await_all(self, server: EmbeddedRedis, github: GitHubServer) -> None:
        deadline = time.monotonic() + self.plan.limit_s
        while time.monotonic() < deadline and not self._calm.wait(0.5):
            missing = [key for key in list(github.pulls) if not self._is_reviewed(github, *key)]
            if not missing:
                return
            if len(missing) <= RARE:
                asyncio.run(self._retry_dead(server, github))

    async def _retry_dead(self, server: EmbeddedRedis, github: GitHubServer) -> None:
        """Do as a person would who reads the note on a change whose workers were killed three times."""
        client = connect(server.url)
        try:
            jobs = RedisJobs(client)
            for job in await jobs.list(states=[State.FAILED]):
                if job.reason.startswith("died 3 times") and github.notes(job.ref.repository, job.ref.number):
                    await jobs.retry(job.id)
                    self.outcome.dead += 1
        except (ReviewError, redis.RedisError):
            # The store is being killed; there is another time.
            return
        finally:
            await client.aclose()

    def _is_reviewed(self, github: GitHubServer, name: str, number: int) -> bool:
        head = github.pull(name, number).head
        return any(review.commit == head for review in github.reviews(name, number))

    # -------------------------------------------------------------------------------------- afterwards

    async def _look(self, server: EmbeddedRedis, github: GitHubServer, kimi: KimiServer) -> None:
        client = connect(server.url)
        try:
            jobs = RedisJobs(client)
            records = await self._settled(jobs)
            logs = {job.id: await jobs.decisions(job.id) for job in records}
        finally:
            await client.aclose()
        self._look_at_takeovers(logs)
        self._look_at_reviews(github)
        self._look_at_requests(kimi, logs)

    async def _settled(self, jobs: RedisJobs) -> list[Job]:
        """All records, once every job has come to its end."""
        # Who met one fault after another may have been put off for minutes by then, its review posted or not.
        deadline = time.monotonic() + JOB_RULE.cap_s + 90
        while True:
            records = list(await jobs.list(limit=100_000))
            open_jobs = [job for job in records if not job.state.is_final]
            if not open_jobs or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.5)
        self.outcome.states = Counter(job.state.value for job in records)
        self.outcome.wrong += [f"job {job.id} of {job.ref} is still {job.state}: {job.reason}" for job in open_jobs]
        self.outcome.wrong += [
            f"job {job.id} of {job.ref} failed: {job.reason}" for job in records if job.state is State.FAILED
        ]
        return records

    def _look_at_takeovers(self, logs: Mapping[str, Sequence[Decision]]) -> None:
        killed_at = {process: at for member in self.members for process, at in member.kills}
        for log in logs.values():
            for line in log:
                died = re.search(r"by \S+?-(\d+)-\w+ ended without a word", line.detail)
                if line.event == "attempt.died" and died and int(died[1]) in killed_at:
                    self.outcome.takeovers_s.append(line.at - killed_at[int(died[1])])
        late = [seconds for seconds in self.outcome.takeovers_s if seconds > TAKEOVER_S]
        self.outcome.wrong += [f"a takeover took {seconds:.1f} s" for seconds in late]

    def _look_at_reviews(self, github: GitHubServer) -> None:
        self.outcome.changes = len(github.pulls)
        for (name, number), pull in github.pulls.items():
            where = f"{name}#{number}"
            self.outcome.heads += len(pull.heads)
            reviews = github.reviews(name, number)
            self.outcome.reviews += len(reviews)
            by_head = Counter(review.commit for review in reviews)
            if pull.head not in by_head:
                self.outcome.wrong.append(f"lost: {where} has no review of its head")
            self.outcome.wrong += [f"twice: {where} {head[:8]} {n} reviews" for head, n in by_head.items() if n > 1]
            for review in reviews:
                generation = pull.heads.index(review.commit)
                for comment in review.comments:
                    if comment.line != line_of(generation):
                        self.outcome.wrong.append(f"wrong head: {where} line {comment.line} on head {generation}")
                if f"head={review.commit}" not in review.body:
                    self.outcome.wrong.append(f"wrong head: {where} says another head than it stands on")
            lines = Counter((comment.commit, comment.path, comment.line) for comment in github.comments(name, number))
            self.outcome.wrong += [f"twice: {where} comment {key}" for key, n in lines.items() if n > 1]

    def _look_at_requests(self, kimi: KimiServer, logs: Mapping[str, Sequence[Decision]]) -> None:
        blows = list(self._blows)
        for member in self.members:
            blows += [Blow("kill", process, at, at) for process, at in member.kills]
            blows += [Blow("end", process, at, at) for process, at in member.ends]
        self.outcome.account = settle(purchases_of(kimi), blows, logs)
        self.outcome.wrong += self.outcome.account.wrong


def line_of(generation: int) -> int:
    """Where the defect of a change's n-th head stands: the line tells which head was read."""
    return 10 + generation


def text_of(change: int | None, generation: int) -> str:
    """The file of a change at its n-th head; without a change, the base."""
    lines = [f"value_{number} = {number}" for number in range(1, LINES + 1)]
    if change is not None:
        lines[line_of(generation) - 1] = f"value_{change}_{generation} = eval(text_{change}_{generation})"
    return "\n".join(lines) + "\n"


def process_of(server: EmbeddedRedis) -> int:
    """The embedded server's process, which the storm started and may therefore kill."""
    with redis.Redis.from_url(server.url, socket_timeout=30) as client:
        found: Mapping[str, object] = client.info("server")
    return int(str(found["process_id"]))


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
