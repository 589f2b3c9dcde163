"""RetryBudget: bounds the traffic that retries add, to a fraction of the requests instead of a multiple of them.

It is a token bucket as in gRPC's retry throttling (gRFC A6), shared by all calls of a client: each retry takes a token,
and each success adds a fraction of one. Not here: a server that fails all requests (`circuit_breaker`), and waiting
(`limiter`).
"""

from __future__ import annotations

from typing import Final

CAPACITY: Final = 100.0
"""The size of the budget, in retries. With the default of 100 concurrent calls, each may retry once before `RATIO`
limits them."""

RATIO: Final = 0.1
"""How many retries a success adds: in the long run, at most a tenth more traffic. This is gRPC's own example."""

REFILL_SECONDS: Final = 1.0
"""How long a retry waits if the budget is empty and no success refills it, in seconds, so that few calls do not
starve."""


class RetryBudget:
    """The number of retries that are left.

    Args:
        capacity: the initial and largest number.

    Attributes:
        tokens: how many are left.
    """

    __slots__ = ("_capacity", "_refill_at", "tokens")

    def __init__(self, *, capacity: float = CAPACITY) -> None:
        self._capacity = self.tokens = capacity
        self._refill_at = 0.0

    @property
    def is_full(self) -> bool:
        """Whether a success would add nothing."""
        return self.tokens >= self._capacity

    def try_take(self) -> bool:
        """Take a retry if one is left; return whether one was."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def try_wait(self, now: float) -> float:
        """Return 0 if a retry is allowed although the budget is empty, else the seconds after which one will be."""
        self._refill_at = self._refill_at or now + REFILL_SECONDS
        wait = self._refill_at - now
        if wait <= 0:
            self._refill_at = 0.0
        return max(wait, 0.0)

    def give_back(self) -> None:
        """Give back a retry that was not sent after all."""
        if not self.is_full:  # after an outage there may be more
            self.tokens = min(self._capacity, self.tokens + 1)

    def on_success(self) -> None:
        """Record that a request succeeded."""
        if not self.is_full:
            self.tokens = min(self._capacity, self.tokens + RATIO)

    def refill(self, waiting: int) -> None:
        """Fill the budget after an outage, with at least one retry for each call that was held back.

        Those calls did not send the retries that they would otherwise have sent.
        """
        self.tokens = max(self._capacity, waiting)
