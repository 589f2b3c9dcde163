"""One worker, as seen by the process that runs the plan: it receives orders, sends messages, and may die.

Not here: what a worker does (`process_worker`), and what its messages mean for a stage (`shared_stage`).
"""

from __future__ import annotations

import signal
from collections import deque
from typing import Protocol

import anyio
import anyio.abc

from chatscope.load.messages import MessageFrames, Order, WorkerMessage, encode_order
from chatscope.load.schedule import WorkShare


class StartedWorker(Protocol):
    """One worker, as seen by the process that runs the plan.

    Attributes:
        share: which part of every stage it runs.
        death: how it died; `None` while it lives.
        running: how many requests run in the stage.
        dispatched: how many were sent in the stage.
    """

    share: WorkShare
    death: str | None
    running: int
    dispatched: int

    async def send(self, order: Order) -> None:
        """Send an order; do nothing if the worker has died."""

    async def receive(self) -> WorkerMessage | None:
        """Return its next message, with stamps on this process's clock; `None` once it has died."""


class WorkerProcess:
    """One worker, as seen by the parent.

    Args:
        share: which part of every stage it runs.
        process: the process.

    Attributes:
        share: as given.
        death: how it died; `None` while it lives.
        running, dispatched: its counts in the running stage.
    """

    def __init__(self, share: WorkShare, process: anyio.abc.Process) -> None:
        self.share = share
        self.death: str | None = None
        self.running = self.dispatched = 0
        self._process = process
        self._frames = MessageFrames()
        self._messages: deque[WorkerMessage] = deque()

    async def send(self, order: Order) -> None:
        """Send an order; do nothing if the worker has died. If cancelled, send it no further orders."""
        data = encode_order(order)
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        try:
            await self._process.stdin.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._record_death()

    async def receive(self) -> WorkerMessage | None:
        """Return its next message; `None` once it has died. If cancelled, no message is lost."""
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            while not self._messages and self.death is None:
                self._messages.extend(self._frames.feed(await self._process.stdout.receive()))
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            await self._record_death()
        return self._messages.popleft() if self._messages else None

    async def _record_death(self) -> None:
        status = await self._process.wait()
        self.running = 0
        self.death = f"its process ended with status {status}"
        if status < 0:
            self.death += f" ({signal.Signals(-status).name})"
