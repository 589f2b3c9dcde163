"""ModelLimits: the rate limits of one model, learned from a server's headers, and the pauses that the server requests.

Here: what is known, and for how long. Not here: the user's budgets (`budget_window`), and waiting (`rate_limit`).

A server limits each model separately, or several models together. So the headers of one model's responses limit only
that model. Models share a limit as long as the numbers show it: they have the same limit, and the requests of each
reduce what remains. Everything expires, because headers can be wrong, and later responses may have none.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import Final

from chatscope._limits.fifo import WaiterQueue
from chatscope.errors import ChatError
from chatscope.protocol.headers import RateLimitHeaders

LONGEST_LEARNED_WAIT: Final = 120.0
"""How long a request waits because of headers, in seconds. Then it is sent anyway: headers can be wrong (Azure sends -1
and 0), but a refusal is reliable."""

DEFAULT_RESET: Final = 60.0
"""Seconds until a limit is fully available again, unless a header says otherwise: limits are per minute."""

_EPSILON: Final = 1e-6
"""Smaller amounts and waits are rounding errors and count as zero: a wait of 1e-12 s would never end."""

_SLACK: Final = 0.5
"""How far the remaining amount may differ from the expected one for it to be the same limit, as a fraction of the
request."""


class LearnedLimit:
    """One limit of a server, as a bucket that refills. Models that share it hold the same object.

    Args:
        limit: its capacity.
        now: the current time.

    Attributes:
        limit: as given.
        in_flight: the amount sent that no received header counts yet.
        models: how many models share it.
    """

    __slots__ = ("_expires_at", "_level", "_per_second", "_reported_at", "_updated_at", "in_flight", "limit", "models")

    def __init__(self, limit: int, now: float) -> None:
        self.limit = limit
        self.in_flight = 0.0
        self.models = 0
        self._level = float(limit)
        self._per_second = 0.0
        self._updated_at = self._reported_at = now
        self._expires_at = now + DEFAULT_RESET

    def has_expired(self, now: float) -> bool:
        """Return whether it has expired."""
        return now >= self._expires_at - _EPSILON

    def wait_for(self, amount: float, now: float) -> float:
        """Return the seconds until an amount is available. An amount above the limit counts as the whole limit."""
        self._refill(now)
        missing = min(amount, self.limit) - self._level
        if missing <= _EPSILON:
            return 0.0
        wait = missing / self._per_second if self._per_second else LONGEST_LEARNED_WAIT
        return min(wait, max(self._expires_at - now, 0.0))

    def take(self, amount: float) -> None:
        """Use an amount."""
        self.in_flight += amount
        self._level -= min(amount, self.limit)

    def give_back(self, amount: float) -> None:
        """Undo `take` for a request that was never sent."""
        self.in_flight -= amount
        self._level = min(self.limit, self._level + min(amount, self.limit))

    def report(self, remaining: int, reset: float | None, now: float) -> None:
        """Record what a response reports: `remaining` is left, and the whole limit is back after `reset` seconds.

        `remaining` may or may not count the requests in flight: the true value is between the two.
        """
        self._refill(now)
        is_first = self._per_second == 0.0
        seconds = reset or DEFAULT_RESET
        self._per_second = (self.limit - remaining or self.limit) / seconds
        least = remaining - self.in_flight
        self._level = least if is_first else min(max(self._level, least), remaining)
        self._reported_at = now
        self._expires_at = now + seconds

    def agrees(self, remaining: int, amount: float, now: float, *, uncounted: float | None = None) -> bool:
        """Return whether a response can be about this limit.

        Args:
            remaining: the remaining amount in its headers.
            amount: what its request used.
            now: the current time.
            uncounted: the amount in flight of a model that does not share this limit yet. `take` was not called for
                that amount, nor for the request.
        """
        refilled = self._per_second * (now - self._reported_at)
        self._refill(now)
        slack = _SLACK * max(amount, 1.0)
        most = self._level + self.in_flight - (0.0 if uncounted is None else amount)
        least = most - self.in_flight - (uncounted or 0.0) - refilled
        return least - slack <= remaining <= most + slack

    def _refill(self, now: float) -> None:
        self._level = min(self.limit, self._level + self._per_second * (now - self._updated_at))
        self._updated_at = now


class ModelLimit:
    """The limit of one resource of one model: requests or tokens.

    Args:
        shared: the limits of this resource, by their size; shared by all models of a server.

    Attributes:
        in_flight: the amount sent that no received header counts yet.
    """

    __slots__ = ("_learned", "_shared", "in_flight")

    def __init__(self, shared: dict[int, LearnedLimit]) -> None:
        self._shared = shared
        self._learned: LearnedLimit | None = None
        self.in_flight = 0.0

    def wait_for(self, amount: float, now: float) -> float:
        """Return the seconds until an amount may be used."""
        if self._learned is None:
            return 0.0
        wait = 0.0 if self._learned.has_expired(now) else self._learned.wait_for(amount, now)
        if wait > LONGEST_LEARNED_WAIT or self._learned.has_expired(now):
            self.forget()
            return 0.0
        return wait

    def take(self, amount: float) -> None:
        """Use an amount."""
        self.in_flight += amount
        if self._learned is not None:
            self._learned.take(amount)

    def give_back(self, amount: float) -> None:
        """Undo `take` for a request that was never sent."""
        self.in_flight -= amount
        if self._learned is not None:
            self._learned.give_back(amount)

    def on_response(self, amount: float) -> None:
        """Record that the server has counted an amount, or never will."""
        self.in_flight -= amount
        if self._learned is not None:
            self._learned.in_flight -= amount

    def learn(self, amount: float, limit: int | None, remaining: int | None, reset: float | None, now: float) -> None:
        """Record what the headers of a response report. `amount` is what its request used, no longer in flight."""
        if limit is None or remaining is None or remaining > limit:
            return
        learned = self._learned
        if learned is not None and not self._still_holds(learned, limit, remaining, amount, now):
            self.forget()
            learned = None
        if learned is None:
            learned = self._join(limit, remaining, amount, now)
        learned.report(remaining, reset, now)

    def _still_holds(self, learned: LearnedLimit, limit: int, remaining: int, amount: float, now: float) -> bool:
        if learned.limit != limit or learned.has_expired(now):
            return False
        return learned.models == 1 or learned.agrees(remaining, amount, now)

    def _join(self, limit: int, remaining: int, amount: float, now: float) -> LearnedLimit:
        """Share another model's limit if it is the same one; otherwise create one."""
        learned = self._shared.get(limit)
        if (
            learned is None
            or learned.has_expired(now)
            or not learned.agrees(remaining, amount, now, uncounted=self.in_flight)
        ):
            learned = self._shared[limit] = LearnedLimit(limit, now)
        learned.models += 1
        learned.in_flight += self.in_flight
        self._learned = learned
        return learned

    def forget(self) -> None:
        """Forget what was learned."""
        learned, self._learned = self._learned, None
        if learned is not None:
            learned.models -= 1
            learned.in_flight -= self.in_flight
            if learned.models == 0 and self._shared.get(learned.limit) is learned:
                del self._shared[learned.limit]


class ModelLimits:
    """The limits of one model, and the requests that wait for them.

    Args:
        requests, tokens: its limits.

    Attributes:
        waiters: the waiting requests for this model. They wait for its own limits or for a budget.
        sent: how many requests were sent and have no response yet.
        blocked_until: when this model's own limits allow the first waiter.
        refusals: how often requests were refused (429). Requests that were under way together count once.
        forgiven: how many of these were followed by a success.
        last_refusal: the error of the last one.
    """

    __slots__ = (
        "_pause_until",
        "_refused_ns",
        "blocked_until",
        "forgiven",
        "last_refusal",
        "refusals",
        "requests",
        "sent",
        "tokens",
        "waiters",
    )

    def __init__(self, requests: ModelLimit, tokens: ModelLimit) -> None:
        self.requests = requests
        self.tokens = tokens
        self.waiters = WaiterQueue()
        self.sent = 0
        self.blocked_until = 0.0
        self._pause_until: float | None = None
        self._refused_ns = 0
        self.refusals = 0
        self.forgiven = 0
        self.last_refusal: ChatError | None = None

    @property
    def is_free(self) -> bool:
        """Whether nothing limits this model."""
        return self._pause_until is None and self.requests._learned is None and self.tokens._learned is None

    def is_in_use(self, now: float) -> bool:
        """Return whether a request waits or is in flight, or would have to wait for a pause."""
        return bool(self.sent or self.waiters or (self._pause_until is not None and self._pause_until > now))

    def forget(self) -> None:
        """Forget what was learned."""
        self.requests.forget()
        self.tokens.forget()

    def wait_for(self, tokens: float, now: float) -> float:
        """Return the seconds until a request for this many tokens may be sent."""
        wait = max(self.requests.wait_for(1.0, now), self.tokens.wait_for(tokens, now))
        if self._pause_until is not None:
            if self._pause_until > now:
                wait = max(wait, self._pause_until - now)
            else:
                self._pause_until = None
        self.blocked_until = now + wait
        return wait

    def pause(self, seconds: float, now: float) -> bool:
        """Pause all requests for this many seconds; return whether that extends an earlier pause."""
        until = now + seconds
        if self._pause_until is not None and until <= self._pause_until:
            return False
        self._pause_until = self.blocked_until = until
        self.waiters.wake()
        return True

    def on_refusal(self, error: ChatError, sent_ns: int) -> None:
        """Record that a request that was sent at `sent_ns` (`time.perf_counter_ns`) was refused."""
        self.last_refusal = error
        if sent_ns > self._refused_ns:
            self._refused_ns = perf_counter_ns()
            self.refusals += 1

    def on_success(self) -> None:
        """Record that a request succeeded."""
        self.forgiven = self.refusals
        self.last_refusal = None

    def try_take(self, tokens: float) -> bool:
        """Count one request as sent, like `take`, if nothing limits this model and none waits; return whether it was.

        This is the usual case, and costs a third of asking and taking.
        """
        requests, own_tokens = self.requests, self.tokens
        if self._pause_until is not None or requests._learned or own_tokens._learned or self.waiters.waiting:
            return False
        self.sent += 1
        requests.in_flight += 1.0
        own_tokens.in_flight += tokens
        return True

    def take(self, tokens: float) -> None:
        """Count one request as sent."""
        self.sent += 1
        self.requests.take(1.0)
        self.tokens.take(tokens)

    def give_back(self, tokens: float) -> None:
        """Undo `take` for a request that was never sent."""
        self.sent -= 1
        self.requests.give_back(1.0)
        self.tokens.give_back(tokens)

    def on_response(self, tokens: float) -> bool:
        """Record that a request has a response, or will not get one; return whether nothing limits this model."""
        self.sent -= 1
        if self.is_free:
            self.requests.in_flight -= 1.0
            self.tokens.in_flight -= tokens
            return True
        self.requests.on_response(1.0)
        self.tokens.on_response(tokens)
        return False

    def learn(self, tokens: float, limits: RateLimitHeaders, now: float) -> None:
        """Record what the headers of a response report. `on_response` was called for its request."""
        self.requests.learn(1.0, limits.limit_requests, limits.remaining_requests, limits.reset_requests, now)
        self.tokens.learn(tokens, limits.limit_tokens, limits.remaining_tokens, limits.reset_tokens, now)
        self.waiters.wake()
