"""GET /livez, /readyz, /metrics and /: whether the service lives, and how the fleet does."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from worker import __version__
from worker.core.errors import ReviewError
from worker.ingress import metrics, status_page
from worker.ingress.access import may_read
from worker.ingress.answers import refused
from worker.ingress.intake import STORE_AWAY, STORE_TIMEOUT_S
from worker.ingress.site import Site

log = structlog.get_logger()

CHECK_TIMEOUT_S = 1.8
"""For one check of `/readyz`: whoever probes waits a few seconds at most."""
SHOWN_JOBS = 50


class Pages:
    """What is read by probes, by Prometheus and by people. Nothing here changes anything."""

    def __init__(self, site: Site, counters: metrics.Counters) -> None:
        self._site = site
        self._counters = counters
        self._problems: dict[str, str] = {}

    async def alive(self, _request: Request) -> Response:
        """The process answers; asks nothing of anybody else, so that a Redis outage restarts no container."""
        return JSONResponse({"status": "ok"})

    async def ready(self, _request: Request) -> Response:
        """200 when every check passes, else 503; one member per check either way."""
        names = list(self._site.checks)
        found = await asyncio.gather(*(self._check(name) for name in names))
        is_ready = all(ok for ok, _ in found)
        checks = {name: {"ok": ok, "detail": detail} for name, (ok, detail) in zip(names, found, strict=True)}
        body = {"status": "ok" if is_ready else "not ready", "checks": checks}
        return JSONResponse(body, status_code=200 if is_ready else 503)

    async def metrics(self, request: Request) -> Response:
        if not may_read(request, self._site.api_token):
            return refused(401, "Send the header Authorization: Bearer API_TOKEN.", www_authenticate="Bearer")
        with suppress(*STORE_AWAY):  # what the door itself counted is told all the same
            async with asyncio.timeout(STORE_TIMEOUT_S):
                self._counters.jobs(await self._site.jobs.counts())
                self._counters.paused(is_paused=bool(await self._site.jobs.paused()))
                self._counters.left(await self._site.jobs.left())
                self._counters.vitals(await self._site.vitals() if self._site.vitals else None)
        return Response(self._counters.exposition(), media_type=metrics.CONTENT_TYPE)

    async def status(self, request: Request) -> Response:
        is_known = may_read(request, self._site.api_token)
        if "details" in request.query_params and not is_known:
            return refused(401, "Log in with API_TOKEN as the password.", www_authenticate='Basic realm="kimi-review"')
        html = status_page.page(
            await self._standing(shows_jobs=is_known),
            provider=self._site.provider,
            is_known_reader=is_known,
            now=datetime.now(UTC),
            version=f"version {__version__}",
        )
        return HTMLResponse(html, headers=status_page.HEADERS)

    async def _standing(self, *, shows_jobs: bool) -> status_page.Standing | None:
        """None when the store is away."""
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                jobs = self._site.jobs
                return status_page.Standing(
                    vitals=await self._site.vitals() if self._site.vitals else None,
                    counts=await jobs.counts(),
                    newest=await jobs.list(limit=SHOWN_JOBS) if shows_jobs else (),
                    paused=await jobs.paused(),
                    left=await jobs.left(),
                )
        except STORE_AWAY:
            return None

    async def _check(self, name: str) -> tuple[bool, str]:
        """Whether the check passes, and what it found. The page is open to everybody, so errors stay in the log."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                found = await self._site.checks[name]()
        except TimeoutError:
            self._note(name, f"no answer within {CHECK_TIMEOUT_S} s")
            return False, "no answer"
        except ReviewError as error:
            self._note(name, str(error))
            return False, type(error).__name__
        self._note(name, "")
        return True, found

    def _note(self, name: str, problem: str) -> None:
        """Log what changed: probes come every few seconds."""
        if problem != self._problems.get(name, ""):
            if problem:
                # Until it passed once, the service is only starting.
                (log.warning if name in self._problems else log.info)("check.failed", check=name, error=problem)
            else:
                log.info("check.passed", check=name)
        self._problems[name] = problem
