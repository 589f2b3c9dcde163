"""One limit for several processes, in virtual time: what each may send, pauses for all, and going on without it."""

from __future__ import annotations

from typing import Any, Self

import anyio
import pytest

from chatscope._limits.leased_pacer import REJOIN_SECONDS, LeasedPacer
from chatscope._limits.leases import LEASE_SECONDS, Lease, LeaseRequest, LimitServer
from chatscope._limits.rate_limit import RateLimiter
from chatscope.protocol.usage import Usage


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return virtual_time


class Source:
    """Reaches a server that can be lost, with the delay of a network."""

    def __init__(self, server: LimitServer, delay: float = 0.002) -> None:
        self.server = server
        self.delay = delay
        self.is_lost = False
        self.leases = 0

    @property
    def budgets(self) -> tuple[float | None, float | None]:
        return self.server.budgets

    async def lease(self, request: LeaseRequest) -> Lease:
        await anyio.sleep(self.delay)
        if self.is_lost:
            raise ConnectionError("the actor died")
        self.leases += 1
        lease = await self.server.lease(request)
        await anyio.sleep(self.delay)
        return lease

    async def pause(self, model: str, seconds: float) -> None:
        await anyio.sleep(self.delay)
        if self.is_lost:
            raise ConnectionError("the actor died")
        await self.server.pause(model, seconds)


class Workers:
    """Clients that share a limit and send as much as it allows, until their block is left.

    Attributes:
        sent: when each request was sent, and by which worker.
    """

    def __init__(self, source: Source, count: int, *, tokens: float = 1.0, used: int | None = None) -> None:
        self.pacers = [LeasedPacer(source, f"worker {number}") for number in range(count)]
        self.limiters = [RateLimiter("server", pacer=pacer) for pacer in self.pacers]
        self.sent: list[tuple[float, int]] = []
        self._tokens = tokens
        self._used = used

    async def __aenter__(self) -> Self:
        self.group = anyio.create_task_group()
        await self.group.__aenter__()
        for number, pacer in enumerate(self.pacers):
            self.group.start_soon(pacer.run)
            for _ in range(20):
                self.group.start_soon(self._send, number)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.group.cancel_scope.cancel()
        await self.group.__aexit__(None, None, None)

    async def _send(self, number: int) -> None:
        limiter = self.limiters[number]
        while True:
            reservation = await limiter.acquire("m", self._tokens)
            self.sent.append((anyio.current_time(), number))
            await anyio.sleep(0.05)
            limiter.on_no_response(reservation)
            if self._used is not None:
                limiter.settle(reservation, Usage(total_tokens=self._used))

    def busiest_minute(self) -> int:
        """Return the largest number of requests in any minute."""
        times = [at for at, _ in self.sent]
        first = most = 0
        for last, at in enumerate(times):
            while times[first] <= at - 60:
                first += 1
            most = max(most, last - first + 1)
        return most


async def test_all_workers_together_keep_to_the_limit_and_share_it() -> None:
    source = Source(LimitServer(600))
    async with Workers(source, 4) as workers:
        await anyio.sleep(180)
    assert 580 <= workers.busiest_minute() <= 620
    shares = [sum(number == worker for _, number in workers.sent) for worker in range(4)]
    assert min(shares) >= 0.8 * max(shares)
    assert len(workers.sent) >= 0.96 * 1800  # little is lost by leasing
    assert source.leases <= 6 * 180  # a lease is about a second's share, not a request's


async def test_an_idle_worker_has_no_share() -> None:
    source = Source(LimitServer(600))
    async with Workers(source, 1) as busy:
        idle = RateLimiter("server", pacer=(pacer := LeasedPacer(source, "idle")))
        busy.group.start_soon(pacer.run)
        idle.on_no_response(await idle.acquire("m", 1))
        await anyio.sleep(60)
        sent = len(busy.sent)
        await anyio.sleep(60)
    assert len(busy.sent) - sent >= 0.96 * 600


@pytest.mark.parametrize(("tokens", "used", "sent"), [(100, None, 60), (100, 50, 120), (100, 300, 20), (4000, 4000, 1)])
async def test_tokens_are_estimated_settled_and_bounded(tokens: float, used: int | None, sent: int) -> None:
    """A minute has 6,000 tokens: what a request did not use is there for others, and what it used more is missing."""
    async with Workers(Source(LimitServer(None, 6000)), 2, tokens=tokens, used=used) as workers:
        await anyio.sleep(300)
    assert 4 * sent * 0.9 <= sum(at >= workers.sent[0][0] + 60 for at, _ in workers.sent) <= 4.2 * sent + 1
    assert workers.busiest_minute() * (used or tokens) <= 6000 * 1.05 + 2 * max(used or 0, tokens)


async def test_a_pause_of_one_worker_holds_back_all() -> None:
    async with Workers(Source(LimitServer(600)), 4) as workers:
        await anyio.sleep(10)
        paused_at = anyio.current_time()
        workers.limiters[0].pause("m", 20, "a call")
        await anyio.sleep(30)
    later = [at - paused_at for at, _ in workers.sent if at > paused_at]
    assert [at for at in later if LEASE_SECONDS + 0.1 < at < 20 - 0.1] == []
    assert any(at > 20 for at in later)


async def test_workers_without_budgets_share_pauses_too() -> None:
    async with Workers(Source(LimitServer()), 2) as workers:
        await anyio.sleep(5)
        paused_at = anyio.current_time()
        workers.limiters[0].pause("m", 20, "a call")
        await anyio.sleep(10)
    assert max(at for at, _ in workers.sent) < paused_at + LEASE_SECONDS + 0.1


async def test_a_lost_limit_is_kept_in_shares_until_it_is_back() -> None:
    source = Source(LimitServer(600))
    async with Workers(source, 4) as workers:
        await anyio.sleep(90)
        source.is_lost = True
        await anyio.sleep(90)
        lost_at = len(workers.sent)
        assert all(pacer.is_alone for pacer in workers.pacers)
        await anyio.sleep(30)
        assert len(workers.sent) - lost_at >= 0.9 * 300
        source.server, source.is_lost = LimitServer(600), False  # a new one knows nothing of what was sent
        await anyio.sleep(90)
    assert not any(pacer.is_alone for pacer in workers.pacers)
    assert workers.busiest_minute() <= 630


async def test_before_the_first_lease_nobody_sends() -> None:
    source = Source(LimitServer(600))
    source.is_lost = True
    async with Workers(source, 1) as workers:
        await anyio.sleep(5)
        assert workers.sent == []
        source.is_lost = False
        await anyio.sleep(REJOIN_SECONDS + 0.1)
        assert workers.sent


async def test_a_request_that_was_never_sent_is_given_back() -> None:
    source = Source(LimitServer(6))
    limiter = RateLimiter("server", pacer=(pacer := LeasedPacer(source, "w")))
    async with anyio.create_task_group() as group:
        group.start_soon(pacer.run)
        limiter.cancel(await limiter.acquire("m", 1))
        began = anyio.current_time()
        limiter.on_no_response(await limiter.acquire("m", 1))
        assert anyio.current_time() - began < 2
        limiter.on_no_response(await limiter.acquire("m", 1))
        assert anyio.current_time() - began == pytest.approx(10, abs=1)
        group.cancel_scope.cancel()


async def test_a_pacer_belongs_to_one_client() -> None:
    pacer = LeasedPacer(Source(LimitServer(6)), "w")
    RateLimiter("server", pacer=pacer)
    with pytest.raises(RuntimeError, match="one client"):
        RateLimiter("server", pacer=pacer)


def test_a_limit_must_be_a_number_above_0() -> None:
    with pytest.raises(ValueError, match="tokens_per_minute"):
        LimitServer(1, 0)
