"""BudgetWindow: a budget per minute that the user set, for requests or for tokens.

Here: what was used within the last minute. Not here: waiting (`rate_limit`), and what a server's headers say
(`learned_limits`).
"""

from __future__ import annotations

from bisect import insort
from typing import Final

MOST_DEBT: Final = 2.0
"""How many windows one use can fill. A request above the whole budget holds back the next ones for as long as the
budget needs to make up for it, but a server that reports an absurd usage must not stop a client for days."""

_GRAIN: Final = 1e-3
"""Uses this close together, as a part of the window, expire together: a window keeps about a thousand records."""

_EPSILON: Final = 1e-6
"""What floating point leaves over, of an amount or of seconds, counts as nothing: a wait of 1e-12 s would not end."""


class Use:
    """An amount that counts against a budget until it expires.

    Attributes:
        amount: how much, at most the whole budget.
        expires_at: when it does not count any more.
    """

    __slots__ = ("amount", "began_at", "expires_at")

    def __init__(self, amount: float, began_at: float, expires_at: float) -> None:
        self.amount = amount
        self.began_at = began_at
        self.expires_at = expires_at


class BudgetWindow:
    """At most so much within any minute.

    A budget below one a minute becomes one within a longer time. An amount above the whole budget takes all of it, for
    as long as the budget needs to make up for it: at most `MOST_DEBT` windows.

    Args:
        per_minute: the budget.
    """

    __slots__ = ("_limit", "_seconds", "_used", "_uses")

    def __init__(self, per_minute: float) -> None:
        self._limit = max(per_minute, 1.0)
        self._seconds = 60.0 * self._limit / per_minute
        self._uses: list[Use] = []  # by their ends
        self._used = 0.0

    def wait_for(self, amount: float, now: float) -> float:
        """Return the seconds until an amount is available."""
        self._expire(now)
        missing = self._used + min(amount, self._limit) - self._limit
        if missing <= _EPSILON:
            return 0.0
        for use in self._uses:
            missing -= use.amount
            if missing <= _EPSILON:
                return use.expires_at - now
        return 0.0  # nothing is used any more; only rounding says otherwise

    def take(self, amount: float, now: float) -> Use:
        """Use an amount and return what counts for it."""
        last = self._uses[-1] if self._uses else None
        if last is not None and amount + last.amount <= self._limit and now - last.began_at < _GRAIN * self._seconds:
            last.expires_at = max(last.expires_at, now + self._seconds)
            last.amount += amount
            self._used += amount
            return last
        use = Use(min(amount, self._limit), now, now + self._duration(amount))
        self._insert(use)
        return use

    def settle(self, use: Use, taken: float, used: float, now: float) -> None:
        """Let an amount that was taken count as what was really used.

        Args:
            use: what `take` returned.
            taken: the amount it was given.
            used: what was really used.
            now: the time.
        """
        if use.expires_at <= now + _EPSILON:
            return  # forgotten already
        counted = min(taken, self._limit)
        if used <= self._limit and taken <= self._limit:
            change = max(used, 0.0) - counted
            if change + use.amount <= self._limit:
                use.amount += change
                self._used += change
                return
        # The record may be shared with other uses: leave those as they are.
        use.amount -= counted
        self._used -= counted
        if use.amount <= _EPSILON:
            self._remove(use)
        self._insert(Use(min(used, self._limit), use.began_at, use.began_at + self._duration(used)))

    def _duration(self, amount: float) -> float:
        return self._seconds * min(max(amount / self._limit, 1.0), MOST_DEBT)

    def _insert(self, use: Use) -> None:
        insort(self._uses, use, key=_end)
        self._used += use.amount

    def _remove(self, use: Use) -> None:
        self._uses = [other for other in self._uses if other is not use]
        self._used -= use.amount

    def _expire(self, now: float) -> None:
        expired = 0
        for use in self._uses:
            if use.expires_at > now + _EPSILON:
                break
            self._used -= use.amount
            expired += 1
        if expired:
            del self._uses[:expired]
            if not self._uses:
                self._used = 0.0  # no rounding errors are kept


def _end(use: Use) -> float:
    return use.expires_at
