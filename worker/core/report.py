"""The finished review as a value: what it found, what it covered, what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from worker.core.finding import Finding
from worker.core.ledger import Ledger
from worker.core.markdown import Mask, visible
from worker.core.usage import Usage


@dataclass(frozen=True, slots=True)
class Report:
    """One review of one change at one head. `findings` are anchored and ranked, worst first."""

    change: str
    """`str(ChangeRef)`, or the range or file a local review read."""
    head: str
    base: str
    model: str
    """The model or models that answered, comma separated when a fallback took part."""
    findings: tuple[Finding, ...]
    unanchored: tuple[Finding, ...]
    ledger: Ledger
    usage: Usage = field(default_factory=Usage)
    notes: tuple[str, ...] = ()
    """Sentences the reader must see: a budget that was reached, a stand-in that is no model."""
    is_standin: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether every changed line was reviewed, as `Ledger.is_complete`; the exit code 3 is its opposite."""
        return self.ledger.is_complete


def masked(report: Report, mask: Mask | None) -> Report:
    """`report` without what `mask` takes out of the model's words, wherever they are then written."""
    if mask is None:
        return report

    def clean(text: str) -> str:
        # Hidden characters could split a secret so that no shape finds it; other text stays as it was.
        seen = visible(text)
        said = mask(seen)
        return text if said == seen else said

    def told(finding: Finding) -> Finding:
        return replace(
            finding,
            # An anchored finding's path is the change's own, and names its file.
            path=finding.path if finding.anchor else clean(finding.path),
            title=clean(finding.title),
            body=clean(finding.body),
            suggestion=clean(finding.suggestion) if finding.suggestion is not None else None,
        )

    return replace(
        report,
        findings=tuple(map(told, report.findings)),
        unanchored=tuple(map(told, report.unanchored)),
        notes=tuple(map(clean, report.notes)),
    )
