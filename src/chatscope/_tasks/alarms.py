"""Alarms: callbacks at set times, all run by one watcher task, so that a wait needs no separate cancel scope.

They enforce the deadlines of tasks that have no coroutine yet, and the timeouts of `get_result`. A task that has its
slot enforces its deadline by its own cancel scope (`runner.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Final

import anyio

STALE: Final = 64
"""The heap is rebuilt when its removed alarms outnumber the live ones by more than this."""


class Alarm:
    """One alarm.

    Attributes:
        at: when it expires, on the event loop's clock.
        expire: called then; `None` once the alarm has expired or been removed.
    """

    __slots__ = ("at", "expire")

    def __init__(self, at: float, expire: Callable[[], object]) -> None:
        self.at = at
        self.expire: Callable[[], object] | None = expire


class Alarms:
    """All alarms of one adapter.

    Args:
        start: starts `watch` as a child of the adapter's task group. Called when the first alarm is added.
    """

    __slots__ = ("_changed", "_heap", "_is_closing", "_is_watched", "_live", "_numbers", "_start")

    def __init__(self, start: Callable[[], object]) -> None:
        self._start = start
        self._is_watched = False
        self._is_closing = False
        self._heap: list[tuple[float, int, Alarm]] = []
        self._live = 0
        self._numbers = count()
        self._changed: anyio.Event | None = None  # exists while the watcher waits

    def add(self, at: float, expire: Callable[[], object]) -> Alarm:
        """Call a function at a time on the event loop's clock, unless `remove` is called first."""
        alarm = Alarm(at, expire)
        heappush(self._heap, (at, next(self._numbers), alarm))
        self._live += 1
        if not self._is_watched:
            self._is_watched = True
            try:
                self._start()
            except BaseException:
                self._is_watched = False
                self.remove(alarm)
                raise
        elif self._heap[0][2] is alarm:
            self._wake()
        return alarm

    def remove(self, alarm: Alarm) -> None:
        """Remove an alarm. Doing so twice does nothing."""
        if alarm.expire is None:
            return
        alarm.expire = None
        self._live -= 1
        if len(self._heap) > 2 * self._live + STALE:
            self._heap = [entry for entry in self._heap if entry[2].expire is not None]
            heapify(self._heap)
        if self._is_closing and not self._live:
            self._wake()

    def close(self) -> None:
        """Make `watch` return as soon as no alarm is set."""
        self._is_closing = True
        self._wake()

    async def watch(self) -> None:
        """Run the alarms as they expire, until `close` is called and none is left. If cancelled, run no more."""
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
            *_, alarm = heappop(self._heap)
            if (expire := alarm.expire) is not None:
                alarm.expire = None
                self._live -= 1
                expire()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
