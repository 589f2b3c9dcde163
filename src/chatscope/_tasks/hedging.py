"""Hedging: a second attempt while a slow first one continues. The first to deliver wins; the other is cancelled.

Not here: what an attempt does, and whether a second one is allowed (`model_call.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

import anyio
import anyio.abc
from anyio.lowlevel import checkpoint_if_cancelled

_T = TypeVar("_T")

Claim = Callable[[], bool]
"""Called by an attempt whenever it has output. Returns whether that attempt delivers: only the first to claim does."""

HedgedAttempt = Callable[[Claim], Awaitable[_T]]


class Hedge(Generic[_T]):
    """Two attempts at the same request.

    Both run in the hedge's own task group. Each child keeps its error, so that no error is wrapped in a group. An
    attempt that ends without an error delivers, unless the other one has already claimed.
    """

    __slots__ = ("_changed", "_tries", "_winner")

    def __init__(self) -> None:
        self._tries: list[_Try[_T]] = []
        self._winner: _Try[_T] | None = None
        self._changed = anyio.Event()

    async def run(self, first: HedgedAttempt[_T], after: float, second: Callable[[], HedgedAttempt[_T] | None]) -> _T:
        """Run the attempts and return what the winner returns, once both have cleaned up.

        If cancelled, both attempts are cancelled.

        Args:
            first: starts at once.
            after: how long the first attempt may be without output before the second one starts, in seconds.
            second: returns the second attempt, or `None` if it is not allowed.

        Raises:
            Exception: the winner's error, if it failed after it had claimed; if none won, the first attempt's error.
        """
        async with anyio.create_task_group() as group:
            self._start(group, first)
            with anyio.move_on_after(after):
                while self._is_open:
                    await self._changed.wait()
            if self._is_open and (attempt := second()) is not None:
                self._start(group, attempt)
        chosen = self._winner or self._tries[0]
        if chosen.error is not None:
            raise chosen.error
        if not chosen.returned:  # its asyncio task was cancelled by other means than a scope, and the group with it
            raise anyio.get_cancelled_exc_class()
        return chosen.returned[0]

    @property
    def _is_open(self) -> bool:
        """Whether another attempt could help: none has won, and one is under way."""
        return self._winner is None and not all(item.is_over for item in self._tries)

    def _start(self, group: anyio.abc.TaskGroup, attempt: HedgedAttempt[_T]) -> None:
        item = _Try[_T]()
        self._tries.append(item)
        group.start_soon(self._run, item, attempt)

    async def _run(self, item: _Try[_T], attempt: HedgedAttempt[_T]) -> None:
        try:
            with item.scope:
                await checkpoint_if_cancelled()  # the other may have won before this one took its first step
                try:
                    item.returned.append(await attempt(partial(self._claim, item)))
                    self._claim(item)
                except Exception as error:  # noqa: BLE001 - `run` raises it again
                    item.error = error
        finally:
            item.is_over = True
            self._notify()

    def _claim(self, item: _Try[_T]) -> bool:
        if self._winner is None:
            self._winner = item
            for other in self._tries:
                if other is not item:
                    other.scope.cancel()
            self._notify()
        return self._winner is item

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class _Try(Generic[_T]):
    """One of the two attempts, and how it ended."""

    __slots__ = ("error", "is_over", "returned", "scope")

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.returned: list[_T] = []
        self.error: Exception | None = None
        self.is_over = False
