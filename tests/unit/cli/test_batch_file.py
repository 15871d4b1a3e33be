"""Files that name the changes of a batch, as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.cli.batch_file import refs_in
from worker.core.change import ChangeRef
from worker.core.errors import BadInput
from worker.settings import Settings

SETTINGS = Settings(github_url="https://github.example")


def changes(folder: Path, text: bytes) -> list[ChangeRef]:
    path = folder / "changes"
    path.write_bytes(text)
    return refs_in(path, SETTINGS)


def test_byte_order_mark_line_ends_of_windows_comments_and_empty_lines_are_nothing(tmp_path: Path) -> None:
    text = (
        "\ufeff# from a spreadsheet\r\nacme/shop#1\r\n\r\n   acme/shop#2   # the second\r\n"
        "https://github.example/acme/shop/pull/3/files\r\ngithub:acme/shop#4"
    )
    assert changes(tmp_path, text.encode()) == [ChangeRef("github", "acme/shop", n) for n in (1, 2, 3, 4)]
    assert changes(tmp_path, "\ufeffacme/shop#1".encode()) == [ChangeRef("github", "acme/shop", 1)]


def test_every_line_that_names_no_change_is_told_at_once(tmp_path: Path) -> None:
    text = b"acme/shop\nacme/shop#1\nhttps://evil.example/acme/shop/pull/1\ngitlab:acme/shop#1\nacme/shop#one\n"
    with pytest.raises(BadInput, match="names no change in line 1, 3, 4, 5"):
        changes(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [(b"", "names no change"), (b"# none\n", "names no change"), ("acme/shop#1".encode("utf-16"), "not UTF-8")],
)
def test_a_file_without_changes_and_one_of_another_encoding_are_refused(tmp_path: Path, text: bytes, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        changes(tmp_path, text)
