"""What every forge does, the one in memory and the real clients against a strict server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.forge import MARKER_KEY, MemoryForge
from tests.fakes.github import TOKEN, GitHubServer
from worker.core.change import Change, ChangeRef
from worker.core.errors import NotFound, RateLimited, Transient, Unprocessable, Unreachable
from worker.core.marker import LAST, MORE, SUMMARY, Mark, Told, write, write_told
from worker.forges import FORGES
from worker.forges.access import Access
from worker.ports import Comment, Forge

T = TypeVar("T")
REPOSITORY = "acme/shop"
OLD = "".join(f"line {n}\n" for n in range(1, 41))
NEW = OLD.replace("line 5\n", "LINE 5\nline 5b\n").replace("line 30\n", "")


@dataclass(frozen=True, slots=True)
class Shown:
    """One visible review: its body and its comments as (path, side, start, line)."""

    body: str
    places: list[tuple[str, str, int, int]]


@dataclass(slots=True)
class World:
    """One forge with one open change: a.py with two hunks, line 5 changed and line 30 removed."""

    ref: ChangeRef
    run: Callable[[Callable[[Forge], Awaitable[object]]], object]
    push: Callable[[], str]
    shown: Callable[[], list[Shown]]
    edit: Callable[[str], None]
    rename: Callable[[str], None]
    """Give the repository another name."""
    stumble: Callable[[Transient, int], None]
    """So many further readings fail in this way."""

    def __call__(self, use: Callable[[Forge], Awaitable[T]]) -> T:
        return self.run(use)  # type: ignore[return-value]

    def change(self) -> Change:
        return self(lambda forge: forge.change(self.ref))

    def post(self, change: Change, summary: str, *comments: Comment) -> None:
        self(lambda forge: forge.post(change, summary=summary, comments=comments))


def _memory() -> Iterator[World]:
    forge = MemoryForge()
    ref = ChangeRef("github", REPOSITORY, 1)
    change = Change(
        ref=ref, head="1" * 40, base="b" * 40, base_branch="main", title="A change", author="alice", repository_id="42"
    )
    sides = {
        ("a.py", "RIGHT"): [frozenset(range(2, 10)), frozenset(range(28, 34))],
        ("a.py", "LEFT"): [frozenset({5}), frozenset({30})],
    }
    forge.open(change, sides)

    def edit(what: str) -> None:
        now = forge.changes[ref]
        forge.changes[ref] = replace(
            now, state="closed" if what == "close" else now.state, is_draft=what == "draft", is_locked=what == "lock"
        )

    yield World(
        ref=ref,
        run=lambda use: asyncio.run(use(forge)),  # type: ignore[arg-type]
        push=lambda: forge.push(ref, "2" * 40).head,
        shown=lambda: [
            Shown(r.body, [(c.path, c.side, c.start_line, c.line) for c in r.comments])
            for r in forge.reviews.get(ref, [])
        ],
        edit=edit,
        rename=lambda name: forge.rename(REPOSITORY, name),
        stumble=lambda error, times: forge.read_faults.extend([error] * times),
    )


def _github(root: Path) -> Iterator[World]:
    with GitHubServer(root) as github:
        repository = github.create(REPOSITORY)
        base = repository.commit({"a.py": OLD})
        head = repository.commit({"a.py": NEW}, parent=base)
        ref = ChangeRef("github", REPOSITORY, github.open_pull(REPOSITORY, head=head, base=base))
        access = Access(url=github.git_url, api_url=github.api_url, marker_key=MARKER_KEY, token=TOKEN, timeout_s=5)

        async def used(use: Callable[[Forge], Awaitable[object]]) -> object:
            async with FORGES["github"].open(access, FakeClock()) as forge:
                return await use(forge)

        def push() -> str:
            newer = repository.commit({"a.py": NEW + "more\n"}, parent=head)
            github.push(REPOSITORY, ref.number, newer)
            return newer

        def edit(what: str) -> None:
            pull = github.pull(REPOSITORY, ref.number)
            pull.state = "closed" if what == "close" else "open"
            pull.draft, pull.locked = what == "draft", what == "lock"

        def stumble(error: Transient, times: int) -> None:
            if isinstance(error, RateLimited):
                github.fail("GET", ".", 403, headers={"Retry-After": f"{error.retry_after_s:.0f}"}, times=times)
            else:
                github.fail("GET", ".", 502, times=times)

        yield World(
            ref=ref,
            run=lambda use: asyncio.run(used(use)),
            push=push,
            shown=lambda: [
                Shown(r.body, [(c.path, c.side, c.start_line or c.line or 0, c.line or 0) for c in r.comments])
                for r in github.reviews(REPOSITORY, ref.number)
            ],
            edit=edit,
            rename=lambda name: github.rename(REPOSITORY, name),
            stumble=stumble,
        )


@pytest.fixture(params=["memory", *FORGES])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    yield from _memory() if request.param == "memory" else _github(tmp_path)


def comment(line: int, *, start: int | None = None, side: str = "RIGHT", path: str = "a.py", name: str = "") -> Comment:
    return Comment(path, side, line if start is None else start, line, f"Look at {line}.", name or f"fp{line}")


def marked(change: Change, text: str, fingerprint: str) -> str:
    mark = Mark("job1", change.head, fingerprint)
    return write(mark, key=MARKER_KEY, ref=change.ref, repository_id=change.repository_id) + "\n" + text


def marked_comment(change: Change, given: Comment) -> Comment:
    return replace(given, body=marked(change, given.body, given.fingerprint))


def test_a_change_tells_its_head_base_and_state(world: World) -> None:
    change = world.change()
    assert (change.ref, change.state, change.base_branch, change.author) == (world.ref, "open", "main", "alice")
    assert len(change.head) == 40
    assert not change.is_draft
    assert not change.is_fork


def test_a_change_that_is_not_there_is_not_found(world: World) -> None:
    with pytest.raises(NotFound):
        world(lambda forge: forge.change(ChangeRef("github", REPOSITORY, 999)))


def test_a_draft_a_closed_and_a_locked_change_say_so(world: World) -> None:
    world.edit("draft")
    assert world.change().is_draft
    world.edit("lock")
    assert world.change().is_locked
    world.edit("close")
    assert world.change().state == "closed"


def test_a_push_changes_the_head(world: World) -> None:
    newer = world.push()
    assert world.change().head == newer


def test_one_post_is_one_visible_review_with_its_comments_in_place(world: World) -> None:
    world.post(world.change(), "Summary", comment(6, start=5), comment(30, side="LEFT"))
    (review,) = world.shown()
    assert review.body == "Summary"
    assert review.places == [("a.py", "RIGHT", 5, 6), ("a.py", "LEFT", 30, 30)]


def test_a_post_without_comments_is_one_visible_review(world: World) -> None:
    world.post(world.change(), "Nothing found")
    assert [(review.body, review.places) for review in world.shown()] == [("Nothing found", [])]


def test_what_was_posted_is_found_again_by_its_marker(world: World) -> None:
    change = world.change()
    nothing = world(lambda forge: forge.posted(change))
    assert (nothing.has_summary, nothing.fingerprints, nothing.earlier) == (False, frozenset(), frozenset())
    world.post(change, marked(change, "Summary", SUMMARY), marked_comment(change, comment(5)))
    found = world(lambda forge: forge.posted(change))
    assert (found.has_summary, found.fingerprints, found.earlier) == (True, frozenset({"fp5"}), frozenset())


def test_what_was_posted_for_an_earlier_head_is_told_apart(world: World) -> None:
    change = world.change()
    world.post(change, marked(change, "Summary", SUMMARY), marked_comment(change, comment(5)))
    world.push()
    newer = world.change()
    found = world(lambda forge: forge.posted(newer))
    assert (found.has_summary, found.fingerprints, found.earlier) == (False, frozenset(), frozenset({"fp5"}))


def test_a_review_whose_further_posts_did_not_arrive_is_not_whole(world: World) -> None:
    change = world.change()
    world.post(
        change, marked(change, "", SUMMARY) + marked(change, "Summary", MORE), marked_comment(change, comment(5))
    )
    part = world(lambda forge: forge.posted(change))
    assert (part.has_summary, part.is_whole, part.fingerprints) == (True, False, frozenset({"fp5"}))
    world.post(change, marked(change, "The rest", LAST), marked_comment(change, comment(6)))
    whole = world(lambda forge: forge.posted(change))
    assert (whole.is_whole, whole.fingerprints) == (True, frozenset({"fp5", "fp6"}))
    world.push()
    newer = world.change()
    found = world(lambda forge: forge.posted(newer))
    assert (found.is_whole, found.is_unfinished, found.earlier) == (False, False, frozenset({"fp5", "fp6"}))


def listing(change: Change, *fingerprints: str) -> str:
    told = Told("job1", change.head, fingerprints)
    return write_told(told, key=MARKER_KEY, ref=change.ref, repository_id=change.repository_id)


def test_what_a_summary_told_counts_for_later_heads_and_not_for_its_own(world: World) -> None:
    change = world.change()
    world.post(change, f"{marked(change, 'Summary', SUMMARY)}\n\n{listing(change, 'fp8', 'fp9')}\n\nThe end")
    found = world(lambda forge: forge.posted(change))
    assert (found.is_whole, found.fingerprints, found.earlier) == (True, frozenset(), frozenset())
    world.push()
    newer = world.change()
    world.post(newer, f"{marked(newer, 'The rest', 'continued-1')}", marked_comment(newer, comment(5, name="fp8")))
    found = world(lambda forge: forge.posted(newer))
    assert (found.has_summary, found.fingerprints, found.earlier) == (
        False,
        frozenset({"continued-1", "fp8"}),
        frozenset({"fp9"}),
    )


def test_what_a_summary_told_is_known_though_the_repository_was_renamed(world: World) -> None:
    change = world.change()
    world.post(change, marked(change, "Summary", SUMMARY) + listing(change, "fp8"))
    world.rename("acme/store")
    world_change = world(lambda forge: forge.change(replace(world.ref, repository="acme/store")))
    newer = replace(world_change, head="3" * 40)
    assert world(lambda forge: forge.posted(newer)).earlier == {"fp8"}


def test_what_a_stranger_or_a_copy_from_another_change_calls_told_hides_nothing(world: World) -> None:
    change = world.change()
    told = Told("job1", "9" * 40, ("fp8",))
    forged = write_told(told, key=b"a stranger's key", ref=change.ref)
    copied = write_told(told, key=MARKER_KEY, ref=ChangeRef("github", REPOSITORY, change.ref.number + 1))
    changed = listing(replace(change, head="9" * 40), "fp7").replace("fp7", "fp8")
    world.post(change, f"Summary{forged}{copied}{changed}")
    assert world(lambda forge: forge.posted(change)).earlier == frozenset()


def test_a_summary_that_is_cut_calls_nothing_told_that_it_does_not_show(world: World) -> None:
    change = world.change()
    limit = world(_body_limit)
    rows = "- a row of the list\n" * (limit // 19)
    world.post(change, f"{marked(change, 'Summary', SUMMARY)}\n{rows}\n\n{listing(change, 'fp8')}")
    (review,) = world.shown()
    assert len(review.body) <= limit
    world.push()
    assert world(lambda forge: forge.posted(replace(change, head="3" * 40))).earlier == frozenset()


def test_what_summaries_only_counted_is_known_as_that_until_one_tells_it(world: World) -> None:
    change = world.change()
    counted = Told("job1", change.head, ("fp6", "fp7", "fp8", "fp9"), is_counted=True)
    mark = write_told(counted, key=MARKER_KEY, ref=change.ref, repository_id=change.repository_id)
    world.post(change, f"{marked(change, 'Summary', SUMMARY)}\n\n{mark}", marked_comment(change, comment(6)))
    assert world(lambda forge: forge.posted(change)).counted == frozenset()
    world.push()
    newer = world.change()
    world.post(newer, f"{marked(newer, 'Summary', SUMMARY)}\n\n{listing(newer, 'fp7')}")
    found = world(lambda forge: forge.posted(newer))
    assert (found.earlier, found.counted) == ({"fp6"}, {"fp7", "fp8", "fp9"})
    found = world(lambda forge: forge.posted(replace(newer, head="3" * 40)))
    assert (found.earlier, found.counted) == ({"fp6", "fp7"}, {"fp8", "fp9"})


async def _body_limit(forge: Forge) -> int:
    return forge.body_limit


def test_a_full_post_of_long_comments_at_no_line_loses_no_mark_and_no_title(world: World) -> None:
    change = world.change()
    count, limit = world(_limit), world(_body_limit)
    long = [
        marked_comment(change, replace(comment(777, name=f"fp{n}"), body=f"Title {n}.\n\n" + "A line of text.\n" * 250))
        for n in range(count)
    ]
    assert sum(len(one.body) for one in long) > limit
    world.post(change, marked(change, "Summary", SUMMARY), *long)
    (review,) = world.shown()
    assert len(review.body) <= limit
    assert all(f"Title {n}." in review.body for n in range(count))
    found = world(lambda forge: forge.posted(change))
    assert (found.has_summary, found.fingerprints) == (True, {one.fingerprint for one in long})


def test_what_was_posted_is_found_when_the_repository_has_another_name(world: World) -> None:
    change = world.change()
    world.post(change, marked(change, "Summary", SUMMARY), marked_comment(change, comment(5)))
    world(lambda forge: forge.note(change, marked(change, "Not reviewed", "note")))
    world.rename("acme/store")
    renamed = world(lambda forge: forge.change(replace(world.ref, repository="acme/store")))
    assert renamed.repository_id == change.repository_id
    found = world(lambda forge: forge.posted(renamed))
    assert (found.is_whole, found.fingerprints) == (True, frozenset({"fp5"}))
    assert world(lambda forge: forge.noted(renamed)) == {"note"}


def test_a_marker_of_a_stranger_hides_nothing(world: World) -> None:
    change = world.change()
    forged = write(Mark("job1", change.head, SUMMARY), key=b"a stranger's key", ref=change.ref)
    elsewhere = write(
        Mark("job1", change.head, SUMMARY), key=MARKER_KEY, ref=ChangeRef("github", REPOSITORY, change.ref.number + 1)
    )
    world.post(change, f"{forged}{elsewhere}")
    assert not world(lambda forge: forge.posted(change)).has_summary


@pytest.mark.parametrize(
    "bad",
    [
        comment(99999),
        comment(20),
        comment(30, start=5),
        comment(6, side="LEFT"),
        comment(5, path="nowhere.py"),
    ],
    ids=["line-out-of-file", "line-out-of-hunks", "across-hunks", "wrong-side", "unknown-path"],
)
def test_one_bad_anchor_goes_to_the_summary_and_loses_no_other(world: World, bad: Comment) -> None:
    change = world.change()
    good = [marked_comment(change, comment(line)) for line in (4, 5, 6)]
    placed_badly = marked_comment(change, replace(bad, fingerprint="misplaced", body="The misplaced one."))
    world.post(change, marked(change, "Summary", SUMMARY), good[0], placed_badly, *good[1:])
    (review,) = world.shown()
    assert [place[3] for place in review.places] == [4, 5, 6]
    assert "The misplaced one." in review.body
    assert world(lambda forge: forge.posted(change)).fingerprints == {"fp4", "fp5", "fp6", "misplaced"}


def test_a_post_of_bad_anchors_alone_still_shows_the_summary(world: World) -> None:
    change = world.change()
    world.post(change, "Summary", comment(777), comment(778))
    (review,) = world.shown()
    assert review.places == []
    assert "Look at 777." in review.body
    assert "Look at 778." in review.body


def test_more_comments_than_a_post_may_carry_are_refused(world: World) -> None:
    change = world.change()
    limit = world(_limit)
    with pytest.raises(Unprocessable):
        world.post(change, "Summary", *(comment(5, name=f"fp{n}") for n in range(limit + 1)))
    assert world.shown() == []


async def _limit(forge: Forge) -> int:
    return forge.comments_per_post


def test_as_many_comments_as_a_post_may_carry_are_posted(world: World) -> None:
    limit = world(_limit)
    world.post(world.change(), "Summary", *(comment(5, name=f"fp{n}") for n in range(limit)))
    (review,) = world.shown()
    assert len(review.places) == limit


def test_a_note_is_found_again_for_its_head(world: World) -> None:
    change = world.change()
    assert world(lambda forge: forge.noted(change)) == frozenset()
    world(lambda forge: forge.note(change, marked(change, "Not reviewed", "note")))
    assert world(lambda forge: forge.noted(change)) == {"note"}
    world.push()
    newer = world.change()
    assert world(lambda forge: forge.noted(newer)) == frozenset()


def test_open_changes_are_listed_and_closed_ones_are_not(world: World) -> None:
    async def listed(forge: Forge) -> list[ChangeRef]:
        return [change.ref async for change in forge.open_changes(REPOSITORY)]

    assert world(listed) == [world.ref]
    world.edit("close")
    assert world(listed) == []


def test_repositories_within_reach_are_listed(world: World) -> None:
    async def listed(forge: Forge) -> list[str]:
        return [name async for name in forge.repositories()]

    assert world(listed) == [REPOSITORY]


def test_git_is_read_from_the_configured_host_without_a_login_in_the_url(world: World) -> None:
    change = world.change()
    remote = world(lambda forge: forge.remote_ready(change))
    assert remote.url.endswith(f"/{REPOSITORY}.git")
    assert "@" not in remote.url
    assert TOKEN not in repr(remote)


@pytest.mark.parametrize(
    "error", [Unreachable("gone"), RateLimited("too fast", retry_after_s=3)], ids=["away", "limit"]
)
def test_a_reading_that_fails_for_a_moment_is_answered_all_the_same(world: World, error: Transient) -> None:
    world.stumble(error, 2)
    change = world.change()
    world.post(change, marked(change, "Summary", SUMMARY))
    world.stumble(error, 2)
    assert world(lambda forge: forge.posted(change)).has_summary


def test_a_reading_that_goes_on_failing_is_left_to_the_job(world: World) -> None:
    world.stumble(Unreachable("gone"), 99)
    with pytest.raises(Unreachable):
        world.change()


def test_a_limit_that_holds_for_longer_is_left_to_the_job_at_once(world: World) -> None:
    world.stumble(RateLimited("used up", retry_after_s=1200), 1)
    with pytest.raises(RateLimited) as limited:
        world.change()
    assert limited.value.retry_after_s == 1200
    assert world.change().ref == world.ref
