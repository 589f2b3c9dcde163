"""TextStream: one reader's position in the text of a task.

Between two parts it holds no cancel scope, task group or task, so a reader can stop anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self

from anyio.lowlevel import current_token

from chatscope._tasks.models import Result, TaskStatus


class TextLog(Protocol):
    """The part of a task's state that its readers need."""

    result: Result | None
    was_read: bool

    @property
    def parts(self) -> Sequence[str]:
        """The text so far."""
        ...

    async def wait_for_change(self) -> None:
        """Wait for more text or the result."""

    async def cancel(self) -> bool:
        """Stop the task and wait for its end."""
        ...

    def request_cancel(self) -> None:
        """Request cancellation without waiting for the task to end."""


class TextStream:
    """The text of a task, part by part: first what has already arrived, then live. It ends with the task.

    A failed task raises its error after the text that arrived; a cancelled one just ends.

    A reader of `stream_result` or `ChatTask.stream` may stop anywhere, and the task continues. The iterator of
    `execute_streaming` owns its task: `aclose`, the end of its `async with`, a cancellation of the reader, and the loss
    of the last reference to the iterator cancel the task. A `break` alone does not cancel it while a variable still
    refers to the iterator. Hence::

        async with adapter.execute_streaming(task) as text:
            async for part in text:
                ...

    Args:
        log: the task's text; `None` for an unknown id, which has no text.
        owner: whether the iterator owns the task, so that closing it early cancels the task.
    """

    __slots__ = ("__weakref__", "_log", "_owner", "_position", "_run_in_loop")

    def __init__(self, log: TextLog | None, *, owner: bool = False) -> None:
        self._log = log
        self._position = 0
        self._owner = owner
        if owner:
            self._run_in_loop = _threadsafe_call()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        """Return the next part. If cancelled while waiting, no text is lost: the next call returns it.

        Cancelling a reader of `execute_streaming` cancels the task.

        Raises:
            Exception: the task's error.
        """
        while (log := self._log) is not None:
            if self._position < len(log.parts):
                part = log.parts[self._position]
                self._position += 1
                log.was_read = True
                return part
            if (result := log.result) is not None:
                self._log = None
                if result.status is TaskStatus.FAILED:
                    result.raise_for_error()
                break
            try:
                await log.wait_for_change()
            except BaseException:
                # As an async generator would do. A cancelled reader does not come back, and the iterator may be part
                # of a reference cycle that is collected much later.
                if self._owner:
                    log.request_cancel()
                raise
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop reading; cancel the task if this iterator owns it. Closing twice does nothing."""
        log, self._log = self._log, None
        if log is not None and self._owner:
            await log.cancel()

    async def __aenter__(self) -> Self:
        """Return the iterator. This does not wait."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # A finaliser can run in any thread, at any point. So it only schedules a call on the event loop.
        log = self._log
        if log is not None and self._owner and log.result is None:
            with suppress(RuntimeError):  # the loop has ended, and the task with it
                self._run_in_loop(log.request_cancel)


def _threadsafe_call() -> Callable[[Callable[[], None]], object]:
    """Return the running loop's function that schedules a callback from any thread."""
    loop: Any = current_token().native_token
    call: Callable[[Callable[[], None]], object] = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
    return call
