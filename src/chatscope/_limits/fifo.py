"""A queue whose first waiter asks when it may go on, and asks again whenever something has changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf

import anyio


class WaiterQueue:
    """Let calls pass one after the other, each as soon as its claim is granted.

    Nobody overtakes: a call that could pass waits behind one that cannot yet. Passing an empty line with a claim that
    is granted costs no task switch.
    """

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: deque[_Place] = deque()

    def __len__(self) -> int:
        return len(self._places)

    async def acquire(self, claim: Callable[[], float]) -> None:
        """Wait until a claim is granted. Cancelled, nothing is claimed and the next in line goes on.

        Args:
            claim: takes what the call needs and returns 0, or takes nothing and returns the seconds after which asking
                again is worthwhile.
        """
        if not self._places and claim() <= 0:
            return
        place = _Place()
        self._places.append(place)
        try:
            while True:
                wait = claim() if self._places[0] is place else inf
                if wait <= 0:
                    return
                place.event = anyio.Event()
                with anyio.move_on_after(None if wait == inf else wait):
                    await place.event.wait()
        finally:
            self._places.remove(place)
            self.wake()

    def wake(self) -> None:
        """Let the first in line ask again."""
        if self._places:
            self._places[0].event.set()


class _Place:
    __slots__ = ("event",)

    def __init__(self) -> None:
        self.event = anyio.Event()
