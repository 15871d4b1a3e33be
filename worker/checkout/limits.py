"""How much a checkout may take of time, disk and memory."""

from __future__ import annotations

from dataclasses import dataclass

from worker.core.retry import READ_RULE, Rule


@dataclass(frozen=True, slots=True)
class CheckoutLimits:
    """Every bound ends in an error or a named gap, never in silence."""

    fetch_total_s: float = 900.0
    fetch_idle_s: float = 60.0
    """Seconds without a sign of life from the other side."""
    fetch_again: Rule = READ_RULE
    """How often a fetch that broke off is made again at once, with the mirror's lock held."""
    read_total_s: float = 120.0
    """For what git computes from objects that are here: a diff, say."""
    search_total_s: float = 25.0
    """For a search in one revision: less than its callers wait for, so that none runs on unheard."""
    lock_wait_s: float = 900.0
    """How long a fetch waits for another worker's fetch into the same mirror."""
    fetch_bytes: int = 5_000_000_000
    """What one fetch of history may add to a mirror."""
    blobs_bytes: int = 1_000_000_000
    """What the blobs of one change may add; beyond it, blobs of `blob_bytes` and more are left out by name."""
    blob_bytes: int = 10_000_000
    search_blob_bytes: int = 500_000
    """Larger blobs are not fetched for searching: sources are smaller."""
    search_bytes: int = 500_000_000
    """What making one revision searchable may add; a repository larger than that is not searched."""
    diff_bytes: int = 100_000_000
    """Of diff text held in memory; what lies beyond is named in `Snapshot.cut`."""
    mirrors_bytes: int = 20_000_000_000
    """All mirrors together; the least recently used go first."""
    packs: int = 60
    """One fetch adds one pack, and git looks into each in turn: more than these become one."""
    context_lines: int = 3
    """Unchanged lines around a hunk. Forges take comments within three lines of a change; evidence shows more."""
