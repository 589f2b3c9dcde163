"""LeasedPacer: the pacer of one process among several that share a limit.

Here: using a lease, renewing it, and continuing alone when the limit is lost. Not here: how much each process gets
(`leases`), and how a lease is fetched (the caller's `LimitSource`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from typing import Final, NamedTuple, Protocol

import anyio

from chatscope._limits.leases import Lease, LeaseRequest, SteadyBudget

REJOIN_SECONDS: Final = 1.0
"""Seconds between two attempts to reach a limit that was lost."""

MOST_REPORTS: Final = 100
"""The most pauses that wait to be reported. More are dropped, because the latest leases pause this process anyway."""

_log: Final = logging.getLogger("chatscope.pacing")


class LimitSource(Protocol):
    """Reaches the process that holds a limit. Its methods raise `ConnectionError` if they cannot reach it."""

    @property
    def budgets(self) -> tuple[float | None, float | None]:
        """The whole limit: requests and tokens per minute; `None` means no limit."""
        ...

    async def lease(self, request: LeaseRequest) -> Lease:
        """Return a lease. While the limit is exhausted, wait for about a second, then return an empty lease."""
        ...

    async def pause(self, model: str, seconds: float) -> None:
        """Report that the server asked for a pause of the requests for a model."""
        ...


class LeasedUse(NamedTuple):
    """The amounts that one request has taken."""

    tokens: float
    own: tuple[list[float] | None, list[float] | None] | None
    """The amounts taken from this process's own share, while the limit was lost."""


class LeasedPacer:
    """Paces requests by what the shared limit leases to this process. Pass it as `pacer=`, and run `run` in a task.

    While the limit cannot be reached, this process sends its share: the limit divided by the number of processes in the
    last lease. Until the first lease, requests wait.

    Args:
        source: reaches the limit.
        worker: this process's name, unique among the processes.
    """

    _wake: Callable[[], None]
    _hold_back: Callable[[str, float], object]

    def __init__(self, source: LimitSource, worker: str) -> None:
        self._source = source
        self._worker = worker
        self._requests = self._tokens = 0.0
        self._expires_at = -inf
        self._unused_requests = self._unused_tokens = 0.0
        self._wanted = 0.0
        self._demand = anyio.Event()
        self._reports: list[tuple[str, float]] = []  # model, and until when
        self._reported = anyio.Event()
        self._workers = 0
        self._own: tuple[SteadyBudget | None, SteadyBudget | None] | None = None
        self._is_connected = False

    @property
    def is_alone(self) -> bool:
        """Whether the limit is lost, so that this process uses its own share of it."""
        return self._own is not None

    def connect(self, wake: Callable[[], None], pause: Callable[[str, float], object]) -> None:
        """Connect the client.

        Raises:
            RuntimeError: another client has this pacer.
        """
        if self._is_connected:
            raise RuntimeError("a LeasedPacer belongs to one client: make another one from the same source")
        self._is_connected = True
        self._wake, self._hold_back = wake, pause

    def wait_for(self, tokens: float, now: float) -> float:
        """Return 0 while the lease covers a request; otherwise ask for another lease."""
        if self._own is not None:
            return max((share.wait_for(amount, now) for share, amount in self._shares(tokens)), default=0.0)
        if now < self._expires_at and self._requests >= 1 and self._tokens >= tokens:
            return 0.0
        self._wanted = tokens
        self._demand.set()
        return inf

    def take(self, tokens: float, now: float) -> LeasedUse:
        """Take a request's amounts from the lease."""
        if self._own is not None:
            requests, tokens_budget = self._own
            requests_use = None if requests is None else requests.take(1.0, now)
            return LeasedUse(tokens, (requests_use, None if tokens_budget is None else tokens_budget.take(tokens, now)))
        self._requests -= 1
        self._tokens -= tokens
        return LeasedUse(tokens, None)

    def settle(self, use: LeasedUse, used: float, now: float) -> None:
        """Report the difference with the next lease, because this one may not be able to use it."""
        if use.own is None:
            self._unused_tokens += use.tokens - used
        elif self._own is not None and self._own[1] is not None and use.own[1] is not None:
            self._own[1].give_back(use.own[1], use.tokens - used, now)

    def cancel(self, use: LeasedUse, now: float) -> None:
        """Return the amounts of a request that was never sent."""
        if use.own is None:
            is_valid = now < self._expires_at
            self._requests += is_valid
            self._unused_requests += not is_valid
            self._tokens += use.tokens if is_valid else 0.0
            self._unused_tokens += 0.0 if is_valid else use.tokens
        elif self._own is not None:
            for share, record, amount in zip(self._own, use.own, (1.0, use.tokens), strict=True):
                if share is not None and record is not None:
                    share.give_back(record, amount, now)

    def on_pause(self, model: str, seconds: float) -> None:
        """Report a pause, so that the other processes pause, too."""
        if len(self._reports) < MOST_REPORTS:
            self._reports.append((model, anyio.current_time() + seconds))
            self._reported.set()

    async def run(self) -> None:
        """Renew the lease while requests wait, and report pauses. Runs until cancelled, and leaves nothing open."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._report_pauses)
            while True:
                await self._demand.wait()
                await self._renew()

    async def _renew(self) -> None:
        """Fetch a lease. If cancelled, it counts as used, unless another one is fetched within a minute."""
        request, asked_at = self._lease_request(), anyio.current_time()
        try:
            lease = await self._source.lease(request)
        except ConnectionError as error:
            self._go_alone(error)
            self._wake()
            await anyio.sleep(REJOIN_SECONDS)
            return  # and try again
        if self._own is not None:
            self._own = None
            _log.info("the shared limit is back")
        self._demand = anyio.Event()  # requests that arrived meanwhile ask again if this lease does not cover them
        self._requests, self._tokens, self._workers = lease.requests, lease.tokens, lease.workers
        self._expires_at = asked_at + lease.held + lease.seconds  # the grant was not earlier, whatever the clocks say
        for model, seconds in lease.pauses.items():
            self._hold_back(model, seconds)
        self._wake()

    def _lease_request(self) -> LeaseRequest:
        """Return a request for a new lease, which returns the rest of this one. From now on nothing is leased."""
        requests = 0.0 if self._requests == inf else self._requests + self._unused_requests
        tokens = 0.0 if self._tokens == inf else self._tokens + self._unused_tokens
        self._requests = self._tokens = self._unused_requests = self._unused_tokens = 0.0
        self._expires_at = -inf
        return LeaseRequest(self._worker, self._wanted, requests, tokens)

    def _go_alone(self, error: ConnectionError) -> None:
        if self._own is not None or not self._workers:
            return
        _log.warning("the shared limit is lost; this process keeps to 1/%d of it: %s", self._workers, error)
        now = anyio.current_time()
        requests, tokens = (None if budget is None else budget / self._workers for budget in self._source.budgets)
        self._own = (
            None if requests is None else SteadyBudget(requests, now, level=0.0),  # others may have just used it
            None if tokens is None else SteadyBudget(tokens, now, level=0.0),
        )

    def _shares(self, tokens: float) -> list[tuple[SteadyBudget, float]]:
        requests, tokens_share = self._own or (None, None)
        shares = ((requests, 1.0), (tokens_share, tokens))
        return [(share, amount) for share, amount in shares if share is not None]

    async def _report_pauses(self) -> None:
        while True:
            await self._reported.wait()
            self._reported = anyio.Event()
            while self._reports:
                model, until = self._reports[0]
                try:
                    if (seconds := until - anyio.current_time()) > 0:
                        await self._source.pause(model, seconds)
                except ConnectionError:
                    await anyio.sleep(REJOIN_SECONDS)
                else:
                    del self._reports[0]
