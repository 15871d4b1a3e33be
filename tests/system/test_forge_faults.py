"""What a forge and its git can do to a whole review: one review, or an end that is said in words."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.fakes.git_server import GitServer
from tests.fakes.github import TOKEN
from tests.fakes.github_records import Fault, Pull
from tests.fakes.sweep import Sweep
from tests.fakes.workshop import BASE, REPOSITORY, Workshop, workshop
from worker.core.change import ChangeRef
from worker.core.job import Accepted, Intent, NotClaimed, State
from worker.forges.github.client import GitHubClient
from worker.ports import Jobs
from worker.storage.jobs import RedisJobs

DEFECT = "def total(items, seen=[]):\n    return sum(items)\n"
REVIEWS = r"/pulls/\d+/reviews$"


@pytest.fixture
def shop(tmp_path: Path, redis_url: str) -> Iterator[Workshop]:
    with workshop(tmp_path, redis_url) as opened:
        yield opened


def assert_one_review(shop: Workshop, number: int = 1) -> None:
    [review] = shop.github.reviews(REPOSITORY, number)
    assert review.commit == shop.github.pull(REPOSITORY, number).head
    assert [comment.line for comment in review.comments] == [1]


# --------------------------------------------------------------------------------- the change meanwhile


def closed(pull: Pull) -> None:
    pull.state = "closed"


def merged(pull: Pull) -> None:
    pull.state, pull.merged = "closed", True


def drafted(pull: Pull) -> None:
    pull.draft = True


def locked(pull: Pull) -> None:
    pull.locked = True


@pytest.mark.parametrize(
    ("become", "word"), [(closed, "closed"), (merged, "merged"), (drafted, "draft"), (locked, "locked")]
)
def test_a_change_that_became_closed_merged_draft_or_locked_is_skipped_with_the_reason_and_costs_nothing(
    shop: Workshop, become: Callable[[Pull], None], word: str
) -> None:
    job = shop.accept(shop.change(DEFECT))
    become(shop.github.pull(REPOSITORY, 1))
    found = shop.settle(job)
    assert found.state is State.SKIPPED
    assert word in found.reason
    assert shop.kimi.requests == []
    assert shop.github.reviews(REPOSITORY, 1) == []


def test_a_change_that_was_closed_during_its_review_gets_nothing_posted(shop: Workshop) -> None:
    job = shop.accept(shop.change(DEFECT))
    assert shop.work(job).state is State.REVIEWED
    closed(shop.github.pull(REPOSITORY, 1))
    found = shop.settle(job)
    assert (found.state, shop.github.reviews(REPOSITORY, 1)) == (State.SKIPPED, [])
    assert "closed" in found.reason


def test_a_head_that_was_pushed_away_is_superseded_and_the_new_one_is_reviewed_without_a_delivery(
    shop: Workshop,
) -> None:
    old = shop.accept(shop.change(BASE + "# more\n"))
    head = shop.push(1, DEFECT)
    found = shop.settle(old)
    assert (found.state, found.superseded_by) == (State.SUPERSEDED, head)
    assert shop.settle(shop.accept(1)).state is State.DONE
    assert_one_review(shop)


@pytest.mark.parametrize("asks_for_forks", [True, False])
def test_a_change_from_a_fork_is_reviewed_or_not_as_the_settings_say(
    tmp_path: Path, redis_url: str, asks_for_forks: bool
) -> None:
    with workshop(tmp_path, redis_url, REVIEW_FORKS=str(asks_for_forks).lower()) as shop:
        number = shop.change(DEFECT)
        shop.github.pull(REPOSITORY, number).is_fork = True
        found = shop.settle(shop.accept(number))
        if asks_for_forks:
            assert found.state is State.DONE
            assert_one_review(shop)
        else:
            assert found.state is State.SKIPPED
            assert "fork" in found.reason
        shop.reconcile()
        assert shop.job(found.id) == found, "the timer does not ask for it again every five minutes"
        assert len(shop.github.reviews(REPOSITORY, number)) == int(asks_for_forks)
        assert shop.installation.delivery_policy.forks is asks_for_forks


# ------------------------------------------------------------------------------------------------- git


@pytest.mark.parametrize(
    ("status", "says"),
    [(401, "The token was not accepted"), (403, "the token may read"), (404, "404")],
)
def test_git_that_declines_us_ends_the_job_with_a_cure_and_shows_the_token_nowhere(
    shop: Workshop, tmp_path: Path, status: int, says: str
) -> None:
    shop.github.git_server.faults.status = status
    found = shop.settle(shop.accept(shop.change(DEFECT)))
    assert found.state is State.FAILED
    assert says in found.reason
    assert_token_nowhere(shop, tmp_path)


def test_git_that_redirects_elsewhere_gets_no_token_there(shop: Workshop, tmp_path: Path) -> None:
    with GitServer(tmp_path / "elsewhere") as elsewhere:
        shop.github.git_server.faults.redirect_to = elsewhere.url
        found = shop.work(shop.accept(shop.change(DEFECT)))
        assert found.state is not State.DONE
        assert "redirect" in found.reason.lower() or "GITHUB_URL" in found.reason
        assert elsewhere.seen == []
    assert_token_nowhere(shop, tmp_path)


def test_a_full_disk_is_waited_out_and_what_was_half_fetched_is_removed(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetches = tmp_path / "bin" / "git"
    fetches.parent.mkdir()
    # In place of git: a fetch that writes a part of a pack and then finds no room, as git itself says it.
    fetches.write_text(
        "#!/bin/sh\n"
        'for word in "$@"; do [ "$word" = fetch ] && {\n'
        '  [ "$2" = -C ] && echo half > "$3/objects/pack/tmp_pack_half" && echo "$3" >> "$0.written"\n'
        '  echo "fatal: write error: No space left on device" >&2; exit 128; }; done\n'
        f'exec {shutil.which("git")} "$@"\n'
    )
    fetches.chmod(0o755)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{fetches.parent}:{path}")
    job = shop.accept(shop.change(DEFECT))
    found = shop.work(job)
    assert found.state is State.QUEUED
    assert "The disk is full" in found.reason
    [mirror] = set((fetches.parent / "git.written").read_text().splitlines())
    assert (Path(mirror) / "objects" / "pack").is_dir()
    assert list(Path(mirror).rglob("tmp_pack_*")) == []
    monkeypatch.setenv("PATH", path)
    assert shop.settle(job).state is State.DONE
    assert_one_review(shop)


def assert_token_nowhere(shop: Workshop, folder: Path) -> None:
    sweep = Sweep({"the token": TOKEN})
    sweep.look("the log", shop.log)
    with redis.Redis.from_url(shop.installation.redis_url) as client:
        sweep.look_into_redis(client)
    sweep.look_into(folder / "home")
    assert sweep.found == []


def test_a_forge_that_stumbles_when_it_is_asked_costs_the_job_no_attempt(shop: Workshop) -> None:
    shop.github.fail("GET", "/pulls/1$", 502, times=2)
    shop.github.fail("GET", "/pulls/1/reviews$", 403, headers={"Retry-After": "2"})
    job = shop.accept(shop.change(DEFECT))
    assert shop.work(job).state is State.REVIEWED
    assert shop.log.count('"forge.retry_scheduled"') == 3
    assert shop.settle(job).state is State.DONE
    assert_one_review(shop)


# ------------------------------------------------------------------------------------------------ posts


def test_a_post_whose_answer_was_lost_is_looked_up_and_stands_exactly_once(shop: Workshop) -> None:
    lost = shop.github.fail("POST", REVIEWS, None, acts=True)
    assert shop.settle(shop.accept(shop.change(DEFECT))).state is State.DONE
    assert lost.times == 0
    assert_one_review(shop)


@pytest.mark.parametrize("arrived", [True, False])
def test_an_answer_that_is_lost_while_somebody_pushes_leaves_one_review_of_each_head_at_most(
    shop: Workshop, arrived: bool
) -> None:
    old = shop.accept(shop.change(DEFECT))
    pushed: list[str] = []

    def lose(method: str, path: str) -> Fault | None:
        if pushed or method != "POST" or re.search(REVIEWS, path) is None:
            return None
        pushed.append(shop.push(1, f"{DEFECT}# more\n"))
        return Fault(method, REVIEWS, acts=arrived)

    shop.github.chance = lose
    first = shop.settle(old)
    assert first.state is (State.DONE if arrived else State.SUPERSEDED), first.reason
    newer = shop.settle(shop.accept(1))
    assert (newer.head, newer.state) == (pushed[0], State.DONE)
    heads = [review.commit for review in shop.github.reviews(REPOSITORY, 1)]
    assert heads == ([first.head] if arrived else []) + pushed
    # The same defect is not said twice: it stands at its line already.
    assert [comment.line for comment in shop.github.comments(REPOSITORY, 1)] == [1]


def test_a_limit_at_the_post_is_waited_out_and_the_paid_review_is_not_bought_again(shop: Workshop) -> None:
    limits = {"message": "You have exceeded a secondary rate limit."}
    shop.github.fail("POST", REVIEWS, 403, headers={"Retry-After": "1"}, body=limits)
    job = shop.accept(shop.change(DEFECT))
    assert shop.settle(job).state is State.DONE
    assert_one_review(shop)
    assert len(shop.kimi.requests) == 1


def test_a_line_that_the_forge_declines_goes_to_the_summary_and_the_others_stay_in_place(shop: Workshop) -> None:
    two = "def total(items, seen=[]):\n    try:\n        return sum(items)\n    except:\n        return 0\n"
    declined = {"message": "Unprocessable Entity", "errors": ["Line could not be resolved"]}
    # The whole is declined once, as it is for one bad line; which one, the client must find out by itself.
    shop.github.fail("POST", REVIEWS, 422, body=declined)
    assert shop.settle(shop.accept(shop.change(two))).state is State.DONE
    [review] = shop.github.reviews(REPOSITORY, 1)
    assert [comment.line for comment in review.comments] == [1, 4]
    for title in ("Mutable default", "except"):
        assert any(title.lower() in text.lower() for text in [review.body, *(c.body for c in review.comments)])


@pytest.mark.parametrize(
    "words", ["Repository was archived so is read-only.", "Resource not accessible by integration"]
)
def test_a_repository_that_takes_no_writes_ends_the_job_clearly(shop: Workshop, words: str) -> None:
    shop.github.fail("POST", ".", 403, body={"message": words}, times=100)
    job = shop.accept(shop.change(DEFECT))
    found = shop.settle(job)
    assert found.state is State.FAILED
    assert words in found.reason or "GITHUB_TOKEN" in found.reason
    shop.keep_up()  # the note cannot be posted either, and that ends nothing
    assert len(shop.kimi.requests) == 1
    assert shop.github.notes(REPOSITORY, 1) == []


def test_a_change_of_an_archived_repository_is_skipped_before_the_model_is_paid(shop: Workshop) -> None:
    shop.github.archived.add(REPOSITORY)
    found = shop.settle(shop.accept(shop.change(DEFECT)))
    assert found.state is State.SKIPPED
    assert "archived" in found.reason
    assert shop.kimi.requests == []


def test_a_job_of_a_repository_that_was_renamed_says_how_it_is_called_now(shop: Workshop) -> None:
    job = shop.accept(shop.change(DEFECT))
    shop.github.rename(REPOSITORY, "acme/store")
    found = shop.settle(job)
    assert found.state is State.FAILED
    assert "its repository is acme/store now" in found.reason
    assert shop.kimi.requests == []
    newly = shop.within(lambda services: services.request(Intent(ChangeRef("github", "acme/store", 1), "")))
    assert isinstance(newly, Accepted)
    assert shop.settle(newly.job).state is State.DONE
    assert len(shop.github.reviews("acme/store", 1)) == 1


def test_a_head_that_was_reviewed_under_the_repository_s_old_name_is_not_bought_again(
    tmp_path: Path, redis_url: str
) -> None:
    with workshop(tmp_path, redis_url, GITHUB_REPOSITORIES="acme/*") as shop:
        number = shop.change(DEFECT)
        assert shop.settle(shop.accept(number)).state is State.DONE
        shop.github.rename(REPOSITORY, "acme/store")
        shop.reconcile()
        [only] = shop.within(lambda services: services.jobs.list())
        assert only.ref.repository == REPOSITORY
        asked = shop.within(lambda services: services.request(Intent(ChangeRef("github", "acme/store", number), "")))
        assert isinstance(asked, Accepted)
        found = shop.settle(asked.job)
        assert found.state is State.SKIPPED
        assert "reviewed before" in found.reason
        assert len(shop.kimi.requests) == 1
        assert len(shop.github.reviews("acme/store", number)) == 1


def test_a_token_that_is_withdrawn_during_the_review_ends_the_job_with_its_cure(shop: Workshop) -> None:
    job = shop.accept(shop.change(DEFECT))
    assert shop.work(job).state is State.REVIEWED
    shop.github.logins.token = "ghp_anotherFalseTokenOfTheTests0000000000"
    found = shop.settle(job)
    assert found.state is State.FAILED
    assert "Renew the token" in found.reason
    shop.github.logins.token = TOKEN
    shop.within(lambda services: services.jobs.retry(job))
    assert shop.settle(job).state is State.DONE
    assert len(shop.kimi.requests) == 1, "the stored report is posted, not bought again"
    assert_one_review(shop)


# ------------------------------------------------------------------------------------------ the records


def test_a_job_whose_workers_died_three_times_becomes_a_dead_letter_and_its_change_is_told_once(shop: Workshop) -> None:
    job = shop.accept(shop.change(DEFECT))
    for _ in range(3):
        shop.within(lambda services: claim_and_die(RedisJobs(services.redis, lease_s=0.0), job))
    found = shop.work(job)
    assert found.state is State.FAILED
    assert "died 3 times" in found.reason
    shop.keep_up()
    with redis.Redis.from_url(shop.installation.redis_url) as client:
        # As if its process had died right after the note: the change itself then tells that it was told.
        assert client.zadd("{kimi-review}:notes", {job: 0}) == 1, "who was told is told no more"
    shop.keep_up()
    [note] = shop.github.notes(REPOSITORY, 1)
    assert "died 3 times" in note
    assert shop.kimi.requests == []


async def claim_and_die(jobs: Jobs, job: str) -> None:
    claimed = await jobs.claim(job, worker="w", states=(State.QUEUED, State.RUNNING))
    assert not isinstance(claimed, NotClaimed), claimed


def test_a_record_of_a_newer_program_is_left_to_a_newer_worker(shop: Workshop) -> None:
    job = shop.accept(shop.change(DEFECT))
    with redis.Redis.from_url(shop.installation.redis_url) as client:
        written = {"version": "99", "priority": "urgent", "field_of_the_future": "kept"}
        client.hset(f"{{kimi-review}}:job:{job}", mapping=written)
    assert [found.id for found in shop.within(lambda services: services.jobs.list())] == [job]
    assert shop.work(job).state is State.QUEUED
    assert "newer version" in shop.log
    with redis.Redis.from_url(shop.installation.redis_url) as client:
        client.hset(f"{{kimi-review}}:job:{job}", mapping={"version": "1", "priority": "interactive"})
    assert shop.settle(job).state is State.DONE
    with redis.Redis.from_url(shop.installation.redis_url) as client:
        assert client.hget(f"{{kimi-review}}:job:{job}", "field_of_the_future") == b"kept"


@pytest.mark.parametrize("ours", ["acme/shop", "acme/*"])
def test_an_emptied_store_is_rebuilt_from_the_open_changes_and_nothing_is_reviewed_twice(
    tmp_path: Path, redis_url: str, ours: str
) -> None:
    with workshop(tmp_path, redis_url, GITHUB_REPOSITORIES=ours) as shop:
        reviewed, missed = shop.change(DEFECT), shop.change(DEFECT)
        assert shop.settle(shop.accept(reviewed)).state is State.DONE
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
        shop.reconcile()
        shop.reconcile()
        rebuilt = shop.within(lambda services: services.jobs.list())
        assert [job.ref.number for job in rebuilt] == [missed]
        assert shop.settle(rebuilt[0].id).state is State.DONE
        for number in (reviewed, missed):
            assert_one_review(shop, number)


def test_a_review_that_was_cut_off_between_its_posts_is_finished_though_the_store_was_emptied(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GitHubClient, "comments_per_post", 5)
    many = "".join(f"def total_{n}(items, seen=[]):\n    return sum(items)\n\n\n" for n in range(8))
    with workshop(tmp_path, redis_url, REVIEW_MAX_COMMENTS_PER_FILE="8", GITHUB_REPOSITORIES=REPOSITORY) as shop:
        shop.github.fail("POST", REVIEWS, 403, body={"message": "Resource not accessible"}, after=1)
        number = shop.change(many)
        assert shop.settle(shop.accept(number)).state is State.FAILED
        assert len(shop.github.comments(REPOSITORY, number)) == 5
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
        shop.reconcile()
        [found] = shop.within(lambda services: services.jobs.list())
        assert shop.settle(found.id).state is State.DONE
        lines = [comment.line for comment in shop.github.comments(REPOSITORY, number)]
        assert sorted(line or 0 for line in lines) == [1 + 4 * n for n in range(8)]
        first, second = shop.github.reviews(REPOSITORY, number)
        assert ("8 findings" in first.body, "8 findings" in second.body) == (True, False)
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
        shop.reconcile()
        assert shop.within(lambda services: services.jobs.list()) == []
