"""Permit: the permission to make an attempt, which is the one way to pass all limits of a client.

Not here: how each limit counts, and holding requests back while the server fails (`limiter`).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import anyio

from chatscope._limits.circuit_breaker import DOWN_AFTER
from chatscope._limits.fifo import Order
from chatscope._limits.limiter import Limiter
from chatscope._limits.rate_limit import Reservation
from chatscope._limits.refusals import RefusalCount
from chatscope._limits.retry import MAX_RETRY_AFTER, PATIENCE, waits_disabled
from chatscope._limits.transient import is_transient
from chatscope.errors import APIStatusError, ChatError, RateLimitError
from chatscope.protocol.usage import Usage


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

    def __init__(self, limiter: Limiter, label: str, model: str = "", priority: float = 0.0) -> None:
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
        if limiter.breaker.failures >= DOWN_AFTER:
            return False
        rate = limiter.rate
        reservation = rate.acquire_nowait(self._model, rate.estimate(body, max_tokens))
        if reservation is None:
            return False
        self._uses_retry = False
        self._begin(reservation)
        return True

    def _begin(self, reservation: Reservation) -> None:
        self._reservation = reservation
        self._is_held = True
        self._is_sent = self._has_response = False
        self._limiter.requests += 1

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
        rate = self._limiter.rate
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
        order, seconds = Order(-self._priority, next(limiter.numbers)), max(patience - self._held_seconds, 0.0)
        try:
            return await limiter.hold_back(order, retry=retry, seconds=seconds, patience=patience)
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
            limiter = self._limiter
            limiter.rate.on_response(self._reservation, headers if limiter.backpressure else {})

    def on_first_output(self) -> None:
        """Record the first output of the model."""
        self._limiter.on_success()
        if self._reservation is not None and self._reservation.limits.last_refusal is not None:
            self._reservation.limits.on_success()

    def on_failure(self, error: ChatError) -> None:
        """Record the attempt's error."""
        limiter = self._limiter
        if not limiter.backpressure:
            return
        if isinstance(error, RateLimitError):
            if self._reservation is not None:
                limiter.rate.on_refusal(self._reservation, error, self._sent_ns, self._refusals_seen())
            if is_transient(error):
                limiter.slots.on_rate_limited(self._sent_ns)
                if error.retry_after is not None and error.retry_after <= MAX_RETRY_AFTER and not waits_disabled():
                    limiter.rate.pause(self._model, error.retry_after, self._label)
        elif is_transient(error):
            limiter.breaker.on_failure(error)
        elif isinstance(error, APIStatusError):
            limiter.on_response()  # the server refuses this request, so it works

    def on_usage(self, usage: Usage | None) -> None:
        """Record what the attempt used, if the server reported it."""
        if usage is not None and self._reservation is not None:
            self._limiter.rate.settle(self._reservation, usage)

    def release(self) -> None:
        """Release the permit. Releasing it twice does nothing."""
        if not self._is_held or self._reservation is None:
            return
        self._is_held = False
        limiter = self._limiter
        if not self._is_sent:
            limiter.rate.cancel(self._reservation)
            limiter.requests -= 1
            self._give_back_retry()
        elif not self._has_response:
            limiter.rate.on_no_response(self._reservation)

    def _refusals_seen(self) -> RefusalCount:
        if self._refusals is None:  # most calls are never refused, and never wait
            self._refusals = RefusalCount(PATIENCE)
        return self._refusals

    def _give_back_retry(self) -> None:
        if self._uses_retry:
            self._uses_retry = False
            self._limiter.budget.give_back()
            self._limiter.held_back.wake()
