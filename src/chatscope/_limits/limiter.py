"""Limiter: the limits that all calls of one client share: slots, rate limits, retry budget and circuit breaker.

Here: `Permit`, the one way for an attempt to pass them. Not here: how each of them counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from math import inf
from typing import Literal

import anyio

from chatscope._limits.circuit_breaker import DOWN_AFTER, CircuitBreaker
from chatscope._limits.clock import Clock
from chatscope._limits.concurrency import Slots
from chatscope._limits.fifo import Order, WaiterQueue
from chatscope._limits.pacer import Pacer
from chatscope._limits.rate_limit import RateLimiter, Reservation
from chatscope._limits.refusals import RefusalCount, not_sent
from chatscope._limits.retry import MAX_RETRY_AFTER, PATIENCE, waits_disabled
from chatscope._limits.retry_budget import RetryBudget
from chatscope._limits.transient import is_transient
from chatscope.errors import APIConnectionError, APIStatusError, ChatError, RateLimitError
from chatscope.protocol.usage import Usage


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
        clock: the clock by which they count.
        slots: the slots of the calls.
    """

    __slots__ = (
        "_backpressure",
        "_breaker",
        "_budget",
        "_held_back",
        "_numbers",
        "_rate",
        "_requests",
        "clock",
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
        self._backpressure = backpressure
        self.clock = Clock()
        self.slots = Slots(max_concurrency, max_pending)
        self._rate = RateLimiter(name, requests_per_minute, tokens_per_minute, pacer, self.clock)
        self._budget = RetryBudget()
        self._breaker = CircuitBreaker(name, self.clock)
        self._held_back = WaiterQueue()
        self._numbers = count()
        self._requests = 0

    def statistics(self) -> Statistics:
        """Return the current counts."""
        return Statistics(
            concurrency=self.slots.total,
            running=self.slots.taken,
            queued=self.slots.waiting,
            paced=self._rate.waiting,
            held_back=len(self._held_back),
            requests=self._requests,
            retry_tokens=self._budget.tokens,
            failures_in_a_row=self._breaker.failures,
            in_flight=self._rate.in_flight,
        )

    @property
    def can_hedge(self) -> bool:
        """Whether a hedged attempt may be made now. It counts as a retry, and does not wait for the retry budget."""
        return self._budget.tokens >= 1 and not self._breaker.is_open

    @property
    def outage(self) -> ChatError | None:
        """The error of the server's last request while the server counts as down."""
        return self._breaker.last_failure if self._breaker.is_open else None

    async def _hold_back(self, order: Order, *, retry: bool, seconds: float, patience: float) -> bool:
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
        if not self._breaker.is_open and (not retry or self._budget.try_take()):
            return retry
        uses_retry = False

        def try_acquire() -> float:
            nonlocal uses_retry
            if self._breaker.is_open:
                return self._breaker.try_probe(self.clock.now())
            if not retry or self._budget.try_take():
                uses_retry = retry
                return 0.0
            return self._budget.try_wait(self.clock.now())

        with anyio.move_on_after(seconds):
            await self._held_back.acquire(try_acquire, order)
            return uses_retry
        raise self._gave_up(patience)

    def _on_success(self) -> None:
        """Record a success."""
        self.slots.on_success()
        if not self._breaker.failures and self._budget.is_full:
            return  # the usual case
        self._budget.on_success()
        self._on_response()

    def _on_response(self) -> None:
        if self._breaker.on_response():
            self._budget.refill(len(self._held_back))
        self._held_back.wake()

    def _gave_up(self, patience: float) -> APIConnectionError:
        """Return the error for a request that was held back for too long."""
        if self._breaker.is_open:
            why = f"the server failed the last {self._breaker.failures} requests"
        else:
            why = "too many of the last requests failed, and the retry budget is used up"
        return not_sent(f"{why}; held back for {patience:g} s", self._breaker.last_failure)


class Permit:
    """The permission to make an attempt, from all limits of its client.

    Call `acquire` first and `release` last, whatever happens between them; then the next attempt can acquire it again.
    If it is released before `on_send`, all limits are as if it had never been acquired. Only `on_usage` may be called
    after `release`.

    Args:
        limiter: the limits.
        label: the call's name in the log.
        model: the requested model. The server's own limits are stored per model.
        priority: requests with a higher priority go first where they wait.
    """

    __slots__ = (
        "_has_response",
        "_held_seconds",
        "_is_held",
        "_is_sent",
        "_label",
        "_limiter",
        "_model",
        "_priority",
        "_refusals",
        "_reservation",
        "_sent_ns",
        "_uses_retry",
    )

    def __init__(self, limiter: Limiter, label: str, *, model: str = "", priority: float = 0.0) -> None:
        self._limiter = limiter
        self._label = label
        self._model = model
        self._priority = priority
        self._held_seconds = 0.0
        self._reservation: Reservation | None = None
        self._refusals: RefusalCount | None = None
        self._is_held = self._is_sent = self._has_response = self._uses_retry = False
        self._sent_ns = 0

    def try_acquire(self, body: bytes, max_tokens: int | None) -> bool:
        """Acquire a permit for a call's first attempt, if that needs no wait; return whether it was acquired.

        Args:
            body: as for `acquire`.
            max_tokens: as for `acquire`.
        """
        limiter = self._limiter
        if limiter._breaker.failures >= DOWN_AFTER:
            return False
        reservation = limiter._rate.acquire_nowait(self._model, limiter._rate.estimate(body, max_tokens))
        if reservation is None:
            return False
        self._uses_retry = False
        self._begin(reservation)
        return True

    def _begin(self, reservation: Reservation) -> None:
        self._reservation = reservation
        self._is_held = True
        self._is_sent = self._has_response = False
        self._limiter._requests += 1

    async def acquire(
        self, body: bytes, max_tokens: int | None, *, retry: bool, patience: float, most_refusals: float = inf
    ) -> None:
        """Acquire a permit for one attempt. If cancelled, no permit is consumed.

        Args:
            body: the request's body, from which its tokens are estimated.
            max_tokens: its limit on the output.
            retry: whether this is the call's second attempt or a later one.
            patience: how long the call may be held back in all, in seconds.
            most_refusals: how many consecutive refusals (429) end the call's wait for the server's limits.

        Raises:
            APIConnectionError: the call was held back for that long because the server was failing, or the server
                refused that often.
        """
        rate = self._limiter._rate
        tokens = rate.estimate(body, max_tokens)
        self._uses_retry = await self._hold_back(retry=retry, patience=patience)
        try:
            reservation = await rate.acquire(self._model, tokens, self._priority, self._refusals_seen(), most_refusals)
        except BaseException:
            self._give_back_retry()
            raise
        self._begin(reservation)

    async def _hold_back(self, *, retry: bool, patience: float) -> bool:
        limiter = self._limiter
        began_at = anyio.current_time()
        order, seconds = Order(-self._priority, next(limiter._numbers)), max(patience - self._held_seconds, 0.0)
        try:
            return await limiter._hold_back(order, retry=retry, seconds=seconds, patience=patience)
        finally:
            self._held_seconds += anyio.current_time() - began_at

    def on_send(self, sent_ns: int) -> None:
        """Record that the request is being sent, at this time: from now on the server may count it."""
        self._is_sent = True
        self._sent_ns = sent_ns

    def on_headers(self, headers: Mapping[str, str]) -> None:
        """Record that the response's headers arrived, and the limits in them."""
        if self._is_held and not self._has_response and self._reservation is not None:
            self._is_sent = self._has_response = True
            learned_from = headers if self._limiter._backpressure else {}
            self._limiter._rate.on_response(self._reservation, learned_from)

    def on_first_output(self) -> None:
        """Record the first output of the model."""
        self._limiter._on_success()
        if self._reservation is not None and self._reservation.limits.last_refusal is not None:
            self._reservation.limits.on_success()

    def on_failure(self, error: ChatError) -> None:
        """Record the attempt's error."""
        limiter = self._limiter
        if not limiter._backpressure:
            return
        if isinstance(error, RateLimitError):
            if self._reservation is not None:
                limiter._rate.on_refusal(self._reservation, error, self._sent_ns, self._refusals_seen())
            if is_transient(error):
                limiter.slots.on_rate_limited(self._sent_ns)
                if error.retry_after is not None and error.retry_after <= MAX_RETRY_AFTER and not waits_disabled():
                    limiter._rate.pause(self._model, error.retry_after, self._label)
        elif is_transient(error):
            limiter._breaker.on_failure(error)
        elif isinstance(error, APIStatusError):
            limiter._on_response()  # the server refuses this request, so it works

    def on_usage(self, usage: Usage | None) -> None:
        """Record what the attempt used, if the server reported it."""
        if usage is not None and self._reservation is not None:
            self._limiter._rate.settle(self._reservation, usage)

    def release(self) -> None:
        """Release the permit. Releasing it twice does nothing."""
        if not self._is_held or self._reservation is None:
            return
        self._is_held = False
        limiter = self._limiter
        if not self._is_sent:
            limiter._rate.cancel(self._reservation)
            limiter._requests -= 1
            self._give_back_retry()
        elif not self._has_response:
            limiter._rate.on_no_response(self._reservation)

    def _refusals_seen(self) -> RefusalCount:
        if self._refusals is None:  # most calls are never refused, and never wait
            self._refusals = RefusalCount(PATIENCE)
        return self._refusals

    def _give_back_retry(self) -> None:
        if self._uses_retry:
            self._uses_retry = False
            self._limiter._budget.give_back()
            self._limiter._held_back.wake()
