"""An iterable of tasks, sync or async, read one task at a time without blocking the event loop."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable
from typing import Final

import anyio
from anyio.lowlevel import checkpoint

from chatscope._limits.timeouts import CLOSE_GRACE
from chatscope._tasks.models import Task

TURN_SECONDS: Final = 0.001
"""How long a source that never waits is read before the event loop runs other tasks, in seconds. If only one task were
read at a time, requests would start one by one, and with a fast server only a few slots would be in use."""


class MapSource:
    """An iterable of tasks, sync or async, read one at a time."""

    __slots__ = ("_tasks", "_turn_ends", "close_error")

    def __init__(self, tasks: Iterable[Task | str] | AsyncIterable[Task | str]) -> None:
        if isinstance(tasks, str) or not isinstance(tasks, AsyncIterable | Iterable):
            raise TypeError(f"tasks must be an iterable of tasks, not {type(tasks).__name__}")
        self._tasks = aiter(tasks) if isinstance(tasks, AsyncIterable) else iter(tasks)
        self._turn_ends = 0.0
        self.close_error: Exception | None = None

    async def read(self) -> Task | None:
        """Return the next task, or `None` at the end.

        Raises:
            TypeError: the item is not a task.
            Exception: what the iterable raised.
        """
        if time.perf_counter() >= self._turn_ends:  # a source that never waits must not block the event loop
            await checkpoint()
            self._turn_ends = time.perf_counter() + TURN_SECONDS
        try:
            item = await anext(self._tasks) if isinstance(self._tasks, AsyncIterator) else next(self._tasks)
        except (StopIteration, StopAsyncIteration):
            return None
        if isinstance(item, str):
            return Task(item)
        if not isinstance(item, Task):
            raise TypeError(f"tasks must yield tasks or prompts only, not {type(item).__name__}")
        return item

    async def close(self) -> None:
        """Close the source if it is a generator; the caller closes any other. Takes at most `CLOSE_GRACE` seconds."""
        try:
            if isinstance(self._tasks, AsyncGenerator):
                with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_GRACE):
                    await self._tasks.aclose()
            elif isinstance(self._tasks, Generator):
                self._tasks.close()
        except Exception as error:  # noqa: BLE001 - `__aexit__` raises it
            self.close_error = error
