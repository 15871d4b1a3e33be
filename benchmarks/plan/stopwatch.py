"""Seconds of the processor (over all threads) and of the clock, step by step."""

from __future__ import annotations

import time


class Stopwatch:
    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = {}
        self.wall_s: dict[str, float] = {}
        self._started = (time.process_time(), time.perf_counter())

    def lap(self, step: str) -> None:
        """End the step that runs, under its name, and begin the next."""
        now = (time.process_time(), time.perf_counter())
        self.cpu_s[step], self.wall_s[step] = now[0] - self._started[0], now[1] - self._started[1]
        self._started = (time.process_time(), time.perf_counter())
