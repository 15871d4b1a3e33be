"""The main job, from outside: a signed delivery goes in, one review with comments at the right lines comes out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.fakes.github import TOKEN, GitHubServer, PostedComment
from tests.fakes.kimi import KEY, Fault, KimiServer
from tests.fakes.program import API_TOKEN, WEBHOOK_SECRET, Program, serving, until

REPOSITORY = "acme/shop"
BEFORE = """\
import subprocess


def price(item):
    return item["price"]


def total(items):
    result = 0
    for item in items:
        result += price(item)
    return result
"""
AFTER = """\
import subprocess


def price(item, seen=[]):
    seen.append(item)
    if item == None:
        return 0
    return item["price"]


def total(items):
    result = 0
    for item in items:
        try:
            result += price(item)
        except:
            pass
    return result
"""
EXPECTED = {4: "def price(item, seen=[]):", 6: "if item == None:", 16: "except:"}
"""New line → what stands there, for each defect that the stand-in knows."""


@dataclass
class Scene:
    github: GitHubServer
    kimi: KimiServer
    program: Program
    number: int

    def deliver(self, delivery: str = "", action: str = "opened") -> dict[str, object]:
        answer = self.github.deliver(
            self.program.webhook_url,
            secret=WEBHOOK_SECRET,
            repository=REPOSITORY,
            number=self.number,
            action=action,
            delivery=delivery,
        )
        assert answer.status_code == 202, answer.text
        return dict(answer.json())


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with GitHubServer(tmp_path / "github") as github, KimiServer() as kimi:
        repository = github.create(REPOSITORY)
        base = repository.commit({"shop.py": BEFORE, "README.md": "Shop\n"})
        head = repository.commit({"shop.py": AFTER, "package-lock.json": '{"a": 1}\n'}, parent=base)
        number = github.open_pull(REPOSITORY, head=head, base=base)
        environment = {
            "API_LLM_PROVIDER_MODEL": "kimi-k2.6",
            "API_OPENAI_FORCE_BASE_URL": kimi.base_url,
            "API_OPEN_AI_API_KEY": KEY,
            "GITHUB_TOKEN": TOKEN,
            "GITHUB_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "GITHUB_API_URL": github.api_url,
            "GITHUB_URL": github.git_url,
            "REVIEW_SETTLE_S": "0",
            "LOG_FORMAT": "json",
        }
        with serving(tmp_path / "serve", environment) as program:
            yield Scene(github, kimi, program, number)


def comments_by_line(comments: list[PostedComment]) -> dict[int | None, PostedComment]:
    return {comment.line: comment for comment in comments}


def assert_one_right_review(scene: Scene) -> None:
    reviews = scene.github.reviews(REPOSITORY, scene.number)
    assert len(reviews) == 1
    [review] = reviews
    assert review.commit == scene.github.pull(REPOSITORY, scene.number).head
    assert review.state == "COMMENTED"
    assert {comment.line for comment in review.comments} == set(EXPECTED)
    assert all(comment.path == "shop.py" and comment.side == "RIGHT" for comment in review.comments)
    # 10 changed lines of shop.py and one of the lock file, which a rule leaves out by name.
    assert "10 of 11 changed lines reviewed; not reviewed: " in review.body
    assert "package-lock.json" in review.body
    assert scene.github.notes(REPOSITORY, scene.number) == []


def test_a_delivery_becomes_one_review_and_further_deliveries_add_nothing(scene: Scene) -> None:
    first = scene.deliver("delivery-1")
    job = str(first["job"])
    scene.program.await_state(job, "done")
    assert_one_right_review(scene)
    paid = len(scene.kimi.requests)

    again = scene.deliver("delivery-1")
    other = scene.deliver("delivery-2", action="synchronize")
    assert again["job"] == other["job"] == job
    asked = httpx.post(
        f"{scene.program.url}/reviews",
        headers={"authorization": f"Bearer {API_TOKEN}"},
        json={"forge": "github", "repository": REPOSITORY, "number": scene.number},
        timeout=5,
        trust_env=False,
    )
    assert asked.status_code == 202, asked.text
    scene.program.await_state(str(asked.json()["job"]), "done", "superseded", "skipped")
    assert_one_right_review(scene)
    assert len(scene.kimi.requests) == paid, "a review that is posted is not bought again"


def test_the_worker_killed_during_the_model_call_is_replaced_and_one_review_is_posted(scene: Scene) -> None:
    scene.kimi.script(Fault(delay_s=120))
    job = str(scene.deliver()["job"])
    until(lambda: len(scene.kimi.requests) > 0, "the model was asked", log=lambda: scene.program.log)
    scene.program.kill_worker()
    scene.program.await_state(job, "done", within_s=60)
    assert_one_right_review(scene)


def test_a_push_during_the_review_gives_one_review_of_the_new_head(scene: Scene) -> None:
    scene.kimi.script(Fault(delay_s=3))
    old = str(scene.deliver()["job"])
    until(lambda: len(scene.kimi.requests) > 0, "the model was asked", log=lambda: scene.program.log)
    repository = scene.github.repository(REPOSITORY)
    head = repository.commit({"README.md": "The shop\n"}, parent=scene.github.pull(REPOSITORY, scene.number).head)
    scene.github.push(REPOSITORY, scene.number, head)
    new = str(scene.deliver(action="synchronize")["job"])
    scene.program.await_state(new, "done")
    scene.program.await_state(old, "superseded")
    [review] = scene.github.reviews(REPOSITORY, scene.number)
    assert review.commit == head


def test_the_log_names_the_provider_and_holds_no_secret(scene: Scene) -> None:
    job = str(scene.deliver()["job"])
    scene.program.await_state(job, "done")
    lines = [json.loads(line) for line in scene.program.log.splitlines() if line.startswith("{")]
    told = [line for line in lines if line.get("model") == "kimi-k2.6" and "provider" in line]
    assert len(told) >= 3, "api, worker and each model call say which provider they use"
    assert any(line["event"] == "model.answered" for line in told)
    assert any(line["event"] == "review.published" and line["job"] == job for line in lines)
    for secret in (KEY, TOKEN, WEBHOOK_SECRET, API_TOKEN):
        assert secret not in scene.program.log
