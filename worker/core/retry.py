"""Retry or give up, and how long to wait: the one place where that is decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from worker.core.errors import EmptyAnswer, Overloaded, RateLimited, Stalled, Transient, Unreachable

RATE_WINDOW_S = 60.0
"""Requests and tokens per minute are counted over this window. Moonshot sends `Retry-After: 1` with them, which
only brings the next refusal, so a wait for either never ends sooner than the window does."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Exponential backoff with full jitter: attempt n waits up to `base_s * 2 ** (n - 1)`, at most `cap_s`."""

    attempts: int
    """Counts the first call too."""
    base_s: float
    cap_s: float
    total_s: float
    """No wait may end later than this after the first failure."""


RULES: Mapping[type[Transient], Rule] = {
    # A busy engine stays busy for minutes; a fallback, where there is one, should not wait much longer than this.
    Overloaded: Rule(attempts=8, base_s=2.0, cap_s=60.0, total_s=600.0),
    RateLimited: Rule(attempts=10, base_s=1.0, cap_s=32.0, total_s=900.0),
    # Each of these attempts may have cost a whole deadline and, with some providers, its tokens.
    Stalled: Rule(attempts=3, base_s=1.0, cap_s=16.0, total_s=3600.0),
    EmptyAnswer: Rule(attempts=3, base_s=0.5, cap_s=8.0, total_s=3600.0),
    Unreachable: Rule(attempts=6, base_s=0.5, cap_s=32.0, total_s=600.0),
    Transient: Rule(attempts=6, base_s=0.5, cap_s=32.0, total_s=600.0),
}
"""The closest class in an error's ancestry decides; what is not `Transient` is never retried."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Call again after `wait_s` seconds, spent without holding anything."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """`reason` in words, for the log."""

    reason: str


def decide(error: Exception, *, attempt: int, elapsed_s: float, random: float) -> Retry | GiveUp:
    """Decide what follows `error` on the `attempt`-th call (the first is 1), `elapsed_s` after the first failure.

    `random` is uniform in [0, 1). Full jitter, so that a fleet does not come back as one:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/. The other side's wish
    (RFC 9110 §10.2.3) is a floor that the jitter is added to.
    """
    if not isinstance(error, Transient):
        return GiveUp("the same call cannot succeed later")
    return _decide(rule_for(error), error, attempt=attempt, elapsed_s=elapsed_s, random=random)


READ_RULE = Rule(attempts=5, base_s=1.0, cap_s=8.0, total_s=30.0)
"""For one question to a forge, or one fetch from it, within an attempt of its job: what heals in seconds costs no
attempt. The last try may begin at the end of the total, and then takes as long as its own deadline allows."""


def decide_read(
    error: Transient, *, attempt: int, elapsed_s: float, random: float, rule: Rule = READ_RULE
) -> Retry | GiveUp:
    """Decide what follows `error` on the `attempt`-th try (the first is 1) of a call that changes nothing.

    `elapsed_s` counts from the beginning of the first try: after one that took long to fail the job is put off, and
    holds no worker meanwhile. So it is by a limit that ends later than `rule` allows, or that names no time.
    """
    match error:
        case RateLimited(retry_after_s=None):
            return GiveUp("the limit names no time")
        case RateLimited() | Unreachable():
            return _decide(rule, error, attempt=attempt, elapsed_s=elapsed_s, random=random)
    return GiveUp("nothing of it is known to heal in seconds")


def _decide(rule: Rule, error: Transient, *, attempt: int, elapsed_s: float, random: float) -> Retry | GiveUp:
    if attempt >= rule.attempts:
        return GiveUp(f"{attempt} attempts are spent")
    # The exponent is bounded before the power is taken: 2.0 ** 1100 would overflow.
    ceiling_s = min(rule.cap_s, rule.base_s * 2.0 ** min(attempt - 1, 64))
    wait_s = floor_s(error) + random * ceiling_s
    if elapsed_s + wait_s > rule.total_s:
        return GiveUp(f"waiting {wait_s:.0f} s more would pass the limit of {rule.total_s:.0f} s")
    return Retry(wait_s)


JOB_RULE = Rule(attempts=13, base_s=2.0, cap_s=600.0, total_s=float("inf"))
"""For a job as a whole, after the calls in it have spent their own attempts: about an hour of a forge's absence."""


def decide_job(error: Transient, *, attempt: int, random: float) -> Retry | GiveUp:
    """Decide what follows `error`, which ended the job's `attempt`-th attempt (the first is 1).

    Half of the wait is certain and half is jitter: a job holds nothing while it waits, and at once would be in vain.
    """
    if attempt >= JOB_RULE.attempts:
        return GiveUp(f"{attempt} attempts are spent")
    ceiling_s = min(JOB_RULE.cap_s, JOB_RULE.base_s * 2.0 ** min(attempt - 1, 64))
    return Retry(max(floor_s(error), ceiling_s / 2) + random * ceiling_s / 2)


def rule_for(error: Transient) -> Rule:
    """The row of `RULES` that an error belongs to."""
    return next(RULES[cls] for cls in type(error).__mro__ if cls in RULES)


def floor_s(error: Transient) -> float:
    """Seconds that must pass whatever the jitter says."""
    asked_s = max(0.0, error.retry_after_s or 0.0)
    if isinstance(error, RateLimited) and error.limit in ("rpm", "tpm"):
        return max(asked_s, RATE_WINDOW_S)
    return asked_s
