"""The routes, put together into one Starlette application."""

from __future__ import annotations

import time

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.ingress import metrics
from worker.ingress.answers import refused
from worker.ingress.body import BodyReader
from worker.ingress.intake import SHOWN, Intake
from worker.ingress.pages import Pages
from worker.ingress.site import Site

log = structlog.get_logger()


def create_app(site: Site, *, reader: BodyReader | None = None) -> Starlette:
    """The application that serves `site`."""
    counters = metrics.Counters()
    intake = Intake(site, counters, reader or BodyReader())
    pages = Pages(site, counters)
    routes = [
        Route("/webhooks/{forge}", intake.webhook, methods=["POST"]),
        Route("/reviews", intake.review, methods=["POST"]),
        Route("/reviews/{job}", intake.job, methods=["GET"]),
        Route("/livez", pages.alive, methods=["GET"]),
        Route("/readyz", pages.ready, methods=["GET"]),
        Route("/metrics", pages.metrics, methods=["GET"]),
        Route("/", pages.status, methods=["GET"]),
    ]
    app = Starlette(
        routes=routes, middleware=[Middleware(_Timed, counters=counters)], exception_handlers={404: _lost, 405: _lost}
    )
    # It would build the new URL from the caller's Host header, and no forge follows it.
    app.router.redirect_slashes = False
    return app


async def _lost(request: Request, error: Exception) -> Response:
    """An answer in our own form for who calls a path or a method that is none."""
    if request.method == "POST":
        # Most likely a webhook whose form holds a wrong address: on the forge's side alone it would be seen.
        log.warning("request.lost", path=request.url.path[:SHOWN])
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return refused(405, f"This path takes {allowed} alone.", allow=allowed)
    return refused(404, "There is nothing here. A webhook's address is /webhooks/github, with no slash at its end.")


class _Timed:
    """Measures each answer by its route, never by its path: a path is a stranger's text."""

    def __init__(self, app: ASGIApp, counters: metrics.Counters) -> None:
        self._app = app
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = scope.get("route")
            name = route.path if isinstance(route, Route) else "other"
            self._counters.answered(name, status, time.perf_counter() - started)
