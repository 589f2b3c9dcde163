"""What all calls of one client share: slots, pace and retry budget, and how one request passes through them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from chatscope._limits.concurrency import Slots
from chatscope._limits.rate_limit import Pacer
from chatscope._limits.retry import MAX_RETRY_AFTER, is_transient, waits_disabled
from chatscope._limits.retry_budget import RetryBudget
from chatscope.errors import ChatError, RateLimitError
from chatscope.protocol.usage import Usage


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts of one client at one moment."""

    concurrency: int | None
    """How many calls may run at a time at present; `None` is no limit."""
    running: int
    queued: int
    """Calls that wait for a slot."""
    paced: int
    """Requests that wait for a budget, a limit or a pause."""
    held_back: int
    """Requests that wait because the server fails."""
    requests: int
    """Attempts that were given leave to send so far."""
    retry_tokens: float
    """Retries in store."""
    failures_in_a_row: int


class Limiter:
    """The traffic of one client to one server."""

    __slots__ = ("budget", "pacer", "requests", "slots")

    def __init__(
        self,
        name: str,
        *,
        max_concurrency: int | Literal["auto"] | None,
        max_pending: int | None,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
    ) -> None:
        self.slots = Slots(max_concurrency, max_pending)
        self.pacer = Pacer(name, requests_per_minute, tokens_per_minute)
        self.budget = RetryBudget(name)
        self.requests = 0

    def statistics(self) -> Statistics:
        """Return the counts as they are now."""
        return Statistics(
            concurrency=self.slots.total,
            running=self.slots.taken,
            queued=self.slots.waiting,
            paced=self.pacer.waiting,
            held_back=self.budget.waiting,
            requests=self.requests,
            retry_tokens=self.budget.tokens,
            failures_in_a_row=self.budget.failures,
        )


class Permit:
    """An attempt's way through the limiter: leave to send, the reply's headers, the outcome, what it used.

    Each step may come once, in this order; `over` settles what did not come, and the next attempt may begin.
    """

    __slots__ = ("_estimate", "_label", "_limiter", "_sent_ns", "_under_way")

    def __init__(self, limiter: Limiter, label: str) -> None:
        self._limiter = limiter
        self._label = label
        self._estimate = 0.0
        self._sent_ns = 0
        self._under_way = False

    async def acquire(self, body: bytes, max_tokens: int | None, *, retry: bool, patient: bool) -> None:
        """Wait for leave to send. Cancelled, nothing is used up.

        Raises:
            APIConnectionError: the server was down for longer than anybody waits.
        """
        limiter = self._limiter
        self._estimate = limiter.pacer.estimate(body, max_tokens)
        if retry or limiter.budget.is_down or not limiter.pacer.acquire_nowait(self._estimate):
            took_retry = await limiter.budget.acquire(retry=retry, patient=patient)
            try:
                await limiter.pacer.acquire(self._estimate)
            except BaseException:
                if took_retry:
                    limiter.budget.refund()
                raise
        self._under_way = True
        self._sent_ns = time.perf_counter_ns()
        limiter.requests += 1

    def on_headers(self, headers: Mapping[str, str]) -> None:
        """The reply's headers came."""
        if self._under_way:
            self._under_way = False
            self._limiter.pacer.on_response(self._estimate, headers)

    def on_first_output(self) -> None:
        """The model has answered."""
        self._limiter.budget.on_success()
        self._limiter.slots.on_success()

    def on_failure(self, error: ChatError) -> None:
        """The attempt failed."""
        if isinstance(error, RateLimitError):
            self._limiter.slots.on_rate_limited(self._sent_ns)
            self._limiter.pacer.on_usage(self._estimate, 0, 0)
            if error.retry_after is not None and error.retry_after <= MAX_RETRY_AFTER and not waits_disabled():
                self._limiter.pacer.pause(error.retry_after, self._label)
        elif is_transient(error):
            self._limiter.budget.on_failure(error)

    def on_usage(self, usage: Usage | None) -> None:
        """The server has told what the request used."""
        if usage is not None:
            self._limiter.pacer.on_usage(self._estimate, usage.total_tokens, usage.completion_tokens)

    def release(self) -> None:
        """The attempt is over, however it ended."""
        if self._under_way:
            self._under_way = False
            self._limiter.pacer.on_no_response(self._estimate)
