"""Slots: how many calls run at a time, fixed or adaptive, and in which order waiting calls get a slot.

Here: counting and order. Not here: how fast requests are sent (`rate_limit`).
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from time import perf_counter_ns
from typing import Final, Literal

import anyio
import msgspec

from chatscope.errors import QueueFullError

AUTO_START: Final = 8
"""The first value of an automatic limit: a desktop server with a few parallel slots accepts this many."""

AUTO_MOST: Final = 1024
"""The largest value of an automatic limit: the number of idle connections that the default transport keeps."""


class Slots:
    """The slots of a client. A call holds one while it runs.

    A slot or a place in the queue is taken synchronously, so calls are served in the order in which they are made, not
    the order in which the event loop runs them. Every operation takes at most O(log n).

    Args:
        total: how many slots there are. `None` means no limit. `"auto"` adapts: the number grows while all slots are
            taken and nothing is refused, and shrinks when the server is out of capacity (429), but not when it fails
            (5xx).
        most_waiting: how many calls may wait; `None` means no limit.

    Attributes:
        taken: how many slots are taken.
        waiting: how many calls wait.
    """

    __slots__ = ("_auto", "_most_waiting", "_numbers", "_queue", "_ramps", "_shrunk_ns", "_total", "taken", "waiting")

    def __init__(self, total: int | Literal["auto"] | None = None, most_waiting: int | None = None) -> None:
        self._auto = total == "auto"
        self._total: float = AUTO_START if isinstance(total, str) else inf if total is None else total
        self._most_waiting = most_waiting
        self._queue: list[tuple[float, int, Slot]] = []
        self._numbers = count()
        self._ramps = True  # until the first refusal, like TCP's slow start
        self._shrunk_ns = 0
        self.taken = 0
        self.waiting = 0

    @property
    def total(self) -> int | None:
        """How many slots there are now; `None` means no limit."""
        return None if self._total == inf else int(self._total)

    def reserve(self, priority: float = 0, on_grant: Callable[[], object] | None = None) -> Slot:
        """Take a slot, or a place in the queue. Higher priorities go first.

        Args:
            priority: the call's priority.
            on_grant: called when the slot is granted later, not if it is granted at once. It must not raise.

        Raises:
            QueueFullError: too many calls wait.
        """
        if self.taken + 1 <= self._total:
            self.taken += 1
            return Slot(self, priority, next(self._numbers), on_grant, True)
        if self._most_waiting is not None and self.waiting >= self._most_waiting:
            raise QueueFullError(f"{self.waiting} calls are waiting, as many as max_pending allows")
        slot = Slot(self, priority, next(self._numbers), on_grant, False)
        self._push(slot)
        return slot

    def pause(self, slot: Slot) -> None:
        """Release the slot of a call that will call `resume` later."""
        if slot.is_granted and not slot.is_released:
            slot.is_granted = False
            self.taken -= 1
            self._serve()

    def resume(self, slot: Slot) -> None:
        """Grant a paused slot again, or queue it by its priority and ahead of later calls.

        A call that has started is never refused: `most_waiting` does not apply.
        """
        if slot.is_granted or slot.is_released:
            return
        if self.taken + 1 <= self._total:
            self._grant(slot)
        else:
            self._push(slot)

    def on_success(self) -> None:
        """Record that the server had capacity for a call. An automatic limit may grow."""
        if self._auto and self.taken >= int(self._total):
            self._total = min(AUTO_MOST, self._total + (1 if self._ramps else 1 / self._total))
            self._serve()

    def on_rate_limited(self, sent_ns: int) -> None:
        """Record that the server was out of capacity (429). An automatic limit shrinks.

        Args:
            sent_ns: when the refused request was sent (`time.perf_counter_ns`). A request sent before the limit last
                shrank has no effect.
        """
        if self._auto and sent_ns > self._shrunk_ns:
            self._ramps = False
            self._shrunk_ns = perf_counter_ns()
            self._total = max(1.0, min(self._total, self.taken) / 2)

    def _push(self, slot: Slot) -> None:
        heappush(self._queue, (-slot.priority, slot.number, slot))
        slot.is_queued = True
        self.waiting += 1

    def _grant(self, slot: Slot) -> None:
        self.taken += 1
        slot.is_granted = True
        if slot.ready is not None:
            slot.ready.set()
        elif slot.on_grant is not None:
            slot.on_grant()

    def _serve(self) -> None:
        while self._queue and self.taken + 1 <= self._total:
            *_, slot = heappop(self._queue)
            if not slot.is_released:
                slot.is_queued = False
                self.waiting -= 1
                self._grant(slot)

    def release(self, slot: Slot) -> None:
        """Release a slot, or leave the queue. Releasing twice does nothing."""
        if slot.is_released:
            return
        slot.is_released = True
        if slot.is_granted:
            self.taken -= 1
            if self._queue:
                self._serve()
            return
        if not slot.is_queued:
            return
        self.waiting -= 1
        if len(self._queue) > 2 * self.waiting + 64:  # abandoned places are removed once they outnumber the others
            self._queue = [entry for entry in self._queue if not entry[2].is_released]
            heapify(self._queue)


class Slot(msgspec.Struct, eq=False):
    """One call's slot, or its place in the queue until the slot is granted."""

    slots: Slots
    priority: float
    number: int
    on_grant: Callable[[], object] | None
    is_granted: bool
    is_queued: bool = False
    is_released: bool = False
    ready: anyio.Event | None = None

    async def wait(self) -> None:
        """Wait for the slot. If cancelled, the slot or the place in the queue is released."""
        if not self.is_granted:
            self.ready = anyio.Event()
            try:
                await self.ready.wait()
            except BaseException:
                self.release()
                raise
            finally:
                self.ready = None

    def pause(self) -> None:
        """Release the slot while the call does not need it. Other calls may acquire it."""
        self.slots.pause(self)

    async def resume(self) -> None:
        """Acquire a slot again after `pause`. If cancelled, no slot is held."""
        self.slots.resume(self)
        await self.wait()

    def release(self) -> None:
        """Release the slot, or leave the queue. Releasing twice does nothing."""
        self.slots.release(self)
