"""`demo`: a real range of a real repository through the whole pipeline, on this machine, in under a minute."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from worker.checkout import open_local
from worker.checkout.scratch import scratch_folder
from worker.cli.demo_history import two_commits
from worker.cli.family import Child
from worker.cli.report_text import open_console, show_report
from worker.cli.setting_up import set_up
from worker.core.change import Snapshot
from worker.core.diff.parse import parse_diff
from worker.core.errors import BadInput, ReviewError, Unreachable
from worker.core.exchange import STANDIN_MODEL
from worker.core.job import State
from worker.core.markdown import visible
from worker.core.report import Report
from worker.review.records import REPORT, load_report
from worker.settings import (
    FallbackSettings,
    LimitSettings,
    NetworkSettings,
    ProviderSettings,
    RequestSettings,
    Role,
    Settings,
    environment_for,
)
from worker.standin.checks import faults_in
from worker.standin.forge import REPOSITORY, DemoForge, running_forge
from worker.standin.server import running_standin
from worker.storage import embedded
from worker.storage.connection import connect
from worker.storage.jobs import RedisJobs

START_TIMEOUT_S = 60.0
REVIEW_TIMEOUT_S = 900.0
ENOUGH_LINES = 120
FURTHEST_BACK = 40
LARGEST_LINES = 4000


@dataclass(frozen=True, slots=True)
class _Range:
    base: str
    head: str
    lines: int

    @property
    def shown(self) -> str:
        return f"{self.base[:9]}..{self.head[:9]}"


def demo(
    repo: Annotated[Path | None, typer.Option(metavar="DIR", help="A git repository; this one when not given.")] = None,
    revisions: Annotated[
        str | None, typer.Option("--range", metavar="A..B", help="What to review; the newest changes when not given.")
    ] = None,
) -> None:
    """Review a real range of commits: with Kimi when API_OPEN_AI_API_KEY is set, else with a stand-in."""
    settings = set_up(Role.DEMO, level="error")
    console = open_console()
    where = (repo or _this_repository()).resolve()
    if not where.is_dir():
        raise BadInput("--repo is no folder. Give the folder of a git repository.")
    with scratch_folder("demo") as folder:
        _demo(settings, where, revisions, folder, console, is_here=repo is None)


def _demo(
    settings: Settings, where: Path, revisions: str | None, folder: Path, console: Console, *, is_here: bool
) -> None:
    started = time.monotonic()
    name = where.name
    chosen = asyncio.run(_choose(where, revisions))
    has_history = chosen is not None
    if chosen is None:
        where, base, head = two_commits(where, folder)
        chosen, _ = asyncio.run(_look(where, f"{base}..{head}"))
        console.print("There is one commit alone (a shallow clone?), so some of its files are reviewed as if new.")
    has_key = settings.api_open_ai_api_key is not None
    console.print(Text.assemble(("kimi-review demo", "bold"), f"   {visible(name)}, {chosen.shown}"))
    if has_key:
        console.print(f"The model is {settings.api_llm_provider_model}, with your key: this costs a little.")
    else:
        console.print(Text("No key is set, so a stand-in answers: it is no model, only a few fixed checks.", "yellow"))
    console.print()
    report, posted = _run(settings, where, chosen, folder, console)
    show_report(report, console, seconds=time.monotonic() - started)
    console.print(Text(f"\nPosted to the demo's forge: {posted}.", style="green"))
    shown = chosen.shown if has_history else "main..your-branch"
    _show_next(console, has_key=has_key, shown=shown, is_here=is_here)


def _run(settings: Settings, where: Path, chosen: _Range, folder: Path, console: Console) -> tuple[Report, str]:
    steps = _Steps(console)
    with ExitStack() as held:
        redis = held.enter_context(embedded.start(folder / "home"))
        steps.done("embedded Redis is up")
        forge = held.enter_context(running_forge(where, base=chosen.base, head=chosen.head, folder=folder))
        steps.done(f"a forge on loopback shows {chosen.shown} as change #1")
        environment = _environment(settings, folder, forge, redis.url)
        if settings.api_open_ai_api_key is None:
            environment |= {
                "API_LLM_PROVIDER_MODEL": STANDIN_MODEL,
                "API_OPENAI_FORCE_BASE_URL": held.enter_context(running_standin()),
                "API_OPEN_AI_API_KEY": "no-key-for-the-stand-in",
            }
            steps.done("the stand-in for the model listens")
        return asyncio.run(_through_the_service(environment, forge, redis.url, folder, steps))


async def _through_the_service(
    environment: dict[str, str], forge: DemoForge, redis_url: str, folder: Path, steps: _Steps
) -> tuple[Report, str]:
    """Start `serve`, send it the signed delivery, and wait for the review to arrive at the forge."""
    port = folder / "port"
    service = Child(
        "serve", ["serve", "--port", "0", "--port-file", str(port)], environment, output=folder / "service.log"
    )
    running = asyncio.create_task(service.keep_running())
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            await _ready(service, folder)
            address = f"http://127.0.0.1:{port.read_text()}"
            steps.done("api and worker are ready")
            headers, body = forge.delivery(environment["GITHUB_WEBHOOK_SECRET"])
            answer = await client.post(f"{address}/webhooks/github", content=body, headers=headers)
            if answer.status_code != 202:
                raise ReviewError(f"The webhook was answered with {answer.status_code}: {answer.text[:200]}")
            job = answer.json()["job"]
            steps.done(f"the signed webhook was answered with 202, job {job}")
        report = await _finished(redis_url, job, steps)
        comments = sum(len(one["comments"]) for one in forge.reviews)
        noun = "comment" if comments == 1 else "comments"
        return report, f"{len(forge.reviews)} review with {comments} inline {noun}"
    finally:
        await service.stop()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _ready(service: Child, folder: Path) -> None:
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            await service.ready.wait()
    except TimeoutError:
        said = (folder / "service.log").read_text(encoding="utf-8", errors="replace").strip()[-600:]
        raise Unreachable(f"The service did not become ready. Its last words: {said or 'none'}") from None


async def _finished(redis_url: str, job: str, steps: _Steps) -> Report:
    client = connect(redis_url)
    try:
        jobs = RedisJobs(client)
        deadline = time.monotonic() + REVIEW_TIMEOUT_S
        told = 0
        while time.monotonic() < deadline:
            decisions = await jobs.decisions(job)
            for one in decisions[told:]:
                steps.done(f"{one.event}  {one.detail}".rstrip())
            told = len(decisions)
            record = await jobs.get(job)
            if record is not None and record.state is State.DONE:
                return load_report((await jobs.load(job))[REPORT])
            if record is not None and (record.state.is_final or record.state is State.DEFERRED):
                raise ReviewError(f"The review ended as {record.state.value}: {record.reason}")
            await asyncio.sleep(0.1)
    finally:
        await client.aclose()
    raise Unreachable("The review took longer than a demo should. `kimi-review check` tests key and provider.")


def _environment(settings: Settings, folder: Path, forge: DemoForge, redis_url: str) -> dict[str, str]:
    """Of the service: the operator's provider settings, and everything else the demo's own."""
    own = {
        "REDIS_URL": redis_url,
        "KIMI_REVIEW_HOME": str(folder / "home"),
        "GITHUB_TOKEN": f"demo-{secrets.token_hex(12)}",
        "GITHUB_WEBHOOK_SECRET": secrets.token_hex(24),
        "GITHUB_URL": forge.url,
        "GITHUB_API_URL": forge.api_url,
        "GITHUB_REPOSITORIES": REPOSITORY,
        "REVIEW_SETTLE_S": "0",
        "LOG_LEVEL": "error",
    }
    provider = environment_for(
        settings, ProviderSettings, FallbackSettings, LimitSettings, RequestSettings, NetworkSettings
    )
    return provider | own


async def _choose(where: Path, revisions: str | None) -> _Range | None:
    """The range that was asked for; else the newest one of a telling size, rather one in which a check strikes.

    None where there is one commit alone.
    """
    if revisions is not None:
        chosen, _ = await _look(where, revisions)
        return chosen
    best: _Range | None = None
    for back in (1, 2, 3, 5, 8, 12, 20, FURTHEST_BACK):
        try:
            found, strikes = await _look(where, f"HEAD~{back}..HEAD")
        except BadInput:
            break
        if best is not None and found.lines > LARGEST_LINES:
            break
        if strikes and found.lines >= ENOUGH_LINES:
            return found
        # Where no check strikes, the smallest that is large enough: who looks on waits for each line.
        if best is None or best.lines < ENOUGH_LINES:
            best = found
    return best


async def _look(where: Path, revisions: str) -> tuple[_Range, bool]:
    async with open_local(where, revisions) as tree:
        snapshot = await tree.snapshot()
    files = list(parse_diff(snapshot.diff))
    return _Range(snapshot.base, snapshot.head, sum(file.changed for file in files)), _strikes(snapshot)


def _strikes(snapshot: Snapshot) -> bool:
    return any(
        any(faults_in(line.text.decode("utf-8", "replace"), path=file.path))
        for file in parse_diff(snapshot.diff)
        for hunk in file.hunks
        for line in hunk.lines()
        if line.sign == "+"
    )


def _this_repository() -> Path:
    """The folder that is worked in; the checkout that this program runs from where that is no repository."""
    here, ours = Path(), Path(__file__).resolve().parents[2]
    return here if (here / ".git").exists() or not (ours / ".git").exists() else ours


class _Steps:
    """Says what has happened, with the time since the start."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()

    def done(self, what: str) -> None:
        self._console.print(Text.assemble((f"{time.monotonic() - self._started:5.1f} s  ", "dim"), what))


def _show_next(console: Console, *, has_key: bool, shown: str, is_here: bool) -> None:
    where = "" if is_here else " --repo DIR"
    steps = [] if has_key else [("export API_OPEN_AI_API_KEY=…", "the same demo then asks Kimi")]
    steps += [
        (f"kimi-review review{where} --range {shown}", "one review on this terminal, with Kimi"),
        ("kimi-review check", "settings, Redis, git, tokens, provider: a row each"),
        ("cp .env.example .env", "fill in GITHUB_TOKEN and GITHUB_WEBHOOK_SECRET, then:"),
        ("kimi-review serve", "reviews the pull requests of your repositories"),
    ]
    lines = Text()
    for command, why in steps:
        lines.append(f"{'' if command.startswith(('export', 'cp')) else '.venv/bin/'}{command}\n", "bold")
        lines.append(f"    {why}\n", "dim")
    lines.rstrip()
    console.print()
    console.print(Panel(lines, title="What to type next", title_align="left", border_style="blue"))
