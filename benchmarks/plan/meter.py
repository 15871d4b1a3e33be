"""Seconds of the processor (over all threads) and of the clock, step by step, and the memory that it all takes."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


class Meter:
    """Starts when it is made: what is resident then, interpreter, modules and token ranks, is what was loaded."""

    def __init__(self) -> None:
        self._peak_to_load_kb = _peak_kb()
        self._loaded_kb = _resident_kb()
        if _CLEAR_REFS.exists():
            # Sets the peak back to what is resident now: proc(5). Loading takes more for a moment.
            _CLEAR_REFS.write_text("5")
        self._cpu_s: dict[str, float] = {}
        self._wall_s: dict[str, float] = {}
        self._started = (time.process_time(), time.perf_counter())

    def lap(self, step: str) -> None:
        """End the step that runs, under its name, and begin the next."""
        now = (time.process_time(), time.perf_counter())
        self._cpu_s[step], self._wall_s[step] = now[0] - self._started[0], now[1] - self._started[1]
        self._started = (time.process_time(), time.perf_counter())

    def figures(self) -> dict[str, Any]:
        """Seconds by step; kilobytes: the peak of the whole process, and of the work above what was loaded."""
        peak_kb = _peak_kb()
        return {
            "cpu_s": self._cpu_s,
            "wall_s": self._wall_s,
            "peak_kb": max(peak_kb, self._peak_to_load_kb),
            "work_kb": peak_kb - self._loaded_kb,
        }


def _peak_kb() -> int:
    if _STATUS.exists():
        return _status("VmHWM")
    # macOS counts it in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


def _resident_kb() -> int:
    return _status("VmRSS") if _STATUS.exists() else _peak_kb()


def _status(name: str) -> int:
    (row,) = (row for row in _STATUS.read_text().splitlines() if row.startswith(f"{name}:"))
    return int(row.split()[1])
