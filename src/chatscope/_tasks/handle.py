"""ChatTask, the handle of one submitted task, and its live text. Both are views: who runs the task is in `running.py`.

A task's text is an append-only list of pieces. Status, text, live stream and late replay all look at it and at the
result; a reader keeps nothing but its own place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.lowlevel import checkpoint, current_token

from chatscope._tasks.models import Result, Task, TaskStatus


class ChatTask:
    """One task of an adapter, from its submission on. Made by `start_task`."""

    __slots__ = (
        "_cancel_scope",
        "_done",
        "_news",
        "cancel_requested",
        "on_end",
        "pieces",
        "result",
        "started_ns",
        "task",
        "was_read",
    )

    def __init__(self, task: Task) -> None:
        self.task = task
        self.result: Result | None = None
        """What became of it, once it has ended."""
        self.pieces: list[str] = []
        self.started_ns: int | None = None
        self.was_read = False
        self.cancel_requested = False
        self.on_end: Callable[[ChatTask, Result], None] | None = None
        """Called once, with the result; for who waits for many tasks at a time."""
        self._cancel_scope: anyio.CancelScope | None = None
        self._done: anyio.Event | None = None  # there while somebody waits for the end
        self._news: anyio.Event | None = None  # there while a reader waits

    def __repr__(self) -> str:
        return f"<ChatTask {self.id} {self.status}>"

    @property
    def id(self) -> str:
        """The id by which the adapter knows it."""
        return self.task.task_id or ""

    @property
    def status(self) -> TaskStatus:
        """Where it stands."""
        if self.result is not None:
            return self.result.status
        return TaskStatus.PENDING if self.started_ns is None else TaskStatus.RUNNING

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)

    async def wait(self) -> Result:
        """Wait for the end and return the result, whatever it is. Cancelling the wait leaves the task running."""
        if self.result is None:
            if self._done is None:
                self._done = anyio.Event()
            await self._done.wait()
        else:
            await checkpoint()
        assert self.result is not None  # noqa: S101 - it is there before `_done` is set
        return self.result

    def stream(self) -> TextStream:
        """Iterate over the text, from the beginning, live while the task runs. Any number of readers may."""
        return TextStream(self)

    async def cancel(self) -> bool:
        """Stop the task; when this returns, its connection is closed and its result is there.

        Cancelling this call does not take back the order to stop.

        Returns:
            True if the task was pending or running and is cancelled now, False if it had ended or just did.
        """
        if self.result is not None:
            await checkpoint()
            return False
        self.request_cancel()
        return (await self.wait()).status is TaskStatus.CANCELLED

    def request_cancel(self) -> None:
        """Order the task to stop without waiting for it. To be called in the event loop's own thread."""
        self.cancel_requested = True
        if self._cancel_scope is not None:
            self._cancel_scope.cancel()

    def runs_in(self, scope: anyio.CancelScope) -> None:
        """Take note of the scope that stops the task."""
        self._cancel_scope = scope
        if self.cancel_requested:
            scope.cancel()

    def began(self) -> None:
        """Take note that the task has got its slot."""
        self.started_ns = self.started_ns or time.perf_counter_ns()

    def grew(self, pieces: list[str]) -> None:
        """Wake the readers: these are the pieces now."""
        self.pieces = pieces
        if self._news is not None:
            self._news.set()
            self._news = None

    def finish(self, result: Result) -> None:
        """Take the one result and wake everybody."""
        self.result = result
        self._cancel_scope = None
        if self._done is not None:
            self._done.set()
            self._done = None
        self.grew(self.pieces)
        if self.on_end is not None:
            self.on_end(self, result)

    async def change(self) -> None:
        """Wait until there is more text or the result."""
        if self._news is None:
            self._news = anyio.Event()
        await self._news.wait()


class TextStream:
    """The text of a task, piece by piece: what came before, then what comes. Ends with the task.

    A task that failed raises its error after the text that did arrive; a cancelled one just ends. It holds no scope
    and no task between two pieces, so it may be left anywhere: by `break`, by an exception, by garbage collection.

    Args:
        task: the task; `None` for an id that is not known, which has no text.
        owner: leaving early cancels the task.
    """

    __slots__ = ("__weakref__", "_at", "_owner", "_run_in_loop", "_task", "_thread")

    def __init__(self, task: ChatTask | None, *, owner: bool = False) -> None:
        self._task = task
        self._at = 0
        self._owner = owner
        if owner:
            self._thread = threading.get_ident()
            self._run_in_loop = _threadsafe_call()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        """Return the next piece. Cancelled while waiting, nothing is lost: the next call returns it.

        Of `execute_streaming`, the cancellation reaches the task as well.

        Raises:
            Exception: what the task failed with.
        """
        while (task := self._task) is not None:
            if self._at < len(task.pieces):
                piece = task.pieces[self._at]
                self._at += 1
                task.was_read = True
                return piece
            if (result := task.result) is not None:
                self._task = None
                if result.status is TaskStatus.FAILED:
                    result.raise_for_error()
                break
            try:
                await task.change()
            except BaseException:
                # As an async generator would: its cancelled reader does not come back, and what holds the iterator
                # may be a cycle that is collected much later.
                if self._owner:
                    task.request_cancel()
                raise
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop reading; cancel the task if it belongs to this iterator. Closing twice does nothing."""
        task, self._task = self._task, None
        if task is not None and self._owner:
            await task.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # No task is started here and nothing awaited: a scope is cancelled, which is what an iterator that nobody
        # holds any more can still do. Garbage may be collected in any thread.
        task = self._task
        if task is None or not self._owner or task.result is not None:
            return
        if threading.get_ident() == self._thread:
            task.request_cancel()
        else:
            with suppress(RuntimeError):  # the loop is gone, and the task with it
                self._run_in_loop(task.request_cancel)


def _threadsafe_call() -> Callable[[Callable[[], None]], object]:
    """Return the running loop's own way to have a function called from another thread."""
    loop: Any = current_token().native_token
    call: Callable[[Callable[[], None]], object] = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
    return call
