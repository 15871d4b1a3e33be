"""One process parses the files of a job: hostile ones cost themselves alone, and it ends with its job."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes.git_server import BareRepository, git
from tests.fakes.model import FakeModel
from tests.unit.review.test_examine import Lessons
from worker.checkout import open_local
from worker.core.errors import NotAuthorised
from worker.core.evidence.outline import Outline
from worker.core.exchange import Kind, Prompt
from worker.core.model_info import Budget
from worker.core.report import Report
from worker.providers.tokens import o200k_counter
from worker.review.examine import Examiner
from worker.review.local import local_subject, review_local
from worker.review.outlines import OutlineProcess
from worker.review.planning import Planning
from worker.review.prompts import words

HANGING = b"fn before() {\n}\n" + b"\n".join([b'r#"' * 1_300] * 80)
PARSED = b"def %s(\n    x,\n): pass\n"
"""Only a grammar knows that the signature has three lines."""

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked for in /proc")


def processes(of: int) -> set[int]:
    """The processes that parse for the process `of`, zombies left out."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = entry.joinpath("stat").read_text().rpartition(") ")[2].split()[:2]
            if (
                int(parent) == of
                and state != "Z"
                and b"worker.review.outlines" in entry.joinpath("cmdline").read_bytes()
            ):
                found.add(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def wait_for_the_end_of(pid: int, *, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def is_parsed(outline: Outline) -> bool:
    return [item.signature_end for item in outline.definitions] == [3]


@pytest.fixture
def outlining() -> Iterator[OutlineProcess]:
    with closing(OutlineProcess(limit_s=0.4)) as process:
        yield process


def test_all_files_of_a_job_are_read_by_one_process_which_ends_with_it(outlining: OutlineProcess) -> None:
    before = processes(os.getpid())
    seen: set[int] = set()
    for number in range(5):
        path = f"odd \udcff\n{number}.py"
        found = outlining.outlines({path: PARSED % b"a", "b.ts": b"interface B {}\n"})
        assert list(found) == [path, "b.ts"]
        assert is_parsed(found[path])
        seen |= processes(os.getpid()) - before
    (pid,) = seen
    assert Path(f"/proc/{pid}/environ").read_bytes() == b"", "it has no use for our keys"
    outlining.close()
    assert processes(os.getpid()) == before
    assert not is_parsed(outlining.outlines({"c.py": PARSED % b"c"})["c.py"]), "nothing is started after the end"
    assert processes(os.getpid()) == before


def test_files_that_keep_a_grammar_busy_are_read_by_their_shape_and_all_others_are_parsed(
    outlining: OutlineProcess,
) -> None:
    files = {f"hang{number}.rs": HANGING for number in range(2)}
    for number in range(2):
        files |= {f"a{number}.py": PARSED % b"a"}
    files = dict(sorted(files.items(), key=lambda item: item[0][-4]))
    started = time.monotonic()
    found = outlining.outlines(files)
    assert time.monotonic() - started < 10
    for path, outline in found.items():
        if path.endswith(".rs"):
            assert [item.name for item in outline.definitions] == ["before"]
        else:
            assert is_parsed(outline), path


def test_a_job_full_of_hostile_files_ends_within_its_bound() -> None:
    with closing(OutlineProcess(limit_s=0.3, losses_s=1.0)) as process:
        started = time.monotonic()
        found = process.outlines({f"hang{number}.rs": HANGING for number in range(40)} | {"a.py": PARSED % b"a"})
        assert time.monotonic() - started < 6
        assert [item.name for item in found["hang39.rs"].definitions] == ["before"]
        assert [item.name for item in found["a.py"].definitions] == ["a"]


def test_a_process_that_somebody_killed_is_replaced(outlining: OutlineProcess) -> None:
    before = processes(os.getpid())
    outlining.outlines({"a.py": PARSED % b"a"})
    (pid,) = processes(os.getpid()) - before
    os.kill(pid, signal.SIGKILL)
    found = outlining.outlines({"b.py": PARSED % b"b", "c.py": PARSED % b"c"})
    assert [item.name for item in found["b.py"].definitions] == ["b"]
    assert is_parsed(found["c.py"])


def test_a_review_leaves_no_process_behind_whether_it_ends_well_or_not(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare")
    repository = BareRepository(tmp_path)
    root = repository.commit({"a.py": PARSED % b"a"})
    head = repository.commit({"a.py": PARSED % b"a" + b"b = a(1)\n"}, parent=root)
    before = processes(os.getpid())
    during: list[int] = []

    def brain(prompt: Prompt) -> str:
        during.append(len(processes(os.getpid()) - before))
        if len(during) == 2:
            raise NotAuthorised("the key is wrong")
        return '{"findings": []}'

    budget = Budget(window_tokens=262_144, output_tokens=65_536, token_factor=1.1, chunk_tokens=20_000)
    planning = Planning(budget=budget, words=words(Kind.FINDINGS), count=o200k_counter(), evidence_ratio=1.0)
    examiner = Examiner(model=FakeModel(brain=brain), planning=planning, lessons=Lessons())

    async def review() -> Report:
        async with open_local(tmp_path, f"{root}..{head}") as tree:
            return await review_local(local_subject("a"), await tree.snapshot(), examiner=examiner, tree=tree)

    assert asyncio.run(review()).is_complete
    assert processes(os.getpid()) == before
    with pytest.raises(NotAuthorised):
        asyncio.run(review())
    assert processes(os.getpid()) == before
    assert during == [1, 1]


def test_nobody_left_to_close_it_ends_the_process_too() -> None:
    before = processes(os.getpid())
    forgotten = OutlineProcess()
    forgotten.outlines({"a.py": PARSED % b"a"})
    assert len(processes(os.getpid()) - before) == 1
    del forgotten
    assert processes(os.getpid()) == before


def test_a_worker_that_is_killed_leaves_no_process_behind_though_a_grammar_keeps_it_busy() -> None:
    program = (
        "import sys; from worker.review.outlines import OutlineProcess\n"
        "process = OutlineProcess(limit_s=1.0); process.outlines({'a.py': b''})\n"
        "print('asks', flush=True); process.outlines({'hang.rs': sys.stdin.buffer.read()})\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdin is not None
    assert worker.stdout is not None
    with worker.stdin, worker.stdout:
        assert worker.stdout.readline() == b"asks\n"
        (pid,) = processes(worker.pid)
        worker.stdin.write(HANGING)
        worker.stdin.close()
        time.sleep(0.2)
        worker.kill()
        worker.wait()
    assert wait_for_the_end_of(pid, within_s=8)
