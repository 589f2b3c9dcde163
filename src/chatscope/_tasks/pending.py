"""The deadlines of tasks that wait for a slot: one watcher for all of them, since such a task has no coroutine yet.

A task that has its slot enforces its deadline by its own cancel scope (`runner.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Final

import anyio

STALE: Final = 64
"""How many entries of tasks that no longer wait may be in the heap, beyond as many as do wait."""


class PendingDeadline:
    """One deadline that is watched.

    Attributes:
        expire: called when the deadline passes; `None` once the task no longer waits.
    """

    __slots__ = ("at", "expire")

    def __init__(self, at: float, expire: Callable[[], object]) -> None:
        self.at = at
        self.expire: Callable[[], object] | None = expire


class PendingDeadlines:
    """The deadlines of all tasks that wait.

    Args:
        start: starts `watch` as a child of the adapter's task group. Called when there is something to watch.
    """

    __slots__ = ("_changed", "_heap", "_is_closing", "_is_watched", "_live", "_numbers", "_start")

    def __init__(self, start: Callable[[], object]) -> None:
        self._start = start
        self._is_watched = False
        self._is_closing = False
        self._heap: list[tuple[float, int, PendingDeadline]] = []
        self._live = 0
        self._numbers = count()
        self._changed: anyio.Event | None = None  # exists while the watcher waits

    def add(self, at: float, expire: Callable[[], object]) -> PendingDeadline:
        """Watch a deadline, on the event loop's clock, until `remove`."""
        deadline = PendingDeadline(at, expire)
        heappush(self._heap, (at, next(self._numbers), deadline))
        self._live += 1
        if not self._is_watched:
            self._is_watched = True
            self._start()
        elif self._heap[0][2] is deadline:
            self._wake()
        return deadline

    def remove(self, deadline: PendingDeadline) -> None:
        """Stop watching a deadline. Doing so twice does nothing."""
        if deadline.expire is None:
            return
        deadline.expire = None
        self._live -= 1
        if len(self._heap) > 2 * self._live + STALE:
            self._heap = [entry for entry in self._heap if entry[2].expire is not None]
            heapify(self._heap)
        if self._is_closing and not self._live:
            self._wake()

    def close(self) -> None:
        """Let `watch` return as soon as no task waits any more."""
        self._is_closing = True
        self._wake()

    async def watch(self) -> None:
        """Expire deadlines until none is left after `close`. Cancelling this expires none."""
        while self._live or not self._is_closing:
            while self._heap and self._heap[0][2].expire is None:
                heappop(self._heap)
            self._changed = anyio.Event()
            with anyio.CancelScope(deadline=self._heap[0][0] if self._heap else inf):
                await self._changed.wait()
            self._changed = None
            self._expire(anyio.current_time())
        self._is_watched = False

    def _expire(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            *_, deadline = heappop(self._heap)
            if (expire := deadline.expire) is not None:
                deadline.expire = None
                self._live -= 1
                expire()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
