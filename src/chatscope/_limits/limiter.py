"""Limiter: the limits that all calls of one client share: slots, rate limits, retry budget and circuit breaker.

Here: holding requests back while the server fails, and counts for users. Not here: how each of the limits counts, and
the one way for an attempt to pass them all (`permit`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Literal

import anyio

from chatscope._limits.circuit_breaker import CircuitBreaker
from chatscope._limits.clock import Clock
from chatscope._limits.concurrency import Slots
from chatscope._limits.fifo import Order, WaiterQueue
from chatscope._limits.pacer import Pacer
from chatscope._limits.rate_limit import RateLimiter
from chatscope._limits.refusals import not_sent
from chatscope._limits.retry_budget import RetryBudget
from chatscope.errors import APIConnectionError, ChatError


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts of one client at one moment."""

    concurrency: int | None
    """How many calls may run at a time at present; `None` means no limit."""
    running: int
    queued: int
    """Calls that wait for a slot."""
    paced: int
    """Requests that wait for a budget, a limit or a pause."""
    held_back: int
    """Requests that wait because the server is failing."""
    requests: int
    """Attempts that were allowed so far."""
    retry_tokens: float
    """Retries left in the retry budget."""
    failures_in_a_row: int
    in_flight: int
    """Requests that were sent and have no response yet."""


class Limiter:
    """The limits of one client to one server.

    Args:
        name: the server's name in the log.
        max_concurrency: how many calls at a time; `None` means no limit, `"auto"` adapts.
        max_pending: how many calls may wait for a slot; `None` means no limit.
        requests_per_minute, tokens_per_minute: budgets; `None` means no limit.
        pacer: replaces the budgets.
        backpressure: whether requests wait for a server that refuses, fails, or announces its limits.

    Attributes:
        backpressure: as given.
        clock: the clock by which they count.
        slots: the slots of the calls.
        rate, budget, breaker: the rate limits, the retry budget and the circuit breaker.
        held_back: the requests that wait because the server is failing.
        numbers: count those requests.
        requests: how many attempts were allowed so far.
    """

    __slots__ = (
        "backpressure",
        "breaker",
        "budget",
        "clock",
        "held_back",
        "numbers",
        "rate",
        "requests",
        "slots",
    )

    def __init__(
        self,
        name: str,
        *,
        max_concurrency: int | Literal["auto"] | None = None,
        max_pending: int | None = None,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        pacer: Pacer | None = None,
        backpressure: bool = True,
    ) -> None:
        self.backpressure = backpressure
        self.clock = Clock()
        self.slots = Slots(max_concurrency, max_pending)
        self.rate = RateLimiter(name, requests_per_minute, tokens_per_minute, pacer, self.clock)
        self.budget = RetryBudget()
        self.breaker = CircuitBreaker(name, self.clock)
        self.held_back = WaiterQueue()
        self.numbers = count()
        self.requests = 0

    def statistics(self) -> Statistics:
        """Return the current counts."""
        return Statistics(
            concurrency=self.slots.total,
            running=self.slots.taken,
            queued=self.slots.waiting,
            paced=self.rate.waiting,
            held_back=len(self.held_back),
            requests=self.requests,
            retry_tokens=self.budget.tokens,
            failures_in_a_row=self.breaker.failures,
            in_flight=self.rate.in_flight,
        )

    @property
    def can_hedge(self) -> bool:
        """Whether a hedged attempt may be made now. It counts as a retry, and does not wait for the retry budget."""
        return self.budget.tokens >= 1 and not self.breaker.is_open

    @property
    def outage(self) -> ChatError | None:
        """The error of the server's last request while the server counts as down."""
        return self.breaker.last_failure if self.breaker.is_open else None

    async def hold_back(self, order: Order, *, retry: bool, seconds: float, patience: float) -> bool:
        """Wait until the circuit breaker and the retry budget allow a request. If cancelled, nothing is taken.

        Args:
            order: the call's place.
            retry: whether this is a call's second attempt or a later one.
            seconds: how long to wait at most.
            patience: how long the call may be held back in all, in seconds, for the error.

        Returns:
            Whether a retry was taken from the retry budget.

        Raises:
            APIConnectionError: the wait took too long.
        """
        if not self.breaker.is_open and (not retry or self.budget.try_take()):
            return retry
        uses_retry = False

        def try_acquire() -> float:
            nonlocal uses_retry
            if self.breaker.is_open:
                return self.breaker.try_probe(self.clock.now())
            if not retry or self.budget.try_take():
                uses_retry = retry
                return 0.0
            return self.budget.try_wait(self.clock.now())

        with anyio.move_on_after(seconds):
            await self.held_back.acquire(try_acquire, order)
            return uses_retry
        raise self._gave_up(patience)

    def on_success(self) -> None:
        """Record a success."""
        self.slots.on_success()
        if not self.breaker.failures and self.budget.is_full:
            return  # the usual case
        self.budget.on_success()
        self.on_response()

    def on_response(self) -> None:
        """Record that the server works, even if it refused a request."""
        if self.breaker.on_response():
            self.budget.refill(len(self.held_back))
        self.held_back.wake()

    def _gave_up(self, patience: float) -> APIConnectionError:
        """Return the error for a request that was held back for too long."""
        if self.breaker.is_open:
            why = f"the server failed the last {self.breaker.failures} requests"
        else:
            why = "too many of the last requests failed, and the retry budget is used up"
        return not_sent(f"{why}; held back for {patience:g} s", self.breaker.last_failure)
