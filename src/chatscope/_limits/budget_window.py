"""BudgetWindow: a user's budget per minute, for requests or for tokens.

Here: the uses of the last minute. Not here: waiting (`rate_limit`), and limits from a server's headers
(`learned_limits`).
"""

from __future__ import annotations

from bisect import insort
from typing import Final

MOST_DEBT: Final = 2.0
"""How many windows one use can fill. A request above the whole budget delays the next ones until the budget has made up
for it. But a server that reports an absurd usage must not stop a client for days."""

_GRAIN: Final = 1e-3
"""Uses this close together, as a fraction of the window, expire together: a window keeps about a thousand records."""

_EPSILON: Final = 1e-6
"""Smaller amounts and waits are rounding errors and count as zero: a wait of 1e-12 s would never end."""


class Use:
    """An amount that counts against a budget until it expires.

    Attributes:
        amount: how much, at most the whole budget.
        began_at: when it was used.
        expires_at: when it stops counting.
    """

    __slots__ = ("amount", "began_at", "expires_at")

    def __init__(self, amount: float, began_at: float, expires_at: float) -> None:
        self.amount = amount
        self.began_at = began_at
        self.expires_at = expires_at


class BudgetWindow:
    """A limit on the amount used within any minute.

    A budget below one per minute becomes one within a longer window. An amount above the whole budget takes all of it,
    until the budget has made up for it: for at most `MOST_DEBT` windows.

    Args:
        per_minute: the budget.
    """

    __slots__ = ("_limit", "_seconds", "_used", "_uses")

    def __init__(self, per_minute: float) -> None:
        self._limit = max(per_minute, 1.0)
        self._seconds = 60.0 * self._limit / per_minute
        self._uses: list[Use] = []  # sorted by `expires_at`
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
        return 0.0  # nothing is in use: `missing` was only a rounding error

    def take(self, amount: float, now: float) -> Use:
        """Use an amount and return the record that counts for it."""
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
        """Replace an amount that was taken by the amount that was really used.

        Args:
            use: the record that `take` returned.
            taken: the amount passed to `take`.
            used: the amount really used.
            now: the current time.
        """
        if use.expires_at <= now + _EPSILON:
            return  # expired already
        counted = min(taken, self._limit)
        if used <= self._limit and taken <= self._limit:
            change = max(used, 0.0) - counted
            if change + use.amount <= self._limit:
                use.amount += change
                self._used += change
                return
        # The record may be shared with other uses. Leave those unchanged.
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
                self._used = 0.0  # drop rounding errors


def _end(use: Use) -> float:
    return use.expires_at
