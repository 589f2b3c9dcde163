"""RetryBudget: a server that fails some requests gets a fraction more traffic, not a multiple.

A token bucket as in gRPC's retry throttling (gRFC A6), shared by all calls of a client: each retry takes a token, and
each success brings back a part of one. Not here: a server that fails all requests (`circuit_breaker`), and waiting
(`limiter`).
"""

from __future__ import annotations

from typing import Final

CAPACITY: Final = 100.0
"""Retries in store. With the default of 100 calls at a time, each may retry once before the ratio counts."""

RATIO: Final = 0.1
"""What a success adds, in retries: in the long run at most a tenth more traffic; gRPC's own example."""

REFILL_SECONDS: Final = 1.0
"""How long a retry waits for a token where no success brings one, in seconds: few calls must not starve."""


class RetryBudget:
    """The retries in store.

    Args:
        capacity: how many are in store at first.
        ratio: what a success adds to them.

    Attributes:
        tokens: how many are in store now.
    """

    __slots__ = ("_capacity", "_ratio", "_refill_at", "tokens")

    def __init__(self, *, capacity: float = CAPACITY, ratio: float = RATIO) -> None:
        self._capacity = self.tokens = capacity
        self._ratio = ratio
        self._refill_at = 0.0

    @property
    def is_full(self) -> bool:
        """Whether a success would add nothing."""
        return self.tokens >= self._capacity

    def try_take(self) -> bool:
        """Take a retry from the store, if there is one."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def try_wait(self, now: float) -> float:
        """Return 0 if a retry may go although the store is empty, else the seconds after which one may."""
        self._refill_at = self._refill_at or now + REFILL_SECONDS
        wait = self._refill_at - now
        if wait <= 0:
            self._refill_at = 0.0
        return max(wait, 0.0)

    def give_back(self) -> None:
        """Put a retry back that was not sent after all."""
        if not self.is_full:  # after an outage there may be more
            self.tokens = min(self._capacity, self.tokens + 1)

    def on_success(self) -> None:
        """Record that a request succeeded."""
        if not self.is_full:
            self.tokens = min(self._capacity, self.tokens + self._ratio)

    def refill(self, waiting: int) -> None:
        """Fill the store after an outage, with a retry at least for each call that waited for its end.

        Those have not sent what they would have sent.
        """
        self.tokens = max(self._capacity, waiting)
