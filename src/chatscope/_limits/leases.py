"""LimitServer: one limit for several processes, granted in leases of about a second.

Here: what each process may send, and in which order. Not here: how a process uses its lease (`leased_pacer`), and how
they reach each other (`chatscope.ray`).

Clocks of different processes are never compared: leases and pauses have durations.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf
from typing import Final

import anyio

from chatscope._validation import check_rate

LEASE_SECONDS: Final = 1.0
"""The length of a lease in seconds, and of the share of a budget that it covers. No pause reaches a process later."""

ACTIVE_SECONDS: Final = 10.0
"""Seconds without a request for a lease after which a process has no share of the next leases."""

MOST_HELD_SECONDS: Final = 1.0
"""Seconds that a request for a lease waits while the limit is exhausted. After that, the process hears of pauses."""

MOST_LEASES: Final = 1000
"""How many last leases are remembered. Beyond that, those of processes that have been silent for long are forgotten."""

MINUTE: Final = 60.0

MOST_DEBT: Final = 2.0
"""How many minutes of a budget one large request can fill, as in `budget_window`."""

_EPSILON: Final = 1e-6

_RECHECK_SECONDS: Final = 0.1
"""Seconds after which a waiting process notices that another one has returned something."""


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """A process's request for a lease.

    Attributes:
        worker: the process's name.
        tokens: the estimated tokens of its next request.
        unused_requests, unused_tokens: the unused rest of its last lease. Negative tokens mean that its requests used
            more than was estimated.
    """

    worker: str
    tokens: float = 0.0
    unused_requests: float = 0.0
    unused_tokens: float = 0.0


@dataclass(frozen=True, slots=True)
class Lease:
    """The permission of a process to send.

    Attributes:
        requests, tokens: how much; `inf` without a limit, and no requests if none could be granted yet.
        seconds: how long the lease is valid, from when it was granted.
        held: the seconds from the arrival of its request until it was granted.
        workers: how many processes share the limit.
        pauses: by model, the seconds for which the server asked for a pause.
    """

    requests: float
    tokens: float
    seconds: float
    held: float
    workers: int
    pauses: dict[str, float]


class SteadyBudget:
    """A budget per minute that is also used evenly: at most two seconds' worth at once, but at least one request.

    So no minute exceeds it by more than that, even if the earlier usage is unknown, as after a restart.

    Args:
        per_minute: the budget.
        now: the current time.
        level: the amount that may be used at once; by default a second's worth.
    """

    __slots__ = ("_at_once", "_level", "_limit", "_per_second", "_updated_at", "_used", "_uses")

    def __init__(self, per_minute: float, now: float, *, level: float | None = None) -> None:
        self._limit = max(per_minute, 1.0)
        self._per_second = per_minute / MINUTE
        self._at_once = max(self._per_second * LEASE_SECONDS, 1.0)
        self._level = self._at_once if level is None else level
        self._updated_at = now
        self._uses: deque[list[float]] = deque()  # of [expires at, amount]
        self._used = 0.0

    def share(self, needed: float, workers: int) -> float:
        """Return the amount that one of a number of processes gets at once: a whole number, unless it needs more."""
        return max(needed, float(int(self._at_once / workers)))

    def wait_for(self, amount: float, now: float) -> float:
        """Return the seconds until an amount may be used. An amount above the whole budget counts as the budget."""
        self._advance(now)
        missing = min(amount, self._at_once) - self._level
        wait = missing / self._per_second if missing > _EPSILON else 0.0
        over = self._used + min(amount, self._limit) - self._limit
        if over > _EPSILON:
            for expires_at, used in self._uses:
                over -= used
                if over <= _EPSILON:
                    return max(wait, expires_at - now)
        return wait

    def take(self, amount: float, now: float) -> list[float]:
        """Use an amount until the end of a lease that starts now, and return the record of it."""
        self._level = max(self._level - amount, -MOST_DEBT * self._limit)
        use = [now + LEASE_SECONDS + MINUTE, min(amount, self._limit)]
        self._uses.append(use)
        self._used += use[1]
        return use

    def give_back(self, use: list[float], amount: float, now: float) -> None:
        """Give back a part of what was taken. A negative part means that more was used. After a minute, do nothing."""
        self._advance(now)
        if use[0] <= now:
            return
        amount = max(min(amount, use[1]), use[1] - self._limit)
        use[1] -= amount
        self._used -= amount
        # Up to twice what refills, because two leases may be in use when one is returned.
        self._level = max(min(self._level + amount, 2 * self._at_once), -MOST_DEBT * self._limit)

    def _advance(self, now: float) -> None:
        while self._uses and self._uses[0][0] <= now:
            self._used -= self._uses.popleft()[1]
        if not self._uses:
            self._used = 0.0
        if self._level < self._at_once:
            self._level = min(self._at_once, self._level + (now - self._updated_at) * self._per_second)
        self._updated_at = now


class LimitLedger:
    """Grants the leases of one limit. All times are on the clock of the process that holds it.

    Args:
        requests_per_minute, tokens_per_minute: the limit for all processes together; `None` means no limit.
        now: the current time.
    """

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None, now: float) -> None:
        self._requests = None if requests_per_minute is None else SteadyBudget(requests_per_minute, now)
        self._tokens = None if tokens_per_minute is None else SteadyBudget(tokens_per_minute, now)
        self._workers: dict[str, float] = {}
        self._leases: dict[str, tuple[list[float] | None, list[float] | None]] = {}
        self._pauses: dict[str, float] = {}

    def pause(self, model: str, seconds: float, now: float) -> None:
        """Record that the server asked one process for a pause of its requests for a model."""
        self._pauses[model] = max(self._pauses.get(model, 0.0), now + seconds)

    def take_back(self, request: LeaseRequest, now: float) -> None:
        """Take back the part of its leases that a process has not used. It reduces the last one."""
        self._workers[request.worker] = now
        requests_use, tokens_use = self._leases.get(request.worker, (None, None))
        if self._requests is not None and requests_use is not None:
            self._requests.give_back(requests_use, request.unused_requests, now)
        if self._tokens is not None and tokens_use is not None:
            self._tokens.give_back(tokens_use, request.unused_tokens, now)

    def wait_for(self, request: LeaseRequest, now: float) -> float:
        """Return the seconds until a process can be granted its share of a second, and at least its next request."""
        requests, tokens = self._shares(request, now)
        wait = 0.0 if self._requests is None else self._requests.wait_for(requests, now)
        return wait if self._tokens is None else max(wait, self._tokens.wait_for(tokens, now))

    def grant(self, request: LeaseRequest, held: float, now: float) -> Lease:
        """Grant a process the amounts for which `wait_for` returned 0."""
        requests, tokens = self._shares(request, now)
        self._leases[request.worker] = (
            None if self._requests is None else self._requests.take(requests, now),
            None if self._tokens is None else self._tokens.take(tokens, now),
        )
        return Lease(requests, tokens, LEASE_SECONDS, held, self._count_workers(now), self._standing_pauses(now))

    def refuse(self, held: float, now: float) -> Lease:
        """Return an empty lease, so that the process asks again. It still hears of pauses."""
        return Lease(0.0, 0.0, 0.0, held, self._count_workers(now), self._standing_pauses(now))

    def _shares(self, request: LeaseRequest, now: float) -> tuple[float, float]:
        workers = self._count_workers(now)
        requests = inf if self._requests is None else self._requests.share(1.0, workers)
        return requests, inf if self._tokens is None else self._tokens.share(request.tokens, workers)

    def _count_workers(self, now: float) -> int:
        self._workers = {name: at for name, at in self._workers.items() if at > now - ACTIVE_SECONDS}
        if len(self._leases) > MOST_LEASES:  # workers come and go, and each has a new name
            self._leases = {name: lease for name, lease in self._leases.items() if name in self._workers}
        return max(len(self._workers), 1)

    def _standing_pauses(self, now: float) -> dict[str, float]:
        self._pauses = {model: until for model, until in self._pauses.items() if until > now}
        return {model: until - now for model, until in self._pauses.items()}


class LimitServer:
    """Holds a limit that several processes share. It runs in one of them, and serves all of them.

    Args:
        requests_per_minute, tokens_per_minute: the limit for all of them together; `None` means no limit.

    Raises:
        ValueError: a limit is not a number above 0.
    """

    def __init__(self, requests_per_minute: float | None = None, tokens_per_minute: float | None = None) -> None:
        check_rate(requests_per_minute, "requests_per_minute")
        check_rate(tokens_per_minute, "tokens_per_minute")
        self._budgets = (requests_per_minute, tokens_per_minute)
        self._ledger: LimitLedger | None = None
        self._lock = anyio.Lock()

    @property
    def budgets(self) -> tuple[float | None, float | None]:
        """The whole limit: requests and tokens per minute."""
        return self._budgets

    async def lease(self, request: LeaseRequest) -> Lease:
        """Return a lease, first come, first served. If the limit is exhausted for a second, return an empty lease.

        If cancelled, nothing is leased, and what the process returned is available to others.
        """
        began, ledger = anyio.current_time(), self._open_ledger()
        ledger.take_back(request, began)
        with anyio.move_on_after(MOST_HELD_SECONDS):
            async with self._lock:
                # There is no event to wait for: the budget becomes available by time alone.
                while (wait := ledger.wait_for(request, now := anyio.current_time())) > 0:  # noqa: ASYNC110
                    await anyio.sleep(min(wait, _RECHECK_SECONDS))
                return ledger.grant(request, now - began, now)
        now = anyio.current_time()
        return ledger.refuse(now - began, now)

    async def pause(self, model: str, seconds: float) -> None:
        """Pause the requests of all processes for a model, because the server asked one of them to. Never waits."""
        self._open_ledger().pause(model, seconds, anyio.current_time())

    def _open_ledger(self) -> LimitLedger:
        if self._ledger is None:
            self._ledger = LimitLedger(*self._budgets, anyio.current_time())
        return self._ledger
