"""Twelve false secrets, planted where real ones lie; after a day's work and its failures none may be found anywhere."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import redis

from tests.fakes.github import GitHubServer, signed_headers
from tests.fakes.github_logins import GitHubLogins
from tests.fakes.kimi import Fault, KimiServer, error
from tests.fakes.program import COMMAND, Program, serving, until
from tests.fakes.sweep import Sweep
from worker.storage.embedded import EmbeddedRedis, start

REPOSITORY = "acme/shop"
KEY_ROWS = "MIIEfalse9Kq3rowOfAPrivateKey7Zx0planted\nQ2secondFalseRow8Lm4ofThatPrivateKey1Wv"
SECRETS = {
    "the provider's key, environment": "sk-planted1mK8vQ2xR7tLw9Zb3Nc5Yd6Hf",
    "the fallback's key, environment": "sk-planted2Ae4Sg6Uj8Ik0Ol1Pm3Nb5Vc7",
    "the API's token, environment": "planted3-api-token-Xk4Jd9Sw2Qp7",
    "a stranger's key, environment": "planted4/Foreign+Hq7Zt2Lx8Nv5Rb1Kc",
    "the forge's token, file": "ghp_planted5Tz8Wq3Lm6Kx9Rn2Vb4Jc7Hd1Fg",
    "the password of Redis, file": "planted6-redis-password-Uy5Gh8Jk",
    "the webhook's secret, .env": "planted7-webhook-secret-Bn3Mv6Cx",
    "a cloud key, added line": "AKIAPLANTED8QWERTYUI",
    "a token, removed line": "ghp_planted9Lk2Jh4Gf6Ds8Aq1Ws3Ed5Rf7Tg9X",
    "a private key, added lines": "Q2secondFalseRow8Lm4ofThatPrivateKey1Wv",
    "a key, title": "sk-planted10Qa1Zw2Sx3Ed4Cr5Fv6Tg7By8",
    "a token, description": "glpat-planted11Mn2Bv3Cx4Zl5Kj6",
}
WEBHOOK_SECRET = SECRETS["the webhook's secret, .env"]
BASE = f'TOKEN = "{SECRETS["a token, removed line"]}"\n\n\ndef total(items):\n    return sum(items)\n'
HEAD = f"""\
CLOUD = "{SECRETS["a cloud key, added line"]}"
KEY = \"\"\"-----BEGIN RSA PRIVATE KEY-----
{KEY_ROWS}
-----END RSA PRIVATE KEY-----\"\"\"


def total(items, seen=[]):
    return sum(items)
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[tuple[EmbeddedRedis, redis.Redis]]:
    """A Redis that asks for the planted password."""
    password = SECRETS["the password of Redis, file"]
    with start(tmp_path / "store") as server:
        with redis.Redis.from_url(server.url) as first:
            first.config_set("requirepass", password)
        with redis.Redis(unix_socket_path=str(server.socket), password=password) as client:
            yield server, client
            client.config_set("requirepass", "")


@pytest.mark.parametrize(
    "spelt",
    [
        lambda secret: f"prefix {secret} suffix".encode(),
        lambda secret: quote(f"key={secret}", safe="").encode(),
        lambda secret: secret.encode().hex().encode(),
        *(lambda secret, lead=lead: base64.b64encode(f"{lead}{secret}:x".encode()) for lead in ("", "u", "u:")),
    ],
)
@pytest.mark.parametrize("name", SECRETS)
def test_the_sweep_finds_a_secret_however_it_is_spelt(name: str, spelt: Callable[[str], bytes]) -> None:
    sweep = Sweep(SECRETS)
    sweep.look("a place", spelt(SECRETS[name]))
    assert sweep.found == [f"{name} in a place"]


def test_none_of_twelve_planted_secrets_is_found_anywhere_after_reviews_and_failures(
    tmp_path: Path, store: tuple[EmbeddedRedis, redis.Redis]
) -> None:
    server, client = store
    sweep = Sweep(SECRETS)
    with ExitStack() as held:
        github = held.enter_context(
            GitHubServer(tmp_path / "github", logins=GitHubLogins(SECRETS["the forge's token, file"]))
        )
        kimi = held.enter_context(KimiServer(key=SECRETS["the provider's key, environment"]))
        spare = held.enter_context(KimiServer(key=SECRETS["the fallback's key, environment"], models=("spare",)))
        folder = tmp_path / "serve"
        program = held.enter_context(serving(folder, settings(folder, github, kimi, spare, server)))
        held.enter_context(sweep.arguments_of(program.children))
        done = work(program, github, kimi, sweep)
        ask(program, done, sweep)
        sweep.look_into_redis(client)
    sweep.look("the log", program.log)
    sweep.look_into(folder, leaving_out=[folder / ".env", folder / "token", folder / "password"])
    for server_of_models in (kimi, spare):
        for request in server_of_models.requests:
            sweep.look("a request to the model", request.raw)
            shown = {name: value for name, value in request.headers.items() if name.lower() != "authorization"}
            sweep.look("headers to the model", repr(shown))
    for pull in github.pulls.values():
        for review in pull.reviews:
            sweep.look("a review", review.body)
            for comment in review.comments:
                sweep.look("a comment", comment.body)
        for note in pull.notes:
            sweep.look("a note", str(note["body"]))
    for request in [*github.seen, *github.git_server.seen]:
        sweep.look("an address at the forge", request.path)
    assert sweep.found == []
    assert sweep.bytes_seen > 100_000
    assert any("masked: AWS key" in json.loads(request.raw)["messages"][1]["content"] for request in kimi.answered)


def settings(
    folder: Path, github: GitHubServer, kimi: KimiServer, spare: KimiServer, store: EmbeddedRedis
) -> dict[str, str]:
    """The secrets in all three places that the program reads them from."""
    folder.mkdir()
    (folder / ".env").write_text(f"GITHUB_WEBHOOK_SECRET={WEBHOOK_SECRET}\n")
    (folder / "token").write_text(SECRETS["the forge's token, file"] + "\n")
    (folder / "password").write_text(SECRETS["the password of Redis, file"])
    return {
        "API_LLM_PROVIDER_MODEL": "kimi-k2.6",
        "API_OPENAI_FORCE_BASE_URL": kimi.base_url,
        "API_OPEN_AI_API_KEY": SECRETS["the provider's key, environment"],
        "FALLBACK_LLM_PROVIDER_MODEL": "spare",
        "FALLBACK_OPENAI_BASE_URL": spare.base_url,
        "FALLBACK_API_KEY": SECRETS["the fallback's key, environment"],
        "API_TOKEN": SECRETS["the API's token, environment"],
        "AWS_SECRET_ACCESS_KEY": SECRETS["a stranger's key, environment"],
        "GITHUB_TOKEN_FILE": str(folder / "token"),
        "GITHUB_API_URL": github.api_url,
        "GITHUB_URL": github.git_url,
        "REDIS_URL": f"unix://{quote(str(store.socket))}?db=0",
        "REDIS_PASSWORD_FILE": str(folder / "password"),
        "REVIEW_SETTLE_S": "0",
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "debug",
    }


def work(program: Program, github: GitHubServer, kimi: KimiServer, sweep: Sweep) -> list[str]:
    """Reviews and failures, each failure with a server that repeats what it was sent; the jobs."""
    repository = github.create(REPOSITORY)
    key, token = SECRETS["the provider's key, environment"], SECRETS["the forge's token, file"]
    jobs = []

    def review(*states: str) -> int:
        base = repository.commit({"shop.py": BASE})
        head = repository.commit({"shop.py": HEAD + f"# {len(jobs)}\n"}, parent=base, message=SECRETS["a key, title"])
        title, body = f"Rotate {SECRETS['a key, title']}", f"It was {SECRETS['a token, description']} before."
        number = github.open_pull(REPOSITORY, head=head, base=base, title=title, body=body)
        answer = github.deliver(program.webhook_url, secret=WEBHOOK_SECRET, repository=REPOSITORY, number=number)
        sweep.look("an answer to the forge", answer.text + repr(answer.headers))
        jobs.append(str(answer.json()["job"]))
        program.await_state(jobs[-1], *states)
        return number

    review("done")
    # The key is refused in words that repeat it; the second provider answers.
    refused = error("invalid_authentication_error", f"Incorrect API key provided: {key}. Bearer {key}")
    kimi.script(*[Fault(401, refused)] * 2)
    review("done")
    # The forge declines the post, in words that repeat the token; the change is told nothing but the cure.
    github.fail("POST", r"/reviews$", 403, body={"message": f"Bad token {token}"}, times=9)
    number = review("failed")
    until(lambda: github.notes(REPOSITORY, number) != [], "the change is told", log=lambda: program.log)
    # git is declined and redirected.
    github.git_server.faults.status = 403
    review("failed")
    github.git_server.faults.status = None
    github.git_server.faults.redirect_to = f"http://x:{token}@127.0.0.1:9"
    review("failed", "queued")
    github.git_server.faults.redirect_to = None
    # Calls with wrong logins, the secrets in the wrong places.
    body = b'{"action": "opened"}'
    for headers in (
        {"x-hub-signature-256": f"sha256={WEBHOOK_SECRET}"},
        signed_headers(body, secret=WEBHOOK_SECRET + "x"),
    ):
        answer = httpx.post(program.webhook_url, content=body, headers=headers, trust_env=False)
        assert answer.status_code == 401
        sweep.look("a refusal", answer.text)
    answer = httpx.get(f"{program.url}/metrics", headers={"authorization": f"Bearer {WEBHOOK_SECRET}"}, trust_env=False)
    sweep.look("a refusal", answer.text + repr(answer.headers))
    program.kill_worker()
    until(program.is_ready, "ready again", log=lambda: program.log)
    return jobs


def ask(program: Program, jobs: list[str], sweep: Sweep) -> None:
    """Every page and every command that an operator asks for an explanation."""
    for path in ("/", "/?details", "/metrics", "/readyz", "/livez", *(f"/reviews/{job}" for job in jobs)):
        answer = program.get(path)
        sweep.look(path, answer.text + repr(answer.headers))
    for arguments in [["check", "--json"], ["jobs"], ["dead", "list"], ["why", jobs[2]]]:
        done = subprocess.run(
            [str(COMMAND), *arguments],
            cwd=program.folder,
            env={"PATH": "/usr/bin:/bin", "HOME": str(program.folder), **program.environment},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.stdout, done.stderr
        sweep.look(" ".join(arguments), done.stdout + done.stderr)
