"""`serve`, `api`, `worker`, `upkeep`: the roles that run until they are told to end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import structlog
import typer

from worker.bootstrap import Installation, with_model_chosen
from worker.cli.family import Child, tell_ready
from worker.cli.heartbeat import beating
from worker.cli.parent import die_with
from worker.cli.setting_up import set_up
from worker.cli.signals import stop_event
from worker.clock import SystemClock
from worker.core.errors import Unreachable
from worker.ingress import server
from worker.ingress.app import create_app
from worker.ingress.site import site_of
from worker.process import WorkerProcess
from worker.settings import Role, Settings, child_environment
from worker.storage import embedded
from worker.storage.embedded import EmbeddedRedis

log = structlog.get_logger()

REDIS_LOOK_S = 2.0
"""How often `serve` sees to it that its embedded Redis lives."""

Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on, in place of API_PORT.")]
Host = Annotated[str | None, typer.Option(help="Address to listen on, in place of API_HOST.")]
PortFile = Annotated[Path | None, typer.Option(hidden=True, help="Write the port there, for who asked for port 0.")]
Parent = Annotated[int | None, typer.Option("--with-parent", hidden=True, help="End when this process ends.")]
ReadyFd = Annotated[int | None, typer.Option("--ready-fd", hidden=True, help="Write a byte here once it works.")]


def serve(
    port: Port = None,
    host: Host = None,
    port_file: PortFile = None,
    with_parent: Parent = None,
    ready_fd: ReadyFd = None,
) -> None:
    """Run everything on this machine: embedded Redis, api, worker, upkeep."""
    if with_parent is not None:
        die_with(with_parent)
    settings = set_up(Role.SERVE)
    asyncio.run(_serve(settings, _where(settings, host, port), port_file, ready_fd))


def api(port: Port = None, host: Host = None) -> None:
    """Run the HTTP service alone; needs REDIS_URL."""
    settings = set_up(Role.API)
    asyncio.run(_api(settings, _where(settings, host, port)))


def worker(with_parent: Parent = None, ready_fd: ReadyFd = None) -> None:
    """Run one worker process alone; needs REDIS_URL."""
    if with_parent is not None:
        die_with(with_parent)
    settings = set_up(Role.WORKER)
    # Importing it builds the worker from the settings, so it comes after they were found to be right.
    from celery import signals

    from worker.main import app

    def ready(**_: object) -> None:
        tell_ready(ready_fd)

    signals.worker_ready.connect(ready, weak=False)
    with beating(settings.kimi_review_home, "worker"):
        app.worker_main(["--quiet", "worker"])


def upkeep() -> None:
    """Run the timer alone: it wakes what was forgotten; needs REDIS_URL."""
    settings = set_up(Role.UPKEEP)
    installation = Installation(settings, _redis_url(settings))
    process = WorkerProcess(installation.services)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: process.stop())
    log.info("upkeep.started", who=process.name)
    with beating(settings.kimi_review_home, "upkeep"):
        process.keep_up()
    log.info("upkeep.ended", who=process.name)


async def _serve(settings: Settings, where: tuple[str, int], port_file: Path | None, ready_fd: int | None) -> None:
    async with AsyncExitStack() as held:
        stop = held.enter_context(stop_event())
        listener = held.enter_context(server.listen(*where))
        redis: EmbeddedRedis | None = None
        environment = child_environment()
        if settings.redis_dsn is None:
            redis = held.enter_context(embedded.start(settings.kimi_review_home))
            environment["REDIS_URL"] = redis.url
            log.info("redis.started", folder=str(redis.folder))
        settings = await with_model_chosen(settings, clock=SystemClock())
        environment["API_LLM_PROVIDER_MODEL"] = settings.api_llm_provider_model
        installation = Installation(settings, redis.url if redis else _redis_url(settings))
        services = await held.enter_async_context(installation.services())
        child = Child("worker", ["worker"], environment)

        async def worker_works() -> str:
            if not child.ready.is_set():
                raise Unreachable("The worker process is starting, or starting again.")
            return "works"

        app = create_app(site_of(services, checks={"worker": worker_works}))
        _log_start(installation, listener.getsockname())
        _tell_port(listener, port_file)
        beside = [
            asyncio.create_task(child.keep_running()),
            asyncio.create_task(_announce(child, ready_fd, where[0], listener)),
        ]
        if redis is not None:
            beside.append(asyncio.create_task(_keep_redis(redis)))
        try:
            # Answers end first, then the work: nothing new comes in while it is handed back.
            await server.serve(app, listener, stop=stop)
        finally:
            await child.stop()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            log.info("service.ended")


async def _api(settings: Settings, where: tuple[str, int]) -> None:
    async with AsyncExitStack() as held:
        stop = held.enter_context(stop_event())
        listener = held.enter_context(server.listen(*where))
        settings = await with_model_chosen(settings, clock=SystemClock())
        installation = Installation(settings, _redis_url(settings))
        services = await held.enter_async_context(installation.services())
        _log_start(installation, listener.getsockname())
        await server.serve(create_app(site_of(services)), listener, stop=stop)
        log.info("service.ended")


async def _announce(child: Child, ready_fd: int | None, host: str, listener: socket.socket) -> None:
    await child.ready.wait()
    log.info("service.ready", url=f"http://{host}:{listener.getsockname()[1]}/")
    tell_ready(ready_fd)


def _tell_port(listener: socket.socket, port_file: Path | None) -> None:
    if port_file is not None:
        port_file.write_text(str(listener.getsockname()[1]))


async def _keep_redis(redis: EmbeddedRedis) -> None:
    while True:
        await asyncio.sleep(REDIS_LOOK_S)
        try:
            if await asyncio.to_thread(redis.ensure_running):
                log.error("redis.restarted", folder=str(redis.folder))
        except Unreachable as error:
            log.error("redis.silent", error=str(error))


def _log_start(installation: Installation, address: tuple[str, int]) -> None:
    # The operator greps the log for this line: which vendor, which model.
    log.info("provider.configured", **installation.endpoint.described())
    if installation.second_endpoint is not None:
        log.info("fallback.configured", **installation.second_endpoint.described())
    log.info("service.listening", host=address[0], port=address[1], pid=os.getpid())


def _where(settings: Settings, host: str | None, port: int | None) -> tuple[str, int]:
    return host or settings.api_host, settings.api_port if port is None else port


def _redis_url(settings: Settings) -> str:
    """Only for roles that settings let start with a REDIS_URL alone."""
    if settings.redis_dsn is None:
        raise ValueError("this role was started without REDIS_URL")
    return settings.redis_dsn.get_secret_value()
