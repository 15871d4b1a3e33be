"""What a forge answers, and the error we make of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest

from worker.core.errors import (
    NotAuthorised,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    ReviewError,
    Unprocessable,
    Unreachable,
    WrongEndpoint,
)
from worker.forges import http

TOKEN = "ghp_falseTokenOfTheTestsWhichOpensNothing1"
DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


def ask(handler: Callable[[httpx.Request], httpx.Response], *, writes: bool = False) -> httpx.Response:
    async def once() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
            request = client.build_request(
                "POST", "http://forge/x?secret=1", headers={"authorization": f"Bearer {TOKEN}"}
            )
            return await http.send(client, request, forge="GitHub", what="a review", writes=writes)

    return asyncio.run(once())


def error(response: httpx.Response, *, writes: bool = False) -> ReviewError:
    with pytest.raises(ReviewError) as caught:
        ask(lambda _: response, writes=writes)
    assert TOKEN not in str(caught.value)
    assert "secret=1" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, WrongEndpoint),
        (302, WrongEndpoint),
        (307, WrongEndpoint),
        (400, Unprocessable),
        (401, NotAuthorised),
        (403, NotAuthorised),
        (404, NotFound),
        (406, Unprocessable),
        (410, NotFound),
        (422, Unprocessable),
        (429, RateLimited),
        (500, Unreachable),
        (502, Unreachable),
        (503, Unreachable),
    ],
)
def test_a_status_is_one_error(status: int, kind: type[ReviewError]) -> None:
    assert type(error(httpx.Response(status, json={"message": "no"}))).__mro__[:2].count(kind) == 1


def test_a_redirect_is_not_followed() -> None:
    asked: list[str] = []

    def elsewhere(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(302, headers={"location": "http://evil.example/"})

    with pytest.raises(WrongEndpoint):
        ask(elsewhere)
    assert asked == ["http://forge/x?secret=1"]


@pytest.mark.parametrize(
    ("response", "wait_s"),
    [
        (httpx.Response(429, headers={"retry-after": "17"}), 17.0),
        (httpx.Response(403, headers={"retry-after": "5"}), 5.0),
        (httpx.Response(429, headers={"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": DATE}), 30.0),
        (httpx.Response(429, headers={"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": DATE}), 0.0),
        (httpx.Response(429, headers={"retry-after": "soon"}), 60.0),
        (httpx.Response(429, headers={"retry-after": "999999999999"}), 3600.0),
        (
            httpx.Response(
                403, headers={"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1792567740", "date": DATE}
            ),
            61.0,
        ),
        (httpx.Response(403, headers={"x-ratelimit-remaining": "0", "x-ratelimit-reset": "nonsense"}), 60.0),
        (httpx.Response(403, json={"message": "You have exceeded a secondary rate limit."}), 60.0),
        (httpx.Response(422, json={"message": "Validation Failed", "errors": [{"code": "abuse"}]}), 60.0),
        (httpx.Response(422, json={"message": "was submitted too quickly"}), 60.0),
    ],
)
def test_a_limit_tells_how_long_to_wait(response: httpx.Response, wait_s: float) -> None:
    limited = error(response, writes=True)
    assert isinstance(limited, RateLimited)
    assert limited.retry_after_s == wait_s


def test_a_plain_403_and_422_are_no_limits() -> None:
    assert isinstance(error(httpx.Response(403, headers={"x-ratelimit-remaining": "4999"})), NotAuthorised)
    assert isinstance(error(httpx.Response(422, json={"errors": ["Line could not be resolved"]})), Unprocessable)


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_a_write_that_ends_unclear_has_an_unknown_outcome(status: int) -> None:
    assert isinstance(error(httpx.Response(status), writes=True), OutcomeUnknown)


@pytest.mark.parametrize("raised", [httpx.ReadTimeout, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError])
def test_a_connection_that_breaks_after_sending_leaves_a_write_unknown(raised: type[httpx.TransportError]) -> None:
    def breaks(_: httpx.Request) -> httpx.Response:
        raise raised(f"broke with {TOKEN}")

    with pytest.raises(OutcomeUnknown) as caught:
        ask(breaks, writes=True)
    assert TOKEN not in str(caught.value)
    with pytest.raises(Unreachable):
        ask(breaks)


@pytest.mark.parametrize("raised", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout])
def test_a_connection_that_was_never_made_wrote_nothing(raised: type[httpx.TransportError]) -> None:
    def breaks(_: httpx.Request) -> httpx.Response:
        raise raised("no route")

    with pytest.raises(Unreachable):
        ask(breaks, writes=True)


def test_a_page_of_html_with_200_is_no_answer() -> None:
    page = httpx.Response(200, html="<h1>Maintenance</h1>")
    with pytest.raises(Unreachable):
        http.json_of(page, forge="GitHub", what="x", writes=False)
    with pytest.raises(OutcomeUnknown):
        http.json_of(page, forge="GitHub", what="x", writes=True)


def test_an_endless_answer_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 1000)
    with pytest.raises(Unreachable):
        ask(lambda _: httpx.Response(200, content=b"x" * 1001))


def test_what_the_forge_says_is_shown_short_and_without_control_characters() -> None:
    said = str(error(httpx.Response(422, json={"message": "\x1b[31mno" + "!" * 900, "errors": ["why"]})))
    assert "\x1b" not in said
    assert "no!!!" in said
    assert len(said) < 500


@pytest.mark.parametrize("status", [401, 403, 422, 429])
def test_a_forge_that_repeats_our_credentials_has_them_taken_out(status: int) -> None:
    said = error(httpx.Response(status, json={"message": f"Bad token {TOKEN}", "errors": [f"Bearer {TOKEN}"]}))
    assert "Bad token [redacted]" in str(said)
