"""The retry budget: a server that fails gets a fraction more traffic, not a multiple.

Two things, shared by all calls of a client. A token bucket as in gRPC's retry throttling (gRFC A6): each retry takes a
token, each success brings a part of one back. And a memory for outages: after so many failures in a row, requests wait
while one of them at a time tries whether the server is back. Refusals for want of capacity (429) are no failures.
"""

from __future__ import annotations

import logging
from math import inf
from typing import Final

import anyio

from chatscope._limits.fifo import WaiterQueue
from chatscope.errors import APIConnectionError, ChatError

CAPACITY: Final = 100.0
"""Retries in store. With the default of 100 calls at a time, each may retry once before the ratio counts."""

RATIO: Final = 0.1
"""What a success adds, in retries: in the long run at most a tenth more traffic; gRPC's own example."""

REFILL_SECONDS: Final = 1.0
"""How long a retry waits for a token where no success brings one, in seconds: few calls must not starve."""

DOWN_AFTER: Final = 10
"""Failures in a row after which a server counts as down. At a failure rate of one half, that is 1 in 1000."""

PROBE_FIRST: Final = 1.0
PROBE_MOST: Final = 4.0
"""Seconds between two requests that try whether a server is back: doubling from the first to the last. The last bounds
how late a recovery is noticed."""

PATIENCE: Final = 120.0
"""How long a call without a deadline waits for a server that is down, in seconds, before it fails."""

_log: Final = logging.getLogger("chatscope.retry")


class RetryBudget:
    """Who may try again, and who may try at all, while a server fails.

    Args:
        name: what the log calls the server.
        capacity: retries in store.
        ratio: what a success adds to them.
    """

    __slots__ = (
        "_capacity",
        "_last",
        "_name",
        "_probe_at",
        "_probe_wait",
        "_ratio",
        "_refill_at",
        "_waiters",
        "failures",
        "tokens",
    )

    def __init__(self, name: str, *, capacity: float = CAPACITY, ratio: float = RATIO) -> None:
        self._name = name
        self._capacity = self.tokens = capacity
        self._ratio = ratio
        self._waiters = WaiterQueue()
        self._last: ChatError | None = None
        self._probe_at = 0.0
        self._probe_wait = PROBE_FIRST
        self._refill_at = 0.0
        self.failures = 0  # in a row

    @property
    def is_down(self) -> bool:
        """Whether the server counts as down."""
        return self.failures >= DOWN_AFTER

    @property
    def waiting(self) -> int:
        """How many calls wait for leave to send."""
        return len(self._waiters)

    async def acquire(self, *, retry: bool, patient: bool) -> bool:
        """Wait until a request may be sent. Cancelled, nothing is used up.

        Returns whether that took a retry out of the store.

        Args:
            retry: whether it is a call's second request or a later one.
            patient: whether something else bounds the wait; otherwise it ends after `PATIENCE` seconds.

        Raises:
            APIConnectionError: the server was down for so long.
        """
        if not self.is_down and (not retry or self.try_take()):
            return retry
        took = False
        gives_up_at = inf if patient else anyio.current_time() + PATIENCE

        def claim() -> float:
            nonlocal took
            now = anyio.current_time()
            if now >= gives_up_at:
                raise self._given_up()
            if self.is_down:
                wait = self._probe_at - now
                if wait <= 0:
                    self._probe_at = now + self._probe_wait
                    self._probe_wait = min(2 * self._probe_wait, PROBE_MOST)
            elif not retry or self.try_take():
                took = retry
                wait = 0.0
            else:
                self._refill_at = self._refill_at or now + REFILL_SECONDS
                wait = self._refill_at - now
                if wait <= 0:
                    self._refill_at = 0.0
            return min(wait, gives_up_at - now)

        await self._waiters.acquire(claim)
        return took

    def refund(self) -> None:
        """Put a retry back that was not sent after all."""
        if self.tokens < self._capacity:  # after an outage there may be more
            self.tokens = min(self._capacity, self.tokens + 1)
        self._waiters.wake()

    def try_take(self) -> bool:
        """Take a retry from the store, if there is one."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def on_success(self) -> None:
        """Take note that the server answered a request as it should."""
        if not self.failures and self.tokens >= self._capacity:
            return  # as ever
        if self.is_down:
            _log.info("%s answers again after %d failures in a row", self._name, self.failures)
            # Whoever waited has not sent what it would have sent; a new start for all of them.
            self.tokens = max(self._capacity, len(self._waiters))
            self._probe_wait = PROBE_FIRST
        elif self.tokens < self._capacity:
            self.tokens = min(self._capacity, self.tokens + self._ratio)
        self.failures = 0
        self._waiters.wake()

    def on_failure(self, error: ChatError) -> None:
        """Take note that the server failed a request, and how."""
        self.failures += 1
        self._last = error
        if self.failures == DOWN_AFTER:
            _log.warning(
                "%s failed %d requests in a row: one at a time tries whether it is back", self._name, DOWN_AFTER
            )
            self._probe_at = anyio.current_time() + self._probe_wait

    def _given_up(self) -> APIConnectionError:
        error = APIConnectionError(
            f"not sent: the server failed the last {self.failures} requests, and {PATIENCE:g} s did not change it",
            should_retry=False,
        )
        error.__cause__ = self._last
        return error
