"""WaiterQueue: waiters acquire something one at a time, by priority, then first in, first out.

Here: the order of the waiters, and when the first one tries again. Not here: what it acquires.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from math import inf
from typing import Final, NamedTuple

import anyio

SHORTEST_WAIT: Final = 1e-6
"""Seconds. A shorter wait, such as a rounding error of 1e-14 s, would not advance the clock."""


class Order(NamedTuple):
    """The place of a waiter. The lowest goes first.

    Attributes:
        priority: the negated priority, so that higher priorities go first.
        number: counts up, so that equal priorities are served first in, first out.
    """

    priority: float
    number: int


class WaiterQueue:
    """Serves waiters one after another, each as soon as it can acquire what it needs.

    No waiter overtakes another: even one that could acquire waits behind a first one that cannot. If there is no other
    waiter and the acquisition succeeds, there is no task switch.

    Attributes:
        waiting: the waiters in their order.
    """

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: list[_Waiter] = []

    def __len__(self) -> int:
        return len(self.waiting)

    @property
    def first(self) -> Order | None:
        """The place of the first waiter."""
        return self.waiting[0].order if self.waiting else None

    async def acquire(self, try_acquire: Callable[[], float], order: Order) -> None:
        """Wait until `try_acquire` succeeds. If cancelled, nothing is acquired and the next waiter tries.

        Args:
            try_acquire: acquires and returns 0, or acquires nothing and returns the seconds after which to try again.
                It is only called for the first waiter.
            order: the waiter's place.
        """
        if not self.waiting and try_acquire() <= 0:
            return
        waiter = _Waiter(order)
        insort(self.waiting, waiter, key=_order)
        try:
            while True:
                wait = try_acquire() if self.waiting[0] is waiter else inf
                if wait <= 0:
                    return
                waiter.event = anyio.Event()
                with anyio.move_on_after(None if wait == inf else max(wait, SHORTEST_WAIT)):
                    await waiter.event.wait()
        finally:
            self.waiting.remove(waiter)
            self.wake()

    def wake(self) -> None:
        """Let the first waiter try again."""
        if self.waiting:
            self.waiting[0].event.set()


class _Waiter:
    __slots__ = ("event", "order")

    def __init__(self, order: Order) -> None:
        self.event = anyio.Event()
        self.order = order


def _order(waiter: _Waiter) -> Order:
    return waiter.order
