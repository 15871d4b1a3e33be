"""GET /metrics: what this door counted, and what the whole fleet has in Redis, read when it is asked for.

Every `api` tells the same fleet-wide figures; aggregate them with `max`, not `sum`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from worker.core.job import State
from worker.ingress.vitals import Vitals
from worker.storage.throttle import Standing

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
        self._paused = Gauge("kimi_review_paused", "1 while the fleet is paused by hand.", registry=self._registry)
        self._left = Gauge(
            "kimi_review_jobs_left", "Jobs that wait for a worker of a newer version.", registry=self._registry
        )
        self._fleet = _Fleet()
        self._registry.register(self._fleet)

    def delivery(self, forge: str, outcome: str, reason: str) -> None:
        """`reason` is one of few constant phrases, never a text from outside."""
        self._deliveries.labels(forge, outcome, reason).inc()

    def answered(self, route: str, status: int, seconds: float) -> None:
        self._answered.labels(route, str(status)).observe(seconds)

    def jobs(self, counts: Mapping[State, int]) -> None:
        for state in State:
            self._jobs.labels(state.value).set(counts.get(state, 0))

    def paused(self, *, is_paused: bool) -> None:
        self._paused.set(is_paused)

    def left(self, count: int) -> None:
        self._left.set(count)

    def vitals(self, vitals: Vitals | None) -> None:
        """Of this moment; None leaves them out of the answer."""
        self._fleet.vitals = vitals

    def exposition(self) -> bytes:
        try:
            return generate_latest(self._registry)
        finally:
            # Old figures must not be told as new ones when Redis is away at the next call.
            self._fleet.vitals = None


class _Fleet(Collector):
    """The last look as metrics."""

    def __init__(self) -> None:
        self.vitals: Vitals | None = None

    def collect(self) -> Iterable[Metric]:
        if self.vitals is not None:
            yield from _queues(self.vitals)
            yield from _limits(self.vitals.model)
            if self.vitals.fallback is not None:
                yield from _limits(self.vitals.fallback, whose="fallback")
            yield from _spending(self.vitals)


def _queues(vitals: Vitals) -> Iterable[Metric]:
    queued = GaugeMetricFamily(
        "kimi_review_queue_messages", "Messages that no worker has taken yet.", labels=["priority"]
    )
    for priority, length in vitals.waiting.items():
        queued.add_metric([priority.value], length)
    yield queued
    waits = GaugeMetricFamily(
        "kimi_review_longest_wait_seconds",
        "How long the longest-waiting job waits for a worker: for its review, or for the finished one to be posted.",
        labels=["stage", "priority"],
    )
    for (stage, priority), seconds in vitals.longest_waits_s.items():
        waits.add_metric([stage.value, priority.value], seconds)
    yield waits


def _limits(model: Standing, *, whose: str = "model") -> Iterable[Metric]:
    """Of one account; the second provider's families are named alike."""

    def named(name: str) -> str:
        return name.replace("model", whose)

    for name, text, value in (
        ("concurrency", "Requests that may be under way together now, known or found by trying.", model.concurrency),
        ("requests_in_flight", "Requests to the model under way, over the whole fleet.", model.in_use),
        ("requests_waiting", "Requests that wait for the account's limits.", model.waiting),
        ("requests_last_minute", "Requests that count against the limit per minute.", model.minute_requests),
        ("tokens_last_minute", "Tokens that count against the limit per minute.", model.minute_tokens),
        ("tokens_last_day", "Tokens that count against the limit per day.", model.day_tokens),
    ):
        yield GaugeMetricFamily(named(f"kimi_review_model_{name}"), text, value=value)
    limits = GaugeMetricFamily(
        named("kimi_review_model_limit"),
        "The account's limits in force, and who told them.",
        labels=["kind", "source"],
    )
    for limit in model.limits:
        limits.add_metric([limit.kind, limit.source], limit.value)
    yield limits
    paused = GaugeMetricFamily(
        named("kimi_review_model_paused"),
        "1 while no request is sent because the provider said so.",
        labels=["reason"],
    )
    paused.add_metric(["cooling_down"], float(model.paused_until is not None))
    paused.add_metric(["quota"], float(model.quota_used_up_until is not None))
    yield paused


def _spending(vitals: Vitals) -> Iterable[Metric]:
    spent, month = vitals.spent, vitals.month
    requests = CounterMetricFamily(
        "kimi_review_model_requests", "Requests to the model of a month, by outcome.", labels=["month", "outcome"]
    )
    requests.add_metric([month, "answered"], spent.requests)
    requests.add_metric([month, "lost"], spent.lost_requests)
    yield requests
    tokens = CounterMetricFamily("kimi_review_model_tokens", "Tokens of a month, as billed.", labels=["month", "kind"])
    tokens.add_metric([month, "input"], spent.input_tokens)
    tokens.add_metric([month, "cached_input"], spent.cached_tokens)
    tokens.add_metric([month, "output"], spent.output_tokens)
    yield tokens
    cost = CounterMetricFamily(
        "kimi_review_model_cost_usd", "US dollars of a month, of requests with a known price.", labels=["month"]
    )
    cost.add_metric([month], spent.usd)
    yield cost
    reserved = "The most that requests under way may still cost, in US dollars."
    yield GaugeMetricFamily("kimi_review_model_reserved_usd", reserved, value=spent.reserved_usd)
    if vitals.month_budget_usd is not None:
        budget = "LLM_MONTHLY_BUDGET_USD."
        yield GaugeMetricFamily("kimi_review_model_monthly_budget_usd", budget, value=vitals.month_budget_usd)
