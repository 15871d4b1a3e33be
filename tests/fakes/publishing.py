"""One reviewed change in memory, ready to be published: its forge, its job and a clock that a test moves."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tests.fakes.clock import FakeClock
from tests.fakes.forge import MARKER_KEY, MemoryForge
from tests.fakes.jobs import FakeJobs
from worker.core.change import Change, ChangeRef
from worker.core.comments import Voice
from worker.core.finding import Anchor, Finding, Severity
from worker.core.job import Claim, Intent, NotClaimed, State
from worker.core.ledger import Ledger
from worker.core.report import Report
from worker.review.lease import Lease
from worker.review.publish import Published, Publishing, publish_job
from worker.review.records import REPORT, dump_report

REF = ChangeRef("github", "acme/shop", 7)
HEAD = "a" * 40
NEWER = "c" * 40
CLAIMABLE = (State.QUEUED, State.RUNNING, State.REVIEWED, State.PUBLISHING)


def finding(number: int, path: str | None = None) -> Finding:
    path = path or f"src/{number}.py"
    return Finding(
        path=path,
        anchor=Anchor(path, "RIGHT", number, number),
        severity=Severity.HIGH,
        category="correctness",
        title=f"Finding {number}",
        body="Why it is wrong.",
        quote="x = 1",
        fingerprint=f"fp{number}",
    )


def report(count: int = 3) -> Report:
    return Report(
        change=str(REF),
        head=HEAD,
        base="b" * 40,
        model="kimi-k2.6",
        findings=tuple(finding(number) for number in range(1, count + 1)),
        unanchored=(),
        ledger=Ledger(10, 10),
    )


@dataclass
class World:
    """The ports of publishing, over one forge with one open change."""

    forge: MemoryForge = field(default_factory=MemoryForge)
    clock: FakeClock = field(default_factory=FakeClock)
    voice: Voice = field(default_factory=lambda: Voice(max_comments=100))
    jobs: FakeJobs = field(init=False)

    def __post_init__(self) -> None:
        self.jobs = FakeJobs(now=self.clock.monotonic)
        self.forge.open(Change(ref=REF, head=HEAD, base="b" * 40, base_branch="main"))

    async def claim(self, said: Report | None = None) -> Claim:
        accepted = await self.jobs.accept(Intent(ref=REF, head=HEAD))
        claim = await self.claim_again(accepted.job)
        if said is not None:
            claim = await self.reviewed(claim, said)
        return claim

    async def reviewed(self, claim: Claim, said: Report) -> Claim:
        """Store the report as reviewing does, and claim the job for publishing."""
        await self.jobs.save(claim, REPORT, dump_report(said))
        await self.jobs.release(claim, State.REVIEWED, reason="the report is stored")
        return await self.claim_again(claim.job.id)

    async def push(self, head: str, said: Report) -> Published:
        """A new head on which `said` was found: reviewed and published."""
        self.forge.push(REF, head)
        accepted = await self.jobs.accept(Intent(ref=REF, head=head))
        claim = await self.claim_again(accepted.job)
        return await self.publish(await self.reviewed(claim, replace(said, head=head)))

    async def claim_again(self, job_id: str) -> Claim:
        self.clock.advance(3600)  # whoever held it is dead
        claim = await self.jobs.claim(job_id, worker="w", states=CLAIMABLE)
        assert not isinstance(claim, NotClaimed)
        return claim

    async def publish(self, claim: Claim) -> Published:
        publishing = Publishing(jobs=self.jobs, clock=self.clock, marker_key=MARKER_KEY, voice=self.voice)
        return await publish_job(self.leased(claim), forge=self.forge, publishing=publishing)

    def leased(self, claim: Claim) -> Lease:
        return Lease(claim, self.jobs, self.clock, asked_at=self.clock.monotonic())

    def visible(self) -> list[str]:
        """Fingerprints-to-be of all visible comments, by their titles, in order."""
        reviews = self.forge.reviews.get(REF, [])
        return [comment.fingerprint for review in reviews for comment in review.comments]

    def summaries(self) -> int:
        return sum("### " in review.body for review in self.forge.reviews.get(REF, []))
