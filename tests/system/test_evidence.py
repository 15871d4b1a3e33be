"""Evidence for a chunk, gathered from a real repository at the head."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes.git_server import BareRepository, git
from worker.checkout import CheckoutLimits, open_local
from worker.core.diff.parse import parse_diff
from worker.core.errors import Unreachable
from worker.core.evidence.sites import PATTERN
from worker.core.planning.plan import Chunk, ChunkFile
from worker.ports import Match
from worker.review.evidence import EvidenceSource

TOOL = '''"""Tools."""


def shout(text: str, times: int = 1) -> str:
    """Say it loudly."""
    return text.upper() * times


def whisper(text: str) -> str:
    return text.lower()
'''
APP = '''from lib.tool import shout


class App:
    """The application."""

    limit = 3

    def before(self):
        return 0

    def run(self, name):
        first = name
        second = first
        third = second
        fourth = third
        fifth = fourth
        return fifth
'''
OTHER = """from app import App


def main():
    app = App()
    app.run("x")
    return app
"""


def words(text: str | bytes) -> int:
    return len(text.split())


def evidence(
    folder: Path,
    files: dict[str | bytes, bytes | str | None],
    *,
    besides: Mapping[str | bytes, bytes | str | None] | None = None,
    budget: int = 100_000,
    spoil: Callable[[EvidenceSource], None] | None = None,
) -> str:
    """For the change that `files` make to the little application, which has more files in it with `besides`."""
    folder.mkdir()
    git(folder, "init", "--quiet", "--bare")
    repository = BareRepository(folder)
    application: dict[str | bytes, bytes | str | None] = {"app.py": APP, "lib/tool.py": TOOL, "other.py": OTHER}
    root = repository.commit(application | {"big.py": "x = 1\n" * 10} | dict(besides or {}))
    head = repository.commit(files, parent=root)

    async def run() -> str:
        async with open_local(folder, f"{root}..{head}") as tree:
            snapshot = await tree.snapshot()
            parts = [
                ChunkFile(f"F{number}", file, file.hunks) for number, file in enumerate(parse_diff(snapshot.diff), 1)
            ]
            source = EvidenceSource(tree, snapshot, words)
            if spoil is not None:
                spoil(source)
            with closing(source):
                return await source.gather(Chunk("c", tuple(parts), 0, 0), budget_tokens=budget)

    return asyncio.run(run())


def test_a_change_is_shown_with_its_scope_its_definitions_and_its_surroundings(tmp_path: Path) -> None:
    text = evidence(tmp_path / "r", {"app.py": APP.replace("return fifth", "return shout(fifth, self.limit)")})
    assert re.search(r"^E\d+ lib/tool\.py:4-6 \(definition of shout\)$", text, re.MULTILINE)
    assert "    def shout(text: str, times: int = 1) -> str:\n" in text
    assert "    class App:\n" in text
    assert "        def run(self, name):\n" in text
    assert "        limit = 3\n" in text
    assert "def whisper" not in text
    assert "return shout" not in text, "the change itself is in the unit"


def test_prose_gets_no_evidence_and_leaves_its_room_to_code(tmp_path: Path) -> None:
    guide = "\n".join(f"Line {number} tells to shout." for number in range(80))
    change: dict[str | bytes, bytes | str | None] = {"docs/guide.md": guide, "app.po": 'msgid "shout"\n'}
    assert evidence(tmp_path / "words", change) == ""
    change["app.py"] = APP.replace("return fifth", "return shout(fifth, self.limit)")
    text = evidence(tmp_path / "both", change)
    assert "definition of shout" in text
    assert "guide" not in text


def test_a_name_is_not_defined_by_another_language_a_comment_or_a_local_variable(tmp_path: Path) -> None:
    text = evidence(
        tmp_path / "r",
        {"app.py": APP.replace("return fifth", "return combine(total, fifth)")},
        besides={
            "page.js": "const total = 3;\nfunction combine(a, b) {\n  return a;\n}\n",
            "lib/sums.py": 'def add(a):\n    """\n    Answer the total(s). It\n    """\n    combine = a\n    return a',
        },
    )
    assert "page.js" not in text
    assert "lib/sums.py" not in text


def test_a_definition_without_a_name_is_found_by_the_one_that_its_importer_gives_it(tmp_path: Path) -> None:
    before = "import Picker from './ui/date-picker'\nimport { Button } from './ui'\nimport load from '@/load'\n"
    text = evidence(
        tmp_path / "r",
        {"src/app.jsx": before + "run(Picker, Button, load(1))\n"},
        besides={
            "src/app.jsx": before,
            "src/ui/index.js": "export { default as Button } from './button'\n",
            "src/ui/button.jsx": "export default class extends Base {\n  press() {}\n}\n",
            "src/ui/date-picker.jsx": "const open = 1\nexport default ({ day, month }) => {\n  return day\n}\n",
            "src/load.ts": "export default async function (what: number) {\n  return what\n}\n",
            "lib/picker.jsx": "export default function () {}\n",
        },
    )
    for heading in (
        "src/ui/date-picker.jsx:2-4 (definition of Picker)",
        "src/ui/button.jsx:1-3 (definition of Button)",
        "src/load.ts:1-3 (definition of load)",
    ):
        assert heading in text
    assert "lib/picker.jsx" not in text


def test_callers_of_a_changed_signature_are_shown(tmp_path: Path) -> None:
    text = evidence(tmp_path / "r", {"app.py": APP.replace("def run(self, name)", "def run(self, name, more)")})
    assert re.search(r"^E\d+ other\.py:\d+-\d+ \(.*caller of run.*\)$", text, re.MULTILINE)
    assert '        app.run("x")\n' in text


class _Noted:
    """A tree that notes what is searched for."""

    def __init__(self, source: EvidenceSource) -> None:
        self._tree = source.tree
        self.searched: list[str] = []

    async def read(self, path: str, *, revision: str, limit_bytes: int = 1_000_000) -> bytes | None:
        return await self._tree.read(path, revision=revision, limit_bytes=limit_bytes)

    async def search(self, literal: str, *, revision: str, limit: int = 20) -> Sequence[Match]:
        self.searched.append(literal)
        return await self._tree.search(literal, revision=revision, limit=limit)

    async def grep(self, pattern: str, *, revision: str) -> Sequence[Match]:
        return await self._tree.grep(pattern, revision=revision)


def test_callers_are_looked_for_only_of_what_code_may_call(tmp_path: Path) -> None:
    noted: list[_Noted] = []

    def spoil(source: EvidenceSource) -> None:
        noted.append(_Noted(source))
        source.tree = noted[0]  # type: ignore[assignment] # the snapshot is never reached

    before = "LIMIT = 1\n\n\ndef go(a):\n    return a\n\n\nclass Box:\n    size: int = 3\n"
    test = "def test_go(a):\n    pass\n\n\ndef helper(a):\n    pass\n"
    evidence(
        tmp_path / "r",
        {
            "box.py": "LIMIT = 2\n\n\ndef go(b):\n    return b\n\n\nclass Box:  # of things\n    size: int = 4\n",
            "tests/test_box.py": test.replace("(a)", "(b)"),
        },
        besides={"box.py": before, "tests/test_box.py": test},
        spoil=spoil,
    )
    assert sorted(noted[0].searched) == ["Box(", "go(", "helper("]


def test_callers_in_source_come_before_tests_and_keep_documents_and_others_code_away(tmp_path: Path) -> None:
    change: dict[str | bytes, bytes | str | None] = {"app.py": APP.replace("def run(self, name)", "def run(self, n)")}
    besides: dict[str | bytes, bytes | str | None] = {
        "README.md": "Call run(x).\n" * 30,
        "a/vendor/tool.py": "run(1)\n" * 30,
        "tests/test_app.py": "run(1)\nrun(2)\nrun(3)\n",
        **{f"zz/user{number}.py": "run(9)\n" for number in range(5)},
    }
    text = evidence(tmp_path / "source", change, besides=besides)
    assert text.count("run(9)") == 5
    assert '    app.run("x")\n' in text
    assert not any(path in text for path in ("README.md", "vendor", "tests/"))
    only = {path: rows for path, rows in besides.items() if not str(path).startswith("zz")}
    text = evidence(tmp_path / "tests", change, besides=only)
    assert "tests/test_app.py" in text
    assert "vendor" not in text


def test_a_small_budget_holds_and_none_means_nothing(tmp_path: Path) -> None:
    change: dict[str | bytes, bytes | str | None] = {"app.py": APP.replace("return fifth", "return shout(fifth)")}
    assert 0 < words(evidence(tmp_path / "small", change, budget=40)) <= 40
    assert evidence(tmp_path / "none", change, budget=0) == ""


def test_secrets_in_evidence_are_masked(tmp_path: Path) -> None:
    secret = "AKIA" + "ABCDEFGHIJKLMNOP"
    with_secret = TOOL.replace("return text.upper()", f'key = "{secret}"\n    return text.upper()')
    change: dict[str | bytes, bytes | str | None] = {
        "lib/tool.py": with_secret.replace("times: int = 1", "times: int = 2"),
        "app.py": APP.replace("return fifth", "return shout(fifth)"),
    }
    text = evidence(tmp_path / "r", change)
    assert "def" in text
    assert secret not in text


def test_deleted_odd_and_hostile_files_are_no_trouble(tmp_path: Path) -> None:
    text = evidence(
        tmp_path / "r",
        {
            "lib/tool.py": None,
            "app.py": b"\xff\xfe\0" + APP.encode(),
            "new\nline.py": "def shout(:\n" * 50,
            "deep.py": "(" * 4_000 + "\n" + "shout(" * 600,
            "link.py": "/etc/passwd",
            "huge.py": "y = shout(1)\n" * 60_000,
        },
    )
    assert "root:" not in text
    assert all(row == "" or row.startswith(("E", "    ")) for row in text.split("\n"))


def test_a_million_empty_lines_keep_no_search_busy(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare")
    head = BareRepository(tmp_path).commit({"blank.txt": "\n" * 1_000_000, "crlf.txt": "  \r\n" * 300_000, "a.py": APP})

    async def run() -> Sequence[Match]:
        async with open_local(tmp_path, f"{head}..{head}", limits=CheckoutLimits(search_total_s=8)) as tree:
            return await tree.grep(PATTERN, revision=head)

    assert {match.path for match in asyncio.run(run())} == {"a.py"}


class _Slow:
    """A tree whose first search takes longer than anybody waits."""

    def __init__(self, source: EvidenceSource) -> None:
        self._tree = source.tree
        self.searches = 0

    async def read(self, path: str, *, revision: str, limit_bytes: int = 1_000_000) -> bytes | None:
        return await self._tree.read(path, revision=revision, limit_bytes=limit_bytes)

    async def grep(self, pattern: str, *, revision: str) -> tuple[Match, ...]:
        self.searches += 1
        await asyncio.sleep(60)
        return ()


def test_a_search_that_nobody_could_wait_for_is_not_begun_again_for_the_next_chunk(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    git(folder, "init", "--quiet", "--bare")
    repository = BareRepository(folder)
    root = repository.commit({"app.py": APP})
    head = repository.commit({"app.py": APP.replace("return fifth", "return shout(fifth)")}, parent=root)

    async def run() -> tuple[int, str]:
        async with open_local(folder, f"{root}..{head}") as tree:
            snapshot = await tree.snapshot()
            (file,) = parse_diff(snapshot.diff)
            source = EvidenceSource(tree, snapshot, words)
            slow = _Slow(source)
            source.tree = slow  # type: ignore[assignment] # search and snapshot are never reached
            chunk = Chunk("c", (ChunkFile("F1", file, file.hunks),), 0, 0)
            with closing(source):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(2):
                        await source.gather(chunk, budget_tokens=1_000)
                return slow.searches, await source.gather(chunk, budget_tokens=1_000)

    searches, text = asyncio.run(run())
    assert searches == 1
    assert "def run(self, name)" in text


class _Away:
    """A tree whose repository went away."""

    def __init__(self, source: EvidenceSource) -> None:
        self._tree = source.tree

    async def read(self, path: str, *, revision: str, limit_bytes: int = 1_000_000) -> bytes | None:
        return await self._tree.read(path, revision=revision, limit_bytes=limit_bytes)

    async def grep(self, pattern: str, *, revision: str) -> tuple[Match, ...]:
        raise Unreachable("the forge is away")


def test_what_cannot_be_read_leaves_the_rest_of_the_evidence(tmp_path: Path) -> None:
    def spoil(source: EvidenceSource) -> None:
        source.tree = _Away(source)  # type: ignore[assignment] # search and snapshot are never reached

    text = evidence(tmp_path / "r", {"app.py": APP.replace("return fifth", "return shout(fifth)")}, spoil=spoil)
    assert "def run(self, name)" in text
    assert "lib/tool.py" not in text
