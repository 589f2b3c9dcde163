"""Outcomes on their way to the code that iterates over a run, and how its parts wait for one another."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

import anyio

from chatscope.batch.result import BatchResult

UNDELIVERED: Final = 1000
"""The most outcomes that may wait for the iterating code. Then no further request is sent. About 10 MiB."""


class Wakeup:
    """Wakes all tasks that wait for a change. Costs almost nothing while none waits."""

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def notify(self) -> None:
        """Wake all tasks that are waiting."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Wait for the next change."""
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()


class Delivery:
    """The outcomes that have been recorded, but not delivered yet.

    Args:
        on_taken: notified when there is room again.
    """

    def __init__(self, on_taken: Wakeup) -> None:
        self._waiting: deque[BatchResult] | None = deque()
        self._on_taken = on_taken
        self._changed = Wakeup()
        self._ended = anyio.Event()
        self._failure: Exception | None = None

    @property
    def is_full(self) -> bool:
        """Whether too many outcomes wait, so that no further request should be sent."""
        return self._waiting is not None and len(self._waiting) >= UNDELIVERED

    @property
    def is_discarded(self) -> bool:
        """Whether nobody iterates."""
        return self._waiting is None

    def add(self, results: Iterable[BatchResult]) -> None:
        """Deliver outcomes."""
        if self._waiting is not None:
            self._waiting.extend(results)
            self._changed.notify()

    def end(self, failure: Exception | None) -> None:
        """Record that no further outcome follows. A second call does nothing.

        Args:
            failure: raised to the code that iterates, after the last outcome.
        """
        if not self._ended.is_set():
            self._failure = failure
            self._ended.set()
            self._changed.notify()

    async def next(self) -> BatchResult | None:
        """Return the next outcome, or `None` after the last one. If cancelled, none is lost.

        Raises:
            Exception: the failure that `end` was given.
            RuntimeError: the outcomes are discarded.
        """
        while self._waiting is not None:
            if self._waiting:
                result = self._waiting.popleft()
                self._on_taken.notify()
                return result
            if self._ended.is_set():
                self._raise_failure()
                return None
            await self._changed.wait()
        raise RuntimeError("iterate over the run, or await finish(): not both")

    async def discard(self) -> None:
        """Deliver nothing more, and wait for the end. If cancelled, the run continues.

        Raises:
            Exception: the failure that `end` was given.
        """
        self._waiting = None
        self._changed.notify()
        self._on_taken.notify()
        await self._ended.wait()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
