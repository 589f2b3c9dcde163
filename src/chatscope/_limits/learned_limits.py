"""LearnedLimit and ModelLimit: one limit of a server, learned from the headers of its responses, for one model or many.

Here: what is known of a limit, for how long, and which models share it. Not here: all that concerns one model, pauses
included (`model_limits`), and waiting (`rate_limit`).

A server limits each model separately, or several models together. So the headers of one model's responses limit only
that model. Models share a limit as long as the numbers show it: they have the same limit, and the requests of each
reduce what remains. Everything expires, because headers can be wrong, and later responses may have none.
"""

from __future__ import annotations

from typing import Final

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
        learned: what is known; `None` if nothing is.
    """

    __slots__ = ("_shared", "in_flight", "learned")

    def __init__(self, shared: dict[int, LearnedLimit]) -> None:
        self._shared = shared
        self.learned: LearnedLimit | None = None
        self.in_flight = 0.0

    def wait_for(self, amount: float, now: float) -> float:
        """Return the seconds until an amount may be used."""
        if self.learned is None:
            return 0.0
        wait = 0.0 if self.learned.has_expired(now) else self.learned.wait_for(amount, now)
        if wait > LONGEST_LEARNED_WAIT or self.learned.has_expired(now):
            self.forget()
            return 0.0
        return wait

    def take(self, amount: float) -> None:
        """Use an amount."""
        self.in_flight += amount
        if self.learned is not None:
            self.learned.take(amount)

    def give_back(self, amount: float) -> None:
        """Undo `take` for a request that was never sent."""
        self.in_flight -= amount
        if self.learned is not None:
            self.learned.give_back(amount)

    def on_response(self, amount: float) -> None:
        """Record that the server has counted an amount, or never will."""
        self.in_flight -= amount
        if self.learned is not None:
            self.learned.in_flight -= amount

    def learn(self, amount: float, limit: int | None, remaining: int | None, reset: float | None, now: float) -> None:
        """Record what the headers of a response report. `amount` is what its request used, no longer in flight."""
        if limit is None or remaining is None or remaining > limit:
            return
        learned = self.learned
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
        self.learned = learned
        return learned

    def forget(self) -> None:
        """Forget what was learned."""
        learned, self.learned = self.learned, None
        if learned is not None:
            learned.models -= 1
            learned.in_flight -= self.in_flight
            if learned.models == 0 and self._shared.get(learned.limit) is learned:
                del self._shared[learned.limit]
