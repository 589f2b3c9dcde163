"""WaiterQueue: one waiter at a time asks whether it may go on, by priority, then first in, first out.

Here: the order of the waiters and when the first one asks again. Not here: what it asks for.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from math import inf
from typing import Final, NamedTuple

import anyio

SHORTEST_WAIT: Final = 1e-6
"""Seconds. What floating point leaves over of a wait, such as 1e-14 s, would not move the clock."""


class Order(NamedTuple):
    """The place of a waiter: a lower one goes first.

    Attributes:
        priority: the negated priority, so that higher priorities go first.
        number: counts up, so that among equals the first in is the first out.
    """

    priority: float
    number: int


class WaiterQueue:
    """Let waiters go on one after the other, each as soon as it acquires what it needs.

    Nobody overtakes: a waiter that could go on waits behind a first one that cannot. Acquiring from an empty queue what
    is available costs no task switch.
    """

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[_Waiter] = []

    def __len__(self) -> int:
        return len(self._waiters)

    @property
    def first(self) -> Order | None:
        """The place of the first waiter."""
        return self._waiters[0].order if self._waiters else None

    async def acquire(self, try_acquire: Callable[[], float], order: Order) -> None:
        """Wait until `try_acquire` succeeds. If cancelled, nothing is acquired and the next waiter goes on.

        Args:
            try_acquire: takes what is needed and returns 0, or takes nothing and returns the seconds after which it is
                worth asking again. Only the first waiter is asked.
            order: the waiter's place.
        """
        if not self._waiters and try_acquire() <= 0:
            return
        waiter = _Waiter(order)
        insort(self._waiters, waiter, key=_order)
        try:
            while True:
                wait = try_acquire() if self._waiters[0] is waiter else inf
                if wait <= 0:
                    return
                waiter.event = anyio.Event()
                with anyio.move_on_after(None if wait == inf else max(wait, SHORTEST_WAIT)):
                    await waiter.event.wait()
        finally:
            self._waiters.remove(waiter)
            self.wake()

    def wake(self) -> None:
        """Let the first waiter ask again."""
        if self._waiters:
            self._waiters[0].event.set()


class _Waiter:
    __slots__ = ("event", "order")

    def __init__(self, order: Order) -> None:
        self.event = anyio.Event()
        self.order = order


def _order(waiter: _Waiter) -> Order:
    return waiter.order
