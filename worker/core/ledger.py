"""The coverage ledger: which changed lines were reviewed, and why the others were not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

BINARY: Final = "binary file"
RULE_REASONS = frozenset(
    {
        "excluded by REVIEW_EXCLUDE",
        "outside REVIEW_INCLUDE",
        BINARY,
        "Git LFS pointer",
        "generated file (linguist-generated in .gitattributes)",
        "vendored file (linguist-vendored in .gitattributes)",
        "lock file",
        "generated file",
        "vendored file",
        "minified file",
        "data dump",
    }
)
"""The reasons that a rule gives (`planning/rules.py`): meant to be so. Every other one is a failure or a limit."""

NO_LINES: Final = "no changed lines"
"""Of a file that was only renamed, emptied or made executable, where no request had room to say so."""


@dataclass(frozen=True, slots=True)
class NotReviewed:
    """Lines of one file that no answer covers. `lines` is 0 for what has no lines (a binary file, say)."""

    path: str
    reason: str
    """In words, for the reader of the review: "lock file", "generated file", "budget"."""
    lines: int

    @property
    def is_by_rule(self) -> bool:
        """Left out on purpose: another run would leave it out again."""
        return self.reason in RULE_REASONS or self.reason == NO_LINES


@dataclass(frozen=True, slots=True)
class Ledger:
    """`reviewed_lines + Σ not_reviewed.lines == changed_lines`, or it cannot be built.

    Lines are added plus removed lines of the diff, each counted once. For a plan `reviewed_lines`
    is what will be reviewed if every request is answered; in a report it is what was answered.
    """

    changed_lines: int
    reviewed_lines: int
    not_reviewed: tuple[NotReviewed, ...] = ()

    def __post_init__(self) -> None:
        left_out = sum(row.lines for row in self.not_reviewed)
        if self.reviewed_lines + left_out != self.changed_lines or self.reviewed_lines < 0:
            raise ValueError(
                f"The ledger does not add up: {self.reviewed_lines} reviewed + {left_out} not reviewed"
                f" != {self.changed_lines} changed lines."
            )

    @property
    def is_complete(self) -> bool:
        """Whether every changed line was reviewed; lines that a rule left out were not, and are named.

        What has no lines for a rule to leave out (a binary file) lacks nothing; a file whose lines nobody could count
        (too large to fetch, cut by a forge's API) does.
        """
        return self.reviewed_lines == self.changed_lines and all(row.is_by_rule for row in self.not_reviewed)


def coverage(ledger: Ledger) -> str:
    """In one line and without a file's name: `1 of 59 changed lines reviewed; left out: lock file 56, budget 2`."""
    line = f"{ledger.reviewed_lines:,} of {ledger.changed_lines:,} changed lines reviewed"
    lines: Counter[str] = Counter()
    for row in ledger.not_reviewed:
        lines[row.reason] += row.lines
    left_out = ", ".join(f"{reason} {count:,}" for reason, count in lines.most_common())
    return f"{line}; left out: {left_out}" if left_out else line
