"""RateLimiter: how fast requests are sent: budgets per minute, limits from a server's headers, and requested pauses.

Here: the order of requests, by priority, and returning what was reserved. Not here: counting budgets (`pacer`), and
what headers mean for a model (`model_limits`).

All calls of a client share it. So after one refusal all of them wait, instead of each being refused in turn.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import count
from math import inf
from typing import Any, Final

import msgspec

from chatscope._limits.clock import Clock
from chatscope._limits.fifo import Order
from chatscope._limits.learned_limits import LearnedLimit, ModelLimit
from chatscope._limits.model_limits import ModelLimits
from chatscope._limits.pacer import BudgetPacer, GuardedPacer, Pacer
from chatscope._limits.refusals import RefusalCount
from chatscope.errors import ChatError
from chatscope.protocol.headers import has_plenty, rate_limits
from chatscope.protocol.usage import Usage

CHARACTERS_PER_TOKEN: Final = 4.0
"""For estimating a prompt: OpenAI's own rule of thumb for English text."""

FIRST_GUESS: Final = 256.0
"""How many tokens an output is expected to have before any usage has been reported."""

MOST_MODELS: Final = 64
"""How many models are remembered, since a gateway may serve any number. Beyond that, models without requests are
forgotten, and learned again when needed."""

_log: Final = logging.getLogger("chatscope.pacing")


class Reservation(msgspec.Struct, eq=False):
    """The amounts that one request has taken from the limits, until it is settled.

    Attributes:
        limits: its model's limits.
        tokens: its estimated tokens.
        use: its record in the pacer, until its tokens are settled.
    """

    limits: ModelLimits
    tokens: float
    use: Any = None


class RateLimiter:
    """Delays requests as budgets, a server's headers and its pauses demand.

    Args:
        name: the server's name in the log.
        requests_per_minute, tokens_per_minute: budgets for all models together; `None` means no limit.
        pacer: replaces the budgets.
        clock: the clock by which everything here counts.
    """

    __slots__ = ("_clock", "_guess", "_models", "_name", "_numbers", "_pacer", "_shared_requests", "_shared_tokens")

    def __init__(
        self,
        name: str,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        pacer: Pacer | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or Clock()
        self._name = name
        if pacer is None and (requests_per_minute is not None or tokens_per_minute is not None):
            pacer = BudgetPacer(requests_per_minute, tokens_per_minute)
        elif pacer is not None:
            pacer = GuardedPacer(pacer)
        self._pacer = pacer
        self._models: dict[str, ModelLimits] = {}
        self._shared_requests: dict[int, LearnedLimit] = {}
        self._shared_tokens: dict[int, LearnedLimit] = {}
        self._numbers = count()
        self._guess = FIRST_GUESS
        if pacer is not None:
            pacer.connect(self._wake, self._hold_back)

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return sum(len(limits.waiters) for limits in self._models.values())

    @property
    def in_flight(self) -> int:
        """How many requests were allowed and have no response yet."""
        return sum(limits.sent for limits in self._models.values())

    def estimate(self, body: bytes, max_tokens: int | None) -> float:
        """Return the tokens that a request will probably use, given its body and its limit on the output."""
        output = self._guess if max_tokens is None else min(self._guess, max_tokens)
        return len(body) / CHARACTERS_PER_TOKEN + output

    def acquire_nowait(self, model: str, tokens: float) -> Reservation | None:
        """Reserve the amounts of a request if nothing limits it at present; otherwise return `None`."""
        limits = self._models.get(model) or self._limits_of(model)
        return Reservation(limits, tokens) if self._pacer is None and limits.try_take(tokens) else None

    async def acquire(
        self,
        model: str,
        tokens: float,
        priority: float = 0.0,
        refusals: RefusalCount | None = None,
        most_refusals: float = inf,
    ) -> Reservation:
        """Wait until a request may be sent, and reserve its amounts. If cancelled, nothing is reserved.

        The caller must end the reservation: by `cancel` if the request is not sent; otherwise by `on_response` or
        `on_no_response`, then `settle`.

        Args:
            model: the model.
            tokens: the estimated tokens of the request.
            priority: requests with a higher priority go first, whatever they wait for.
            refusals: those that the call has seen.
            most_refusals: how many consecutive refusals end the wait.

        Raises:
            APIConnectionError: there were that many.
        """
        limits = self._limits_of(model)
        order = Order(-priority, next(self._numbers))
        reservation = Reservation(limits, tokens)

        def try_acquire() -> float:
            if refusals is not None and refusals.has_waited:
                refusals.check(limits, self._clock.now(), most_refusals)
            wait = self._try_acquire(reservation, order)
            if wait > 0 and refusals is not None:
                refusals.has_waited = True
                refusals.start(limits, self._clock.now())
            return wait

        if limits.waiters and refusals is not None:
            refusals.has_waited = True
            refusals.start(limits, self._clock.now())
        try:
            await limits.waiters.acquire(try_acquire, order)
        finally:
            if self._pacer is not None:
                self._wake(limits)
        return reservation

    def _try_acquire(self, reservation: Reservation, order: Order) -> float:
        """Reserve the amounts of a request and return 0, or return the seconds after which to try again."""
        limits, tokens, now = reservation.limits, reservation.tokens, self._clock.now()
        was_blocked = limits.blocked_until > now
        wait = limits.wait_for(tokens, now)
        if self._pacer is None:
            if wait <= 0:
                limits.take(tokens)
            return wait
        if wait > 0:
            if not was_blocked:
                self._wake(limits)  # this model is now blocked, so requests for others may go first
            return wait
        wait = self._pacer.wait_for(tokens, now)
        if wait <= 0 and self._is_behind(order, limits, now):
            return inf  # the request that goes first wakes this one
        if wait <= 0:
            reservation.use = self._pacer.take(tokens, now)  # before the limits: a user's pacer may raise
            limits.take(tokens)
        return wait

    def cancel(self, reservation: Reservation) -> None:
        """Return everything that a request reserved, because it was never sent."""
        reservation.limits.give_back(reservation.tokens)
        use, reservation.use = reservation.use, None
        if self._pacer is None:
            reservation.limits.waiters.wake()
            return
        if use is not None:
            self._pacer.cancel(use, self._clock.now())
        self._wake()

    def on_response(self, reservation: Reservation, headers: Mapping[str, str]) -> None:
        """Record that a response's headers arrived, and the limits in them.

        As long as plenty remains, nothing is learned. This is the usual case, and the cheapest.
        """
        limits = reservation.limits
        if limits.on_response(reservation.tokens) and has_plenty(headers):
            return
        reported = rate_limits(headers)
        if reported is not None:
            limits.learn(reservation.tokens, reported, self._clock.now())

    def on_no_response(self, reservation: Reservation) -> None:
        """Record that a request was sent and will not get a response."""
        reservation.limits.on_response(reservation.tokens)

    def settle(self, reservation: Reservation, usage: Usage) -> None:
        """Replace a request's estimate by the tokens that it really used, if the server counts them."""
        if usage.total_tokens and reservation.use is not None:
            self._settle_tokens(reservation, usage.total_tokens)
        if usage.completion_tokens:
            # The smoothing of TCP's round-trip time, RFC 6298.
            self._guess += (usage.completion_tokens - self._guess) / 8

    def on_refusal(self, reservation: Reservation, error: ChatError, sent_ns: int, refusals: RefusalCount) -> None:
        """Record that a request was refused (429) and used no tokens.

        Args:
            reservation: the request's.
            error: the refusal.
            sent_ns: when the request was sent (`time.perf_counter_ns`).
            refusals: those that its call has seen.
        """
        self._settle_tokens(reservation, 0.0)
        reservation.limits.on_refusal(error, sent_ns)
        refusals.start(reservation.limits, self._clock.now())

    def pause(self, model: str, seconds: float, label: str) -> None:
        """Pause all requests for a model, as the server asked in its response to the call `label`."""
        if self._hold_back(model, seconds):
            _log.info("%s: %s asks for a pause; requests for %s wait %.3g s", label, self._name, model, seconds)
            if self._pacer is not None:
                self._pacer.on_pause(model, seconds)

    def _hold_back(self, model: str, seconds: float) -> bool:
        """Pause all requests for a model; return whether that extends an earlier pause."""
        is_longer = self._limits_of(model).pause(seconds, self._clock.now())
        if is_longer and self._pacer is not None:
            self._wake()
        return is_longer

    def _limits_of(self, model: str) -> ModelLimits:
        limits = self._models.get(model)
        if limits is None:
            if len(self._models) > MOST_MODELS:
                self._forget_models()
            limits = self._models[model] = ModelLimits(
                ModelLimit(self._shared_requests), ModelLimit(self._shared_tokens)
            )
        return limits

    def _forget_models(self) -> None:
        now = self._clock.now()
        for name, limits in list(self._models.items()):
            if not limits.is_in_use(now):
                limits.forget()
                del self._models[name]

    def _is_behind(self, order: Order, limits: ModelLimits, now: float) -> bool:
        """Return whether a request for another model, which waits only for the pacer, goes first."""
        return any(
            first < order and other.blocked_until <= now
            for other in self._models.values()
            if other is not limits and (first := other.waiters.first) is not None
        )

    def _settle_tokens(self, reservation: Reservation, used: float) -> None:
        use, reservation.use = reservation.use, None
        if self._pacer is not None and use is not None:
            self._pacer.settle(use, used, self._clock.now())
            self._wake()

    def _wake(self, excluded: ModelLimits | None = None) -> None:
        """Let the first waiter of each model try again."""
        for limits in self._models.values():
            if limits is not excluded:
                limits.waiters.wake()
