"""A race between attempts: the first to deliver wins, the others are cancelled.

The attempts run as children of a group of the caller's. Their errors stay with them, so that none comes out wrapped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

import anyio
import anyio.abc
from anyio.lowlevel import checkpoint_if_cancelled

_T = TypeVar("_T")


class Race(Generic[_T]):
    """A race of attempts at the same thing.

    An attempt is a function that is given another one, to be called whenever it has something to show: the answer is
    whether it has won, which whoever calls first has. Ending without an error wins as well.
    """

    __slots__ = ("_changed", "_group", "_lanes", "_winner")

    def __init__(self, group: anyio.abc.TaskGroup) -> None:
        self._group = group
        self._lanes: list[_Lane[_T]] = []
        self._winner: _Lane[_T] | None = None
        self._changed = anyio.Event()

    @property
    def is_open(self) -> bool:
        """Whether another attempt could still help: none has won, and one is under way."""
        return self._winner is None and not all(lane.is_over for lane in self._lanes)

    def enter(self, attempt: Callable[[Callable[[], bool]], Awaitable[_T]]) -> None:
        """Begin an attempt."""
        lane = _Lane[_T]()
        self._lanes.append(lane)
        self._group.start_soon(self._run, lane, attempt)

    async def decision(self) -> None:
        """Wait until the race is decided, or every attempt has failed. Cancelling the wait leaves them running."""
        while self.is_open:
            await self._changed.wait()

    async def result(self) -> _T:
        """Wait for the winner's end, and until the others have cleaned up, and return what the winner made.

        Cancelling the wait leaves them running: they are their group's.

        Raises:
            Exception: what the winner failed with after all; if nobody won, what the first attempt failed with.
        """
        while not all(lane.is_over for lane in self._lanes):
            await self._changed.wait()
        lane = self._winner or self._lanes[0]
        if lane.error is not None:
            raise lane.error
        return lane.made[0]

    async def _run(self, lane: _Lane[_T], attempt: Callable[[Callable[[], bool]], Awaitable[_T]]) -> None:
        try:
            with lane.scope:
                await checkpoint_if_cancelled()  # another may have won before this one came to its first step
                try:
                    lane.made.append(await attempt(partial(self._claim, lane)))
                    self._claim(lane)
                except Exception as error:  # noqa: BLE001 - raised again by `result`
                    lane.error = error
        finally:
            lane.is_over = True
            self._tell()

    def _claim(self, lane: _Lane[_T]) -> bool:
        if self._winner is None:
            self._winner = lane
            for other in self._lanes:
                if other is not lane:
                    other.scope.cancel()
            self._tell()
        return self._winner is lane

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class _Lane(Generic[_T]):
    __slots__ = ("error", "is_over", "made", "scope")

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.made: list[_T] = []
        self.error: Exception | None = None
        self.is_over = False
