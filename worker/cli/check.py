"""`check`: a row for everything that must be right before a review can happen, each with its cure."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.text import Text

from worker.bootstrap import (
    Installation,
    Services,
    endpoint_of,
    request_wishes,
    second_endpoint_of,
    window_wishes,
    with_model_chosen,
)
from worker.checkout.process import OLDEST_GIT, Bounds, GitRunner
from worker.cli.report_text import open_console
from worker.cli.setting_up import set_up
from worker.cli.store import redis_url_of
from worker.clock import SystemClock
from worker.core.counting import counted
from worker.core.delivery import is_pattern
from worker.core.errors import ConfigurationError, LimitKind, ReviewError
from worker.core.markdown import visible
from worker.core.redaction import Redactor
from worker.exits import Exit, complain
from worker.ports import Jobs
from worker.providers.check import AccountNow, CheckRow, check_provider, failed
from worker.providers.windows import Windows
from worker.settings import Role, Settings, foreign_names
from worker.storage.health import check_writes
from worker.storage.throttle import RedisThrottle

SHOWN_NAMES = 5
_LIMIT_NAMES: dict[LimitKind, str] = {"concurrency": "concurrency", "rpm": "RPM", "tpm": "TPM", "tpd": "TPD"}


def check(as_json: Annotated[bool, typer.Option("--json", help="One JSON value instead of rows.")] = False) -> None:
    """Check settings, Redis, git, forge tokens and the provider, with one tiny real completion."""
    try:
        settings = set_up(Role.CHECK, level="error")
    except ConfigurationError as error:
        if not as_json:
            raise
        rows = [CheckRow("settings", False, problem, "") for problem in error.problems]
        _print_json(rows, Redactor())
        sys.exit(Exit.CONFIGURATION)
    rows = asyncio.run(_collect(settings, is_quiet=as_json))
    is_right = all(row.ok for row in rows)
    if as_json:
        _print_json(rows, Redactor(settings.secrets()))
    elif is_right:
        print("\nAll of it works. Next: `kimi-review serve`, or `kimi-review review owner/name#7`.")
    else:
        complain("something above is not right yet.")
    if not is_right:
        sys.exit(Exit.FAILED)


async def _collect(settings: Settings, *, is_quiet: bool) -> list[CheckRow]:
    console = open_console()
    redact = Redactor(settings.secrets())
    width = 18 if second_endpoint_of(settings) is None else 26
    rows = []
    async for row in _rows(settings):
        rows.append(row)
        if not is_quiet:
            mark, style = ("ok  ", "green") if row.ok else ("FAIL", "bold red")
            detail = redact(visible(row.detail))
            console.print(Text.assemble((f"{mark}  ", style), (f"{row.name:<{width}}", "bold"), detail), soft_wrap=True)
            if row.cure and not row.ok:
                console.print(Text(f"      {'':<{width}}→ {redact(visible(row.cure))}"), soft_wrap=True)
    return rows


async def _rows(settings: Settings) -> AsyncIterator[CheckRow]:
    yield settings_row()
    yield await asyncio.to_thread(git_row)
    if (row := proxy_row(settings)) is not None:
        yield row
    clock = SystemClock()
    unknown: ReviewError | None = None
    try:
        settings = await with_model_chosen(settings, clock=clock)
    except ReviewError as error:
        unknown = error
    async with AsyncExitStack() as held:
        services: Services | None = None
        try:
            url = held.enter_context(redis_url_of(settings))
            where = "embedded" if settings.redis_dsn is None else "REDIS_URL"
            opened = await held.enter_async_context(Installation(settings, url).services())
            yield CheckRow("redis", True, f"{where}: {await check_writes(opened.redis)}")
            services = opened
        except ReviewError as error:
            yield CheckRow("redis", False, str(error))
        if services is not None:
            async for row in _forges(settings, services):
                yield row
        elif settings.has_github:
            yield CheckRow("github", False, "not tried: Redis is away", "Set right what the row of redis says.")
        yield _webhook(settings)
        if unknown is not None:
            yield failed("model", unknown)
            return
        for row in await _provider(settings, services):
            yield row


async def _provider(settings: Settings, services: Services | None) -> list[CheckRow]:
    """The rows of both providers. Without a store nothing learned is known, and the requests go past the throttle."""
    rows = await check_provider(
        endpoint_of(settings),
        clock=SystemClock(),
        throttle=None if services is None else services.throttle,
        wishes=request_wishes(settings),
        window=window_wishes(settings),
        account=None if services is None else await _account(services.windows, services.throttle, services.jobs),
    )
    second = second_endpoint_of(settings)
    if second is None:
        return rows
    spare = None if services is None else services.second
    others = await check_provider(
        second,
        clock=SystemClock(),
        throttle=None if spare is None else spare.throttle,
        wishes=request_wishes(settings),
        account=None if services is None or spare is None else await _account(*spare, services.jobs),
    )
    return rows + [replace(row, name=f"fallback: {row.name}") for row in others]


async def _account(windows: Windows, throttle: RedisThrottle, jobs: Jobs) -> AccountNow:
    standing = await throttle.standing()
    limits = [f"{_LIMIT_NAMES[limit.kind]} {limit.value:,} ({limit.source})" for limit in standing.limits]
    return AccountNow(
        limits=limits,
        window=await windows.remembered(),
        quota_used_up_until=standing.quota_used_up_until,
        lift=partial(_lift, throttle, jobs),
    )


async def _lift(throttle: RedisThrottle, jobs: Jobs, until: datetime) -> str:
    """After a top-up nobody tells us of it, and the fleet would wait for the rest of half an hour."""
    try:
        await throttle.lift(until)
        hastened = await jobs.hasten("the provider answers again, by kimi-review check")
    except ReviewError as error:
        return f"but the fleet's pause until {until:%H:%M} UTC stays: {error}"
    go_on = f"{counted(hastened, 'deferred job')} go{'es' if hastened == 1 else ''} on now"
    return f"the fleet's pause until {until:%H:%M} UTC is lifted, {go_on}"


async def _forges(settings: Settings, services: Services) -> AsyncIterator[CheckRow]:
    if not services.forges:
        yield CheckRow("forges", True, "none is configured, so only local reviews work; GITHUB_TOKEN is for GitHub")
    for name, forge in services.forges.items():
        named = [glob for glob in settings.github_repositories if not is_pattern(glob)]
        if not named:
            yield CheckRow(
                name, True, "the token is set, not tried: name a repository in GITHUB_REPOSITORIES to have it tried"
            )
        for repository in named:
            try:
                async for _ in forge.open_changes(repository):
                    break
            except ReviewError as error:
                yield CheckRow(name, False, f"{repository}: {error}")
            else:
                yield CheckRow(name, True, f"{repository}: its pull requests can be read")


def settings_row() -> CheckRow:
    """After `load` found nothing wrong: whether `.env` holds names of other programs, which a reader may count on."""
    foreign = foreign_names()
    if not foreign:
        return CheckRow("settings", True, "all of them can be used")
    names = ", ".join(foreign[:SHOWN_NAMES]) + (
        f" and {len(foreign) - SHOWN_NAMES} more" if len(foreign) > SHOWN_NAMES else ""
    )
    return CheckRow("settings", True, f"all of them can be used; .env names others, which nothing here reads: {names}")


def git_row() -> CheckRow:
    """Which git is found on the PATH, and whether it is new enough."""
    runner = GitRunner(Path(tempfile.gettempdir()), is_git_dir=False)
    try:
        said = runner.run(["--version"], bounds=Bounds(total_s=10)).output.decode("utf-8", "replace").strip()
    except ConfigurationError as error:
        return CheckRow("git", False, error.problems[0])
    numbers = [int(part) for part in said.split()[2].split(".")[:2] if part.isdigit()]
    is_new = tuple(numbers) >= OLDEST_GIT
    return CheckRow("git", is_new, said, "" if is_new else f"Install git {'.'.join(map(str, OLDEST_GIT))} or newer.")


def proxy_row(settings: Settings) -> CheckRow | None:
    """What goes through which proxy of the environment; None where nobody speaks of one."""
    egress = settings.egress
    names = " and ".join(dict.fromkeys(proxy.variable for proxy in egress.proxies))
    if not egress.is_allowed:
        if not names:
            return None
        verb = "are" if " and " in names else "is"
        return CheckRow("proxy", True, f"{names} {verb} set and not used: USE_ENV_PROXIES=true uses the proxy")
    if not names:
        nothing = "USE_ENV_PROXIES is true, and the process's environment has no HTTPS_PROXY or HTTP_PROXY"
        return CheckRow("proxy", True, f"{nothing}: everything goes directly")
    urls = [settings.api_openai_force_base_url, settings.fallback_openai_base_url]
    urls += [settings.github_api_url, settings.github_url] if settings.has_github else []
    ways: dict[str, list[str]] = {}
    for url in filter(None, urls):
        proxy = egress.proxy_for(url)
        way = "directly" if proxy is None else f"by {proxy.where}"
        ways.setdefault(way, []).append(urlsplit(url).hostname or url)
    return CheckRow(
        "proxy", True, "; ".join(f"{way}: {', '.join(dict.fromkeys(hosts))}" for way, hosts in ways.items())
    )


def _webhook(settings: Settings) -> CheckRow:
    if settings.github_webhook_secret is not None:
        return CheckRow("webhook", True, "its secret is long enough")
    if not settings.has_github:
        return CheckRow("webhook", True, "none: GITHUB_WEBHOOK_SECRET is not set, and `serve` and `api` alone need it")
    cure = "Set GITHUB_WEBHOOK_SECRET here and in the webhook's form; `serve` and `api` do not start without."
    return CheckRow("webhook", False, "GITHUB_WEBHOOK_SECRET is not set", cure)


def _print_json(rows: list[CheckRow], redact: Redactor) -> None:
    print(
        json.dumps(
            {
                "ok": all(row.ok for row in rows),
                "rows": [
                    {"name": row.name, "ok": row.ok, "detail": redact(row.detail), "cure": redact(row.cure)}
                    for row in rows
                ],
            },
            indent=2,
        )
    )
