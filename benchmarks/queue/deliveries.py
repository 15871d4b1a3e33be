"""Deliveries per second through the real api process: signed GitHub payloads over kept-alive connections."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECRET = "a-webhook-secret-of-the-benchmark"
PAYLOAD_BYTES = 25_000
"""A `pull_request` payload of GitHub has 20 to 30 kB, most of it URLs that nobody reads."""
READY_TIMEOUT_S = 30.0


@contextmanager
def api(redis_url: str, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`kimi-review api` as a process of its own; the process and its port, once it listens."""
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "KIMI_REVIEW_HOME": str(folder / "state"),
        "REDIS_URL": redis_url,
        "API_OPEN_AI_API_KEY": "key-of-the-benchmark",
        "GITHUB_TOKEN": "token-of-the-benchmark",
        "GITHUB_WEBHOOK_SECRET": SECRET,
        "LOG_FORMAT": "json",
    }
    command = [sys.executable, "-m", "worker.cli", "api", "--port", str(port)]
    with (folder / "api.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            await_listening(port, process)
            yield process, port
        finally:
            process.terminate()
            process.wait(30)


def payload_of(number: int, *, size: int = PAYLOAD_BYTES) -> bytes:
    """As GitHub words it: the members that are read, and as much beside them as GitHub sends."""
    repository = f"acme/shop-{number % 200}"
    links = {f"{name}_url": f"https://api.github.com/repos/{repository}/{name}{{/sha}}" for name in LINKS}
    user = {"login": "octocat", "id": 1, "type": "User", **links}
    repo = {"id": 7, "full_name": repository, "private": True, "owner": user, **links}
    pull: dict[str, Any] = {
        "number": number,
        "state": "open",
        "draft": False,
        "title": "Take the total from the cart",
        "user": user,
        "head": {"ref": "topic", "sha": f"{number:040x}", "repo": repo},
        "base": {"ref": "main", "sha": "b" * 40, "repo": repo},
        "body": "",
        **links,
    }
    said = {"action": "opened", "number": number, "pull_request": pull, "repository": repo, "sender": user}
    missing = size - len(json.dumps(said))
    pull["body"] = "A line of words that describe the change.\n" * max(0, missing // 43)
    return json.dumps(said).encode()


LINKS = tuple(f"link_{number}_with_a_name_as_long_as_they_are" for number in range(36))
"""Members whose values are URLs; GitHub sends some forty of them with each repository."""


def request_of(number: int) -> bytes:
    body = payload_of(number)
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    head = (
        "POST /webhooks/github HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: GitHub-Hookshot/1\r\n"
        "Content-Type: application/json\r\nX-GitHub-Event: pull_request\r\n"
        f"X-GitHub-Delivery: {number:08x}-0000-4000-8000-000000000000\r\n"
        f"X-Hub-Signature-256: sha256={signature}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def delivered(
    port: int, numbers: range, *, connections: int, per_second: float | None = None
) -> dict[str, float]:
    """Deliver one call for each number over so many connections; as fast as they are answered, or at a rate.

    At a rate, a call's time counts from when it was due, so a server that stalls cannot hide behind a slow sender.
    """
    requests = {number: request_of(number) for number in numbers}
    waiting = iter(numbers)
    took_s: list[float] = []
    began = time.perf_counter()

    async def sender() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in waiting:
            due = time.perf_counter()
            if per_second is not None:
                due = began + (number - numbers.start) / per_second
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            writer.write(requests[number])
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            answer = await reader.readexactly(length)
            took_s.append(time.perf_counter() - due)
            if not head.startswith(b"HTTP/1.1 202"):
                raise RuntimeError(f"{head!r} {answer!r}")
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(sender() for _ in range(connections)))
    total_s = time.perf_counter() - began
    return {
        "connections": connections,
        "per_second": round(len(took_s) / total_s),
        "p50_ms": round(statistics.median(took_s) * 1000, 1),
        "p99_ms": round(statistics.quantiles(took_s, n=100)[98] * 1000, 1),
    }


def measure(redis_url: str, folder: Path, *, count: int, rate: float = 500.0) -> list[dict[str, float]]:
    """As fast as answered over few and many connections, then at the rate of the goal."""
    rows: list[dict[str, float]] = []
    first = 1
    with api(redis_url, folder) as (process, port):
        asyncio.run(delivered(port, range(first, first + 200), connections=4))
        first += 200
        for connections, per_second in ((4, None), (16, None), (32, rate)):
            before = cpu_s(process.pid)
            row = asyncio.run(
                delivered(port, range(first, first + count), connections=connections, per_second=per_second)
            )
            row["api_cpu_ms_each"] = round((cpu_s(process.pid) - before) / count * 1000, 2)
            if per_second is not None:
                row["asked_per_second"] = per_second
            rows.append(row)
            first += count
    return rows


def cpu_s(process: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def await_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the api does not start; its log is in the benchmark's folder") from None
            time.sleep(0.05)
        else:
            return


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
