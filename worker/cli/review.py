"""`review` and `plan`: one change now, on this terminal."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from worker.bootstrap import Installation, Services, planning_for
from worker.cli.change_names import parse_change
from worker.cli.installed import installed
from worker.cli.output import reader_may_leave
from worker.cli.report_text import open_console, show_plan, show_report
from worker.cli.setting_up import set_up
from worker.cli.sources import open_source
from worker.core.change import ChangeRef
from worker.core.comments import Voice, summary_text
from worker.core.delivery import Ignored
from worker.core.errors import BadInput, ConfigurationError, ReviewError
from worker.core.finding import Severity
from worker.core.job import Intent, Job, Stage, State
from worker.core.markdown import visible
from worker.core.masking import mask
from worker.core.planning.plan import Plan, plan_as_json
from worker.core.report import Report, masked
from worker.core.report_html import report_html
from worker.core.report_json import report_json
from worker.core.report_sarif import report_sarif
from worker.exits import Exit, complain
from worker.ports import Flow
from worker.process import WorkerProcess
from worker.providers import catalogue
from worker.review.local import local_subject, review_local
from worker.review.planning import Planned, Subject
from worker.review.records import REPORT, load_report
from worker.settings import Role, Settings

LOOK_S = 0.5


class ReportFormat(StrEnum):
    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"
    HTML = "html"
    SARIF = "sarif"


class PlanFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


Repo = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of a git repository; this one when not given.")]
Range = Annotated[
    str | None,
    typer.Option("--range", metavar="A..B", help="What a change of B into A would show, from their merge base."),
]
DiffFile = Annotated[str | None, typer.Option(metavar="FILE", help="A unified diff as git writes it; - is stdin.")]
Output = Annotated[Path | None, typer.Option(metavar="FILE", help="Write there instead of on stdout.")]


def review(
    url: Annotated[str | None, typer.Argument(metavar="URL", help="A change on a forge, or owner/name#7.")] = None,
    repo: Repo = None,
    revisions: Range = None,
    diff_file: DiffFile = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With a URL: show the review and post nothing.")] = False,
    format: Annotated[
        ReportFormat, typer.Option(help="How the report is written.", case_sensitive=False)
    ] = ReportFormat.TEXT,
    output: Output = None,
    fail_on: Annotated[
        Severity | None, typer.Option(help="Exit 1 when a finding is at least so severe.", case_sensitive=False)
    ] = None,
) -> None:
    """Review one change now, through the same pipeline as the service."""
    if url is not None and (repo, revisions, diff_file) != (None, None, None):
        raise BadInput("A URL goes without --repo, --range and --diff-file.")
    if dry_run and url is None:
        raise BadInput("--dry-run belongs to a URL: a local review posts nothing anyway.")
    _check_output(output)
    settings = set_up(Role.REVIEW, level="warning")
    started = time.monotonic()
    with installed(settings) as installation:
        if url is None:
            report = asyncio.run(_review_source(installation, repo, revisions, diff_file))
        else:
            ref = _named(url, settings)
            report = asyncio.run(_review_dry(installation, ref)) if dry_run else _review_and_post(installation, ref)
        # What obeys an attacker may spell out a secret: a terminal, a file and a build's log are read by others too.
        report = masked(report, installation.voice.mask)
    # The exit code is the answer that a script waits for, whoever reads the report.
    with reader_may_leave():
        _tell(report, format, output, seconds=time.monotonic() - started)
        if format is ReportFormat.TEXT:
            _tell_next(report, url, is_dry=dry_run)
    sys.exit(_exit_code(report, fail_on))


def plan(
    repo: Repo = None,
    revisions: Range = None,
    diff_file: DiffFile = None,
    format: Annotated[
        PlanFormat, typer.Option(help="How the plan is written.", case_sensitive=False)
    ] = PlanFormat.TEXT,
    render_to: Annotated[
        Path | None, typer.Option("--render", metavar="DIR", help="Write each request body there as it would be sent.")
    ] = None,
    output: Output = None,
) -> None:
    """Show the chunks, tokens and ledger of a review; no model is asked."""
    _check_output(output)
    settings = set_up(Role.PLAN, level="warning")
    if settings.api_llm_provider_model == "auto":
        # Which model it would be only the provider can tell; the plan is made for the best one known.
        best = catalogue.known_models()[-1]
        settings = settings.model_copy(update={"api_llm_provider_model": best})
    # Nothing connects to it: a plan needs no Redis, only the bodies' builder wants an address.
    installation = Installation(settings, "redis://localhost:0/0")

    async def planned() -> None:
        async with open_source(repo, revisions, diff_file) as source:
            subject = local_subject(source.name)
            made = await planning_for(settings, installation.model_info).plan(
                subject, source.snapshot, tree=source.tree
            )
            shown = made.at_most
            if render_to is not None:
                render_to.mkdir(parents=True, exist_ok=True)
                with closing(made):
                    shown = await _rendered(made, render_to, installation)
        if format is PlanFormat.JSON:
            _write(json.dumps(plan_as_json(shown), indent=2) + "\n", output)
        else:
            with _console(output) as console:
                show_plan(shown, console)

    asyncio.run(planned())


async def _rendered(made: Planned, folder: Path, installation: Installation) -> Plan:
    """Write each body into `folder`; the plan with the bounds of what was written, whose evidence is known by now."""
    chunks = []
    for chunk in made.plan.chunks:
        prompt = await made.prompt(chunk)
        (folder / f"{chunk.id}.json").write_bytes(installation.request_body(prompt))
        chunks.append(replace(chunk, input_tokens=prompt.input_tokens))
    return replace(made.plan, chunks=tuple(chunks))


async def _review_source(
    installation: Installation, repo: Path | None, revisions: str | None, diff_file: str | None
) -> Report:
    async with open_source(repo, revisions, diff_file) as source, installation.services() as services:
        return await review_local(
            local_subject(source.name), source.snapshot, examiner=await services.examiner(), tree=source.tree
        )


async def _review_dry(installation: Installation, ref: ChangeRef) -> Report:
    async with installation.services() as services:
        forge = services.forge(ref.forge)
        change = await forge.change(ref)
        async with installation.checkout.open(change, await forge.remote_ready(change)) as tree:
            subject = Subject(
                name=str(ref),
                flow=Flow(change=str(ref), repository=ref.repository),
                title=change.title,
                description=change.description,
            )
            return await review_local(subject, await tree.snapshot(), examiner=await services.examiner(), tree=tree)


def _review_and_post(installation: Installation, ref: ChangeRef) -> Report:
    """Store a job as a delivery would, and be its worker."""
    job = asyncio.run(_accepted(installation, ref))
    process = WorkerProcess(installation.services, deadline_s=installation.settings.job_deadline_s)
    for stage in (Stage.REVIEW, Stage.PUBLISH):
        process.run(job, stage)
    return asyncio.run(_posted(installation, job))


async def _accepted(installation: Installation, ref: ChangeRef) -> str:
    async with installation.services() as services:
        if paused := await services.jobs.paused():
            raise ReviewError(f"The fleet is paused: {paused}. `kimi-review resume` ends that; --dry-run works anyway.")
        change = await services.forge(ref.forge).change(ref)
        accepted = await services.request(Intent(ref=ref, head=change.head, force=True))
        if isinstance(accepted, Ignored):
            raise ConfigurationError([f"GITHUB_REPOSITORIES: {accepted.reason}. Add a glob that names it."])
        return accepted.job


async def _posted(installation: Installation, job_id: str) -> Report:
    """Wait for the end: a worker that runs beside us may have taken the job."""
    async with installation.services() as services:
        deadline = time.monotonic() + installation.settings.job_deadline_s
        while True:
            job = await services.jobs.get(job_id)
            if job is None or job.state.is_final or job.state is State.DEFERRED or time.monotonic() > deadline:
                break
            await asyncio.sleep(LOOK_S)
        if job is not None and job.state in (State.SKIPPED, State.SUPERSEDED):
            # Nobody failed: there is nothing to review, or a newer head is what counts.
            complain(f"Not reviewed: {job.reason}. --dry-run shows a review all the same and posts nothing.")
            sys.exit(Exit.INCOMPLETE)
        if job is None or job.state is not State.DONE:
            raise ReviewError(await _why_not(services, job))
        records = await services.jobs.load(job_id)
        return load_report(records[REPORT])


async def _why_not(services: Services, job: Job | None) -> str:
    if job is None:
        return "The job is gone from the store. Was Redis emptied?"
    last = [f"{one.event} {one.detail}".strip() for one in await services.jobs.decisions(job.id)][-1:]
    return f"Not posted: the job {job.id} is {job.state.value}: {job.reason or ' '.join(last)}"


def _named(url: str, settings: Settings) -> ChangeRef:
    ref = parse_change(url, settings)
    if ref is None:
        raise BadInput("That names no change. Write its URL, or owner/name#7.")
    if not settings.has_github:
        raise ConfigurationError(["GITHUB_TOKEN: is not set, and a review of a change on GitHub needs it."])
    return ref


def _tell(report: Report, format: ReportFormat, output: Path | None, *, seconds: float) -> None:
    match format:
        case ReportFormat.JSON:
            _write(json.dumps(report_json(report), indent=2) + "\n", output)
        case ReportFormat.MARKDOWN:
            _write(summary_text(report, Voice(max_comments=0, mask=mask)) + "\n", output)
        case ReportFormat.HTML:
            _write(report_html(report), output)
        case ReportFormat.SARIF:
            _write(json.dumps(report_sarif(report), indent=2) + "\n", output)
        case ReportFormat.TEXT:
            with _console(output) as console:
                show_report(report, console, seconds=seconds)


def _tell_next(report: Report, url: str | None, *, is_dry: bool) -> None:
    """What the reader may do now, after a report on the terminal."""
    console = open_console()
    console.print()
    if not report.is_complete:
        console.print("Not every changed line was reviewed, so the exit code is 3.")
    if url is None:
        console.print("Next: --format html --output review.html, or --fail-on high in a script.")
    elif is_dry:
        console.print("Nothing was posted. Next: the same without --dry-run.")
    else:
        console.print(
            f"It stands on the change. Next: `kimi-review why {visible(url)}` for every step.", soft_wrap=True
        )


@contextmanager
def _console(output: Path | None) -> Iterator[Console]:
    if output is None:
        yield open_console()
        return
    text = io.StringIO()
    yield open_console(file=text)
    _write(text.getvalue(), output)


def _write(text: str, output: Path | None) -> None:
    if output is None:
        # A document is UTF-8, as it says itself, whatever the terminal takes.
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--output cannot be written: {error.strerror}.") from error


def _check_output(output: Path | None) -> None:
    """Raises `BadInput` for what cannot be written, before a review is paid for."""
    if output is None:
        return
    place = output if output.exists() else output.absolute().parent
    if output.is_dir() or not place.exists():
        raise BadInput("--output is no file in a folder that exists. Make the folder, or name another file.")
    if not os.access(place, os.W_OK):
        raise BadInput("--output cannot be written: this user may not. Name another file.")


def _exit_code(report: Report, fail_on: Severity | None) -> Exit:
    found = (*report.findings, *report.unanchored)
    if fail_on is not None and any(finding.severity.rank <= fail_on.rank for finding in found):
        return Exit.FINDINGS
    return Exit.DONE if report.is_complete else Exit.INCOMPLETE
