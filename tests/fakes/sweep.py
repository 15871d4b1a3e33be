"""Looks for planted secrets in whatever a program leaves behind: text, files, Redis, the arguments of its processes."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import redis


class Sweep:
    """`secrets` by a name that says where each was planted."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._needles = {name: list(_spellings(secret)) for name, secret in secrets.items()}
        self.found: list[str] = []
        """"<planted as> in <place>", in the order of looking."""
        self.bytes_seen = 0

    def look(self, place: str, content: str | bytes) -> None:
        raw = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        self.bytes_seen += len(raw)
        self.found += [
            f"{name} in {place}" for name, needles in self._needles.items() if any(n in raw for n in needles)
        ]

    def look_into(self, folder: Path, *, leaving_out: Iterable[Path] = ()) -> None:
        """Every file below `folder`, and the names of the files."""
        left_out = set(leaving_out)
        for path in sorted(folder.rglob("*")):
            self.look("a path", str(path))
            if path.is_file() and path not in left_out:
                self.look(str(path.relative_to(folder)), path.read_bytes())

    def look_into_redis(self, client: redis.Redis) -> None:
        """Names and values of all keys. A DUMP would not do: it is compressed."""
        for key in client.scan_iter():
            self.look("a key of Redis", key)
            for value in _values(client, key):
                self.look(f"Redis {key.decode('utf-8', 'replace')}", value)

    @contextmanager
    def arguments_of(self, pids: Callable[[], list[int]]) -> Iterator[None]:
        """While the context lasts, the arguments of all processes that `pids` names, many times a second."""
        ended = threading.Event()
        seen: set[bytes] = set()

        def sample() -> None:
            while not ended.is_set():
                for pid in pids():
                    try:
                        seen.add(Path(f"/proc/{pid}/cmdline").read_bytes())
                    except OSError:
                        continue  # it has ended meanwhile
                time.sleep(0.015)

        thread = threading.Thread(target=sample, name="sampler")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            for command in sorted(seen):
                self.look(f"arguments {command[:60]!r}", command)
            assert any(b"git" in command for command in seen), "the samples are too few: they saw no git"


def _spellings(secret: str) -> Iterator[bytes]:
    raw = secret.encode()
    yield raw
    yield quote(secret, safe="").encode()
    yield raw.hex().encode()
    yield secret[::-1].encode()
    for offset in range(3):
        # The first and last characters of base64 mix with what stands around.
        encoded = base64.b64encode(b"\0" * offset + raw).rstrip(b"=")[:-1]
        yield encoded[(offset * 8 + 5) // 6 :]


def _values(client: redis.Redis, key: bytes) -> Iterator[bytes]:
    match client.type(key):
        case b"string":
            yield client.get(key) or b""
        case b"hash":
            for name, value in client.hgetall(key).items():
                yield name + b"=" + value
        case b"list":
            yield from client.lrange(key, 0, -1)
        case b"set":
            yield from client.smembers(key)
        case b"zset":
            yield from client.zrange(key, 0, -1)
        case kind:
            raise AssertionError(f"a key of type {kind!r} that nobody looks into: {key!r}")
