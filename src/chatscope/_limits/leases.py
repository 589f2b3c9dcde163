"""LimitServer: one limit for several processes, handed out in leases of about a second.

Here: what each process may send, and in which order. Not here: how a process uses its lease (`leased_pacer`), and how
both reach each other (`chatscope.ray`).

Processes compare no clocks: a lease says how long it holds, and a pause how long it still lasts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf
from typing import Final

import anyio

from chatscope._validation import check_rate

LEASE_SECONDS: Final = 1.0
"""Seconds that a lease holds, and whose share of a budget it covers: a process hears of a pause that late at most."""

ACTIVE_SECONDS: Final = 10.0
"""A process that has asked for no lease for so long has no share of the next ones."""

MOST_HELD_SECONDS: Final = 1.0
"""Seconds that a request for a lease is held while the limit is used up. Then the process hears of pauses."""

MOST_LEASES: Final = 1000
"""How many last leases are remembered. Beyond that, those of processes that were silent for long are forgotten."""

MINUTE: Final = 60.0

MOST_DEBT: Final = 2.0
"""How many minutes one large request can use up, as in `budget_window`."""

_EPSILON: Final = 1e-6

_RECHECK_SECONDS: Final = 0.1
"""How soon a waiting process sees that another one has given something back."""


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a process asks for.

    Attributes:
        worker: names the process.
        tokens: the estimated tokens of its next request.
        unused_requests, unused_tokens: what is left of its last lease. Less than 0 tokens: its requests used more than
            was estimated.
    """

    worker: str
    tokens: float = 0.0
    unused_requests: float = 0.0
    unused_tokens: float = 0.0


@dataclass(frozen=True, slots=True)
class Lease:
    """What a process may send.

    Attributes:
        requests, tokens: how much; `inf` without a limit, and no requests if none could be granted yet.
        seconds: how long it holds, from the moment when it was granted.
        held: the seconds between the arrival of its request and that moment.
        workers: how many processes share the limit.
        pauses: by model, the seconds for which the server asked to hold back its requests.
    """

    requests: float
    tokens: float
    seconds: float
    held: float
    workers: int
    pauses: dict[str, float]


class SteadyBudget:
    """A budget per minute that is also spent evenly: at most two seconds' worth at once, and one request in any case.

    So no minute exceeds it by more than that, even if what was used before is not known, as after a restart.

    Args:
        per_minute: the budget.
        now: the current time.
        level: what may be used at once; default a second's worth.
        smallest: the smallest amount that is used.
    """

    __slots__ = ("_at_once", "_level", "_limit", "_per_second", "_updated_at", "_used", "_uses")

    def __init__(self, per_minute: float, now: float, *, level: float | None = None, smallest: float = 1.0) -> None:
        self._limit = max(per_minute, smallest)
        self._per_second = per_minute / MINUTE
        self._at_once = max(self._per_second * LEASE_SECONDS, smallest)
        self._level = self._at_once if level is None else level
        self._updated_at = now
        self._uses: deque[list[float]] = deque()  # of [expires at, amount]
        self._used = 0.0

    def share(self, needed: float, workers: int) -> float:
        """Return how much one of so many processes gets at once: a whole number, unless it needs more."""
        return max(needed, float(int(self._at_once / workers)))

    def wait_for(self, amount: float, now: float) -> float:
        """Return the seconds until an amount may be used. A larger amount than the whole budget counts as that."""
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
        """Return a part of what was taken; less than 0: more was used. After a minute, nothing changes."""
        self._advance(now)
        if use[0] <= now:
            return
        amount = max(min(amount, use[1]), use[1] - self._limit)
        use[1] -= amount
        self._used -= amount
        # Up to twice what refills: two leases may be out at the moment when one comes back.
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
    """Grants the leases of one limit. All times are those of the process that holds it.

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
        """Record that the server asked one process to hold back its requests for a model."""
        self._pauses[model] = max(self._pauses.get(model, 0.0), now + seconds)

    def take_back(self, request: LeaseRequest, now: float) -> None:
        """Take back what a process has not used of its leases. It counts against the last one."""
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
        """Grant a process what `wait_for` waited for."""
        requests, tokens = self._shares(request, now)
        self._leases[request.worker] = (
            None if self._requests is None else self._requests.take(requests, now),
            None if self._tokens is None else self._tokens.take(tokens, now),
        )
        return Lease(requests, tokens, LEASE_SECONDS, held, self._count_workers(now), self._standing_pauses(now))

    def refuse(self, held: float, now: float) -> Lease:
        """Return a lease of nothing: the process asks again. It still hears of pauses."""
        return Lease(0.0, 0.0, 0.0, held, self._count_workers(now), self._standing_pauses(now))

    def _shares(self, request: LeaseRequest, now: float) -> tuple[float, float]:
        workers = self._count_workers(now)
        requests = inf if self._requests is None else self._requests.share(1.0, workers)
        return requests, inf if self._tokens is None else self._tokens.share(request.tokens, workers)

    def _count_workers(self, now: float) -> int:
        self._workers = {name: at for name, at in self._workers.items() if at > now - ACTIVE_SECONDS}
        if len(self._leases) > MOST_LEASES:  # workers come and go, and each has another name
            self._leases = {name: lease for name, lease in self._leases.items() if name in self._workers}
        return max(len(self._workers), 1)

    def _standing_pauses(self, now: float) -> dict[str, float]:
        self._pauses = {model: until for model, until in self._pauses.items() if until > now}
        return {model: until - now for model, until in self._pauses.items()}


class LimitServer:
    """Keeps a limit that several processes share. It runs in one of them, and serves the requests of all.

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
        """Return a lease, first come, first served. If the limit is used up for a second, return one of nothing.

        If cancelled, nothing is leased, and what the process gave back is there for others.
        """
        began, ledger = anyio.current_time(), self._open_ledger()
        ledger.take_back(request, began)
        with anyio.move_on_after(MOST_HELD_SECONDS):
            async with self._lock:
                # No event to wait for: time itself makes the budget available.
                while (wait := ledger.wait_for(request, now := anyio.current_time())) > 0:  # noqa: ASYNC110
                    await anyio.sleep(min(wait, _RECHECK_SECONDS))
                return ledger.grant(request, now - began, now)
        now = anyio.current_time()
        return ledger.refuse(now - began, now)

    async def pause(self, model: str, seconds: float) -> None:
        """Hold back the requests of all processes for a model: the server asked one of them to. Never waits."""
        self._open_ledger().pause(model, seconds, anyio.current_time())

    def _open_ledger(self) -> LimitLedger:
        if self._ledger is None:
            self._ledger = LimitLedger(*self._budgets, anyio.current_time())
        return self._ledger
