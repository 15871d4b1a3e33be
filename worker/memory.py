"""How much memory this process holds, watched: a worker that grows is ended in order and started anew."""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Callable
from pathlib import Path

LOOK_S = 2.0

_STATM = Path("/proc/self/statm")


def resident_mb() -> int:
    """Megabytes in memory now; where the system does not say (macOS), the most there ever were."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak // 2**20 if sys.platform == "darwin" else peak // 2**10
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


def watch(limit_mb: int, *, over: Callable[[int], None], stopping: threading.Event, every_s: float = LOOK_S) -> None:
    """Call `over` with the megabytes held, once, when they are more than `limit_mb`; returns when `stopping` is set."""
    while not stopping.wait(every_s):
        held_mb = resident_mb()
        if held_mb > limit_mb:
            over(held_mb)
            return
