"""GET /metrics: what the door counted, and how many jobs are in which state."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from worker.core.job import State

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Counters:
    """One registry per application, so that two in one process do not mix."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._deliveries = Counter(
            "kimi_review_deliveries_total",
            "Calls to the webhooks and to /reviews, by what came of them.",
            ["forge", "outcome", "reason"],
            registry=self._registry,
        )
        self._answered = Histogram(
            "kimi_review_answer_seconds", "Time to answer a call.", ["route", "status"], registry=self._registry
        )
        self._jobs = Gauge("kimi_review_jobs", "Jobs by state.", ["state"], registry=self._registry)

    def delivery(self, forge: str, outcome: str, reason: str) -> None:
        """`reason` is one of few constant phrases, never a text from outside."""
        self._deliveries.labels(forge, outcome, reason).inc()

    def answered(self, route: str, status: int, seconds: float) -> None:
        self._answered.labels(route, str(status)).observe(seconds)

    def jobs(self, counts: Mapping[State, int]) -> None:
        for state in State:
            self._jobs.labels(state.value).set(counts.get(state, 0))

    def exposition(self) -> bytes:
        return generate_latest(self._registry)
