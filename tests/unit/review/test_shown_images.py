"""Images of a change beside its text: what is sent, and what the ledger says all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.unit.core.test_images import jpeg, png
from worker.core.change import Snapshot
from worker.core.errors import Unreachable
from worker.core.exchange import Kind, Prompt
from worker.core.images import TOKENS
from worker.core.model_info import Budget
from worker.ports import Flow, Match
from worker.providers.tokens import o200k_counter
from worker.review.planning import Planned, Planning, Subject
from worker.review.prompts import words

BUDGET = Budget(window_tokens=262_144, output_tokens=65_536, token_factor=1.1, chunk_tokens=20_000)
SUBJECT = Subject(name="local", flow=Flow(change="local", repository="local"))
TEXT = "diff --git a/a.py b/a.py\nindex 1111111..2222222 100644\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-a = 1\n+a = 2\n"


def binary(path: str) -> str:
    return f"diff --git a/{path} b/{path}\nindex 1111111..2222222 100644\nBinary files a/{path} and b/{path} differ\n"


class Files:
    """A tree that holds `files` at the head."""

    def __init__(self, files: dict[str, bytes], *, is_away: bool = False) -> None:
        self.files = files
        self.is_away = is_away

    async def snapshot(self) -> Snapshot:
        return Snapshot(head="h", base="", diff=b"")

    async def read(self, path: str, *, revision: str, limit_bytes: int = 1_000_000) -> bytes | None:
        assert revision == "h"
        if self.is_away:
            raise Unreachable("git is away")
        return self.files.get(path)

    async def search(self, literal: str, *, revision: str, limit: int = 20) -> Sequence[Match]:
        return ()

    async def grep(self, pattern: str, *, revision: str) -> Sequence[Match]:
        return ()


FILES = {"logo.png": png(), "photo.jpg": jpeg(900, 600), "fake.png": b"no image", "big.webp": b"RIFF" + b"x" * 600_000}


def planned(tree: Files, *, shows_images: bool = True, budget: Budget = BUDGET, text: str = TEXT) -> Planned:
    diff = "".join(map(binary, FILES)) + text
    planning = Planning(budget=budget, words=words(Kind.FINDINGS), count=o200k_counter(), shows_images=shows_images)
    return asyncio.run(planning.plan(SUBJECT, Snapshot(head="h", base="", diff=diff.encode()), tree=tree))


def first_prompt(plan: Planned) -> Prompt:
    async def made() -> Prompt:
        return await plan.prompt(plan.plan.chunks[0])

    return asyncio.run(made())


def test_images_are_shown_named_and_reckoned_with_and_still_in_the_ledger() -> None:
    with_images, without = planned(Files(FILES)), planned(Files(FILES), shows_images=False)
    prompt, plain = first_prompt(with_images), first_prompt(without)
    assert [(image.path, image.media_type) for image in prompt.images] == [
        ("logo.png", "image/png"),
        ("photo.jpg", "image/jpeg"),
    ]
    assert "* logo.png\n* photo.jpg\n[end images " in prompt.user
    assert prompt.input_tokens == plain.input_tokens + 2 * TOKENS
    assert prompt.counted_tokens == 0
    assert plain.images == ()
    assert plain.counted_tokens > 0
    assert with_images.plan.ledger == without.plan.ledger
    left_out = {row.path: (row.reason, row.lines) for row in with_images.plan.ledger.not_reviewed}
    assert left_out["logo.png"] == ("binary file", 0)


def test_a_request_with_images_has_a_name_of_its_own() -> None:
    other = Files({**FILES, "logo.png": png(5, 5)})
    ids = {
        planned(tree, shows_images=shows).plan.chunks[0].id for tree in (Files(FILES), other) for shows in (True, False)
    }
    assert len(ids) == 3


def test_images_never_take_the_room_of_text() -> None:
    narrow = Budget(window_tokens=16_000, output_tokens=4_000, token_factor=1.1, chunk_tokens=2_000)
    plan = planned(Files(FILES), budget=narrow).plan
    assert len(plan.chunks[0].images) == 1
    assert plan.chunks[0].input_tokens <= narrow.input_tokens
    tiny = Budget(window_tokens=8_000, output_tokens=2_000, token_factor=1.1, chunk_tokens=2_000)
    assert planned(Files(FILES), budget=tiny).plan.chunks[0].images == ()


@pytest.mark.parametrize("tree", [Files({}), Files(FILES, is_away=True)])
def test_a_review_goes_on_without_images_that_cannot_be_read(tree: Files) -> None:
    assert first_prompt(planned(tree)) == first_prompt(planned(Files(FILES), shows_images=False))


def test_a_change_of_images_alone_is_no_request() -> None:
    assert planned(Files(FILES), text="").plan.chunks == ()
