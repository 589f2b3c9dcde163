"""Connections that a stage opens before its requests need them, so that no latency includes connecting.

Here: how many, when, and what the report says about it. Not here: opening them (`chatscope.transport`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

import anyio
import httpx

from chatscope.load.plan import LoadPlan
from chatscope.load.planned import LoadStage
from chatscope.load.schedule import WorkShare
from chatscope.load.verdict import ClientEvidence
from chatscope.transport import HTTPTransport, ReadWitness

SPARE: Final = 4
"""Idle connections that a stage keeps while more requests could run, so that the next ones find a connection. More
might occupy all threads of a server that has one thread per connection (llama.cpp has 8 on a small machine)."""

OPEN_SECONDS: Final = 10.0
"""Seconds that opening them may take. After that, the requests report what is wrong. A run can be stopped meanwhile."""

LOOK_SECONDS: Final = 0.02
"""Seconds between two checks for idle connections: at a hundred requests per second, a few arrive meanwhile."""

AFTER_FAILURE_SECONDS: Final = 1.0
"""Seconds to wait after a connection could not be opened. The requests will report the reason."""


def transport_for(plan: LoadPlan, reads: ReadWitness) -> HTTPTransport:
    """Return the transport of a worker. It keeps as many connections as the largest stage has slots."""
    slots = [stage.concurrency or 0 for stage in plan.stages()]
    return HTTPTransport(witness=reads, max_idle=max(1024, *slots))


class StageConnections:
    """The connections of one worker in one stage.

    Args:
        plan: the run's.
        stage: the stage.
        share: which part of it the worker runs.
        transport: the worker's.
        base_url: the server's address.

    Attributes:
        ahead: how many were open before the first request; `None` if requests open them.
        obstacle: why fewer were open than wanted.
    """

    def __init__(
        self, plan: LoadPlan, stage: LoadStage, share: WorkShare, transport: httpx.AsyncBaseTransport, base_url: str
    ) -> None:
        self.ahead: int | None = None
        self.obstacle: str | None = None
        self._transport = transport if plan.connections == "ahead" else None
        self._url = httpx.URL(base_url)
        slots = stage.concurrency or plan.max_concurrency
        self._slots = sys.maxsize if slots is None else len(share.slots(slots))
        self._first = self._slots if stage.concurrency is not None else min(SPARE, self._slots)
        if plan.requests is not None:
            self._first = min(self._first, plan.requests)

    async def open(self) -> None:
        """Open the connections for the first requests. If cancelled, keep those that are open. Record a failure."""
        if self._transport is None:
            return
        self.ahead = 0
        if not isinstance(self._transport, HTTPTransport):
            self.obstacle = "the transport is not chatscope's own"
            return
        self.obstacle = f"opening {self._first:,} took more than {OPEN_SECONDS:g} s"
        with anyio.move_on_after(OPEN_SECONDS):
            try:
                self.ahead = await self._transport.open_connections(self._url, self._first)
                self.obstacle = None if self.ahead else "they lead through a proxy of the environment"
            except httpx.TransportError as error:
                self.obstacle = str(error)

    async def keep_spare(self, running: Callable[[], int]) -> None:
        """Keep a few connections idle as long as more requests may run. Runs until cancelled.

        Args:
            running: returns how many requests are running.
        """
        if self.ahead is None or not isinstance(self._transport, HTTPTransport):
            return
        while True:
            await anyio.sleep(LOOK_SECONDS)
            try:
                spare = min(SPARE, self._slots - running())
                await self._transport.open_connections(self._url, spare, within=OPEN_SECONDS)
            except httpx.TransportError:
                await anyio.sleep(AFTER_FAILURE_SECONDS)


def connections_sentence(evidence: ClientEvidence, connected: int, attempts: int) -> str:
    """Return whether the latencies of a stage include connecting.

    Args:
        evidence: the measurements of the client.
        connected: how many of the measured requests had to open a connection.
        attempts: how many requests were measured.
    """
    did = f"{connected:,} of {attempts:,} measured requests opened one"
    including = ", which is part of their latencies" if connected else ""
    if evidence.connections_ahead is None:
        return f"connections were not opened ahead: {did}{including}"
    if evidence.not_ahead is not None:
        return f"connections could not all be opened ahead ({evidence.not_ahead}): {did}{including}"
    return f"connections that were open before the first request: {evidence.connections_ahead:,}; {did}{including}"
