"""A fleet against a gate: starts both, kills workers, and reads from the gate's log what happened."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis

from worker.storage.connection import PREFIX
from worker.storage.throttle import GUARD_S, LEASE_S


@dataclass(frozen=True)
class Entry:
    """One line of the gate's log."""

    t: float
    what: str
    open: int
    tokens: int
    worker: str
    flow: str
    over: str
    way_s: float


@dataclass
class Kill:
    t: float
    worker: str
    back_s: float = 0.0
    """Until none of the dead process' slots was taken any more."""


@dataclass
class Run:
    """What a run left behind. `minute_s` is the gate's."""

    log: list[Entry]
    minute_s: float
    small_waits_s: list[float] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)

    @property
    def above_cap(self) -> int:
        return sum(1 for entry in self.log if entry.over)

    @property
    def requests(self) -> int:
        return sum(1 for entry in self.log if entry.what == "came" and not entry.over)

    def ways_s(self) -> tuple[float, float]:
        """Seconds from admission to arrival: the 99th percentile and the worst."""
        ways = sorted(entry.way_s for entry in self.log if entry.what == "came")
        return ways[int(0.99 * (len(ways) - 1))], ways[-1]

    def slots_used(self, cap: int, *, after_s: float) -> tuple[float, float]:
        """Share of the slot-seconds that were in use, from `after_s` after the first arrival to the last one: of all,
        and of those that no dead process' lease held."""
        begun = self.log[0].t + after_s
        ended = max(entry.t for entry in self.log if entry.what == "came")
        used, t, open_now = 0.0, begun, 0
        for entry in self.log:
            until = min(max(entry.t, begun), ended)
            used += open_now * (until - t)
            t, open_now = until, entry.open
        held_by_dead = sum(kill.back_s * self._open_at(kill) for kill in self.kills)
        every = cap * (ended - begun)
        return used / every, used / (every - held_by_dead)

    def _open_at(self, kill: Kill) -> int:
        mine = [entry.what for entry in self.log if entry.worker == kill.worker and entry.t <= kill.t]
        return mine.count("came") - mine.count("left")

    def pace(self, cap: int, *, by_tokens: bool) -> float:
        """The pace that was kept, as a share of one cap a minute: over the mean time from any arrival to the one with
        which the next cap's worth began."""
        came = [(entry.t, entry.tokens if by_tokens else 1) for entry in self.log if entry.what == "came"]
        turns, first, amount = [], 0, 0
        for t, n in came:
            amount += n
            while amount > cap:
                turns.append((t - came[first][0]) * cap / (amount - n))
                amount -= came[first][1]
                first += 1
        return self.minute_s / (sum(turns) / len(turns))


class Fleet:
    """Worker processes that can be killed and come back, and the gate they knock at."""

    def __init__(
        self,
        redis_url: str,
        folder: Path,
        account: str,
        caps: dict[str, int],
        *,
        lease_s: float = LEASE_S,
        minute_s: float = 60.0,
        guard_s: float = GUARD_S,
    ) -> None:
        self.redis_url, self.account, self.minute_s, self.lease_s = redis_url, account, minute_s, lease_s
        self.settings = {"account": account, "caps": caps, "lease_s": lease_s, "minute_s": minute_s, "guard_s": guard_s}
        self.log = folder / f"{account}.log"
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            descriptor = listener.fileno()
            gate = [sys.executable, "-m", "benchmarks.throttle.server", str(descriptor), json.dumps(caps)]
            self.gate = subprocess.Popen([*gate, str(minute_s), str(self.log)], pass_fds=[descriptor])
        self.workers: dict[str, tuple[subprocess.Popen[str], dict[str, object]]] = {}
        self.instances: dict[str, str] = {}
        self.run = Run([], minute_s)
        self._watchers: list[threading.Thread] = []
        self._starts = 0

    def start(self, name: str, **options: object) -> None:
        self._starts += 1
        settings = json.dumps(self.settings | {"name": name, "seed": self._starts} | options)
        worker = [sys.executable, "-m", "benchmarks.throttle.fleet_worker", self.redis_url, self.url, settings]
        process = subprocess.Popen(worker, stdout=subprocess.PIPE, text=True)
        self.workers[name] = (process, options)
        self._watch(self._read, name, process)

    def _watch(self, work: object, *arguments: object) -> None:
        watcher = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        watcher.start()
        self._watchers.append(watcher)

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        with process.stdout:
            for line in process.stdout:
                said = json.loads(line)
                if "instance" in said:
                    self.instances[name] = said["instance"]
                else:
                    self.run.small_waits_s.append(said["small_wait_s"])

    def kill(self, name: str) -> None:
        """kill -9, start it again at once, and measure how long its slots stay taken."""
        process, options = self.workers[name]
        instance = self.instances[name]
        process.kill()
        kill = Kill(time.monotonic(), name)
        self.run.kills.append(kill)
        process.wait()
        self._watch(self._watch_slots, instance, kill)
        self.start(name, **options)

    def _watch_slots(self, instance: str, kill: Kill) -> None:
        with redis.Redis.from_url(self.redis_url) as client:
            while client.scard(f"{PREFIX}:throttle:{self.account}:members:{instance}"):
                time.sleep(0.02)
        kill.back_s = time.monotonic() - kill.t

    def finish(self) -> Run:
        for process, _ in self.workers.values():
            process.kill()
            process.wait()
        self.gate.kill()
        self.gate.wait()
        for watcher in self._watchers:
            watcher.join(self.lease_s + 5)
        # The last line may be half written.
        whole = [line for line in self.log.read_text().splitlines() if line.endswith("}")]
        self.run.log = [Entry(**json.loads(line)) for line in whole]
        return self.run


def work(fleets: Sequence[Fleet], seconds: float, *, kills: int, chance: random.Random) -> list[Run]:
    """Let the fleets work for `seconds` while a random worker of each is killed `kills` times, spread over the time."""
    while any(len(fleet.instances) < len(fleet.workers) for fleet in fleets):
        time.sleep(0.05)
    began = time.monotonic()
    for number in range(kills):
        at = began + seconds * (number + chance.uniform(0.3, 0.7)) / kills
        time.sleep(max(0.0, at - time.monotonic()))
        for fleet in fleets:
            fleet.kill(chance.choice(sorted(fleet.instances)))
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    return [fleet.finish() for fleet in fleets]
