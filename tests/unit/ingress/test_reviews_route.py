"""POST /reviews and GET /reviews/{job}: for who has the token, and nobody else."""

from __future__ import annotations

import asyncio
import base64

import httpx
import pytest

from tests.unit.ingress.world import HEAD, TOKEN, World, body_of, refuse_connection

ASKED = {"forge": "github", "repository": "acme/api", "number": 7, "head": HEAD}
BEARER = {"authorization": f"Bearer {TOKEN}"}


def call(
    world: World, method: str, url: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
) -> httpx.Response:
    async def send() -> httpx.Response:
        async with world.client() as client:
            return await client.request(method, url, content=body, headers=BEARER if headers is None else headers)

    return asyncio.run(send())


def test_a_request_is_stored_and_its_job_can_be_read(world: World) -> None:
    answer = call(world, "POST", "/reviews", body=body_of(ASKED))
    assert answer.status_code == 202
    job = call(world, "GET", f"/reviews/{answer.json()['job']}").json()
    assert (job["repository"], job["number"], job["head"], job["state"]) == ("acme/api", 7, HEAD, "queued")
    assert job["decisions"] == [{"at": 1.0, "event": "job.accepted", "detail": "from a test"}]


def test_head_and_priority_need_not_be_given(world: World) -> None:
    asked = {name: value for name, value in ASKED.items() if name != "head"}
    assert call(world, "POST", "/reviews", body=body_of(asked)).status_code == 202
    (job,) = world.store.jobs.values()
    assert (job.head, job.priority.value) == ("", "interactive")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"forge": "nowhere"}, "forge"),
        ({"repository": "acme"}, "repository"),
        ({"repository": "acme/../etc"}, "repository"),
        ({"repository": "acme/api?x=1"}, "repository"),
        ({"repository": "-o/api"}, "repository"),
        ({"repository": "https://evil.example/a/b"}, "repository"),
        ({"number": 0}, "number"),
        ({"number": "7"}, "number"),
        ({"number": True}, "number"),
        ({"head": "main"}, "head"),
        ({"head": HEAD.upper()}, "head"),
        ({"priority": "urgent"}, "priority"),
        ({"url": "http://169.254.169.254/"}, "url"),
    ],
)
def test_a_wrong_member_is_named(world: World, change: dict[str, object], where: str) -> None:
    answer = call(world, "POST", "/reviews", body=body_of(ASKED | change))
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(f"{where}: ")
    assert world.store.jobs == {}


def test_what_a_repository_or_a_head_looks_like_is_said_in_words(world: World) -> None:
    answer = call(world, "POST", "/reviews", body=body_of(ASKED | {"repository": "acme"}))
    assert answer.json()["error"] == "repository: is no repository's name; write owner/name."
    answer = call(world, "POST", "/reviews", body=body_of(ASKED | {"head": "main"}))
    assert "40 or 64" in answer.json()["error"]


@pytest.mark.parametrize("name", ["number", "repository", "no such name"])
def test_a_name_that_is_there_twice_is_refused_and_said(world: World, name: str) -> None:
    body = body_of(ASKED)[:-1] + f', "{name}": 8, "{name}": 9}}'.encode()
    answer = call(world, "POST", "/reviews", body=body)
    assert answer.status_code == 400
    assert answer.json()["error"] == f'The body holds the name "{name}" twice in one object.'
    assert world.store.jobs == {}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"null", b'{"number": NaN}', b'{"a":' * 100_000])
def test_a_body_that_is_no_object_is_refused(world: World, body: bytes) -> None:
    assert call(world, "POST", "/reviews", body=body).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Token {TOKEN}"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": "Bearer "},
        {"authorization": "Basic " + base64.b64encode(f"x:{TOKEN}".encode()).decode()},
    ],
)
@pytest.mark.parametrize(("method", "url"), [("POST", "/reviews"), ("GET", "/reviews/x")])
def test_without_the_bearer_token_nothing_is_told_or_done(
    world: World, headers: dict[str, str], method: str, url: str
) -> None:
    answer = call(world, method, url, body=body_of(ASKED) if method == "POST" else None, headers=headers)
    assert answer.status_code == 401
    assert world.store.jobs == {}


def test_while_no_token_is_configured_nobody_is_let_in(world: World) -> None:
    world.api_token = None
    for headers in ({"authorization": "Bearer "}, {"authorization": "Bearer None"}, {}):
        answer = call(world, "POST", "/reviews", body=body_of(ASKED), headers=headers)
        assert answer.status_code == 401
        assert "API_TOKEN" in answer.json()["error"]


def test_an_unknown_job_is_404_and_a_store_that_is_away_503(world: World) -> None:
    assert call(world, "GET", "/reviews/none").status_code == 404
    world.store.down = refuse_connection
    assert call(world, "GET", "/reviews/none").status_code == 503
    assert call(world, "POST", "/reviews", body=body_of(ASKED)).status_code == 503
