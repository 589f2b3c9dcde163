"""Requests and tokens per minute: token buckets, the headers that report them, the 429 that enforces them.

Time is an argument, in seconds of any clock, so the arithmetic is exact with a virtual clock. A refused request costs
nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from chatscope.simulator.errors import error

if TYPE_CHECKING:
    from chatscope.simulator.plan import Response

SLACK = 1e-6
"""How much of a unit may be missing, so that rounding does not refuse a client that waited exactly as long as asked."""


class Bucket:
    """A token bucket that holds the budget of one minute and is refilled continuously."""

    __slots__ = ("_level", "_refilled", "per_minute")

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._refilled = now

    def level(self, now: float) -> float:
        """Return how much is available."""
        self._level = min(self.per_minute, self._level + (now - self._refilled) * self.per_minute / 60)
        self._refilled = now
        return self._level

    def wait_for(self, amount: int, now: float) -> float:
        """Return the seconds until `amount` is available: 0 if it is now, infinite if it exceeds the bucket."""
        if amount > self.per_minute:
            return math.inf
        missing = amount - self.level(now)
        return missing * 60 / self.per_minute if missing > SLACK else 0.0

    def take(self, amount: int, now: float) -> None:
        """Take an amount for which `wait_for` returned 0."""
        self._level = max(0.0, self.level(now) - amount)

    def headers(self, unit: str, now: float) -> tuple[tuple[str, str], ...]:
        """Return the `x-ratelimit-*` headers of this bucket. The reset is the time until the bucket is full."""
        level = self.level(now)
        return (
            (f"x-ratelimit-limit-{unit}", str(self.per_minute)),
            (f"x-ratelimit-remaining-{unit}", str(math.floor(level + SLACK))),
            (f"x-ratelimit-reset-{unit}", format_duration((self.per_minute - level) * 60 / self.per_minute)),
        )


class RateLimits:
    """The limits of one endpoint, both optional.

    A request costs one request and the total tokens of its usage, which a simulator knows in advance.
    """

    __slots__ = ("_buckets",)

    def __init__(self, requests_per_minute: int | None, tokens_per_minute: int | None, now: float) -> None:
        given = {"requests": requests_per_minute, "tokens": tokens_per_minute}
        self._buckets = {unit: Bucket(limit, now) for unit, limit in given.items() if limit is not None}

    def admit(self, tokens: int, model: str, now: float) -> Response | None:
        """Take the cost of a request from the buckets, or return a 429 that names the bucket that is too low."""
        costs = [(unit, bucket, 1 if unit == "requests" else tokens) for unit, bucket in self._buckets.items()]
        for unit, bucket, cost in costs:
            wait = bucket.wait_for(cost, now)
            if wait:
                return _refusal(unit, bucket, cost, model, wait, now)
        for _, bucket, cost in costs:
            bucket.take(cost, now)
        return None

    def headers(self, now: float) -> tuple[tuple[str, str], ...]:
        """Return the `x-ratelimit-*` headers, with the current request already counted."""
        return tuple(header for unit, bucket in self._buckets.items() for header in bucket.headers(unit, now))


def _refusal(unit: str, bucket: Bucket, cost: int, model: str, wait: float, now: float) -> Response:
    limit = bucket.per_minute
    if math.isinf(wait):
        message = f"Request too large for {model} on {unit} per min: Limit {limit}, Requested {cost}."
        return error(429, message, kind=unit, code="rate_limit_exceeded")
    used = math.ceil(limit - bucket.level(now) - SLACK)
    message = (
        f"Rate limit reached for {model} on {unit} per min: Limit {limit}, Used {used}, Requested {cost}. "
        f"Please try again in {format_duration(wait)}."
    )
    return error(429, message, kind=unit, code="rate_limit_exceeded", retry_after=wait)


def format_duration(seconds: float) -> str:
    """Return a duration as the OpenAI API writes it, rounded up to a millisecond: `12ms`, `1.5s`, `6m0s`, `1h0m0s`."""
    milliseconds = math.ceil(round(seconds * 1000, 3))
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
