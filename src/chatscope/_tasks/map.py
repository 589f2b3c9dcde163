"""Many tasks from one source: how far it is read ahead, and in which order their results come out.

How one task runs is `running.py`'s business; here they are only started, counted and, where their results are no longer
wanted, cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterable
from functools import partial
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.abc
from anyio.lowlevel import checkpoint

from chatscope._limits.concurrency import Slots
from chatscope._limits.timeouts import CLOSE_GRACE
from chatscope._tasks.handle import ChatTask
from chatscope._tasks.models import Platform, Result, Task, TaskStatus
from chatscope._validation import check_count
from chatscope.errors import QueueFullError

LOOK_AHEAD: Final = 64
"""How many tasks are read ahead beyond the slots, by default. Those that wait keep the slots busy while the reader is
busy with a result; a task with a page of text takes some 10 KiB, so this is under 1 MiB."""


class ResultStream:
    """The results of many tasks: enter it, then iterate it. Made by `map`.

    The source is read by a task of its own, and never further ahead of the reader than the bound: what is being read,
    waits, runs, or has ended and is not yet delivered. So a slow reader holds back the source, and memory stays flat.

    Leaving the block, in whatever way, cancels the tasks that still run, waits for their ends, and closes the source if
    it is a generator; each takes `CLOSE_GRACE` seconds at most. Cancelled while waiting for a result, nothing is lost:
    the next call returns it.
    """

    __slots__ = (
        "_ended",
        "_failure",
        "_forget",
        "_group",
        "_is_left",
        "_look_ahead",
        "_news",
        "_next",
        "_ordered",
        "_room",
        "_running",
        "_slots",
        "_source",
        "_start_task",
        "_whole",
    )

    def __init__(
        self,
        tasks: Iterable[Task] | AsyncIterable[Task],
        start_task: Callable[[Task], ChatTask],
        forget: Callable[[str], object],
        slots: Slots,
        *,
        ordered: bool,
        look_ahead: int | None,
    ) -> None:
        if look_ahead is not None:
            check_count(look_ahead, "look_ahead")
        self._source = _Source(tasks)
        self._start_task = start_task
        self._forget = forget
        self._slots = slots
        self._ordered = ordered
        self._look_ahead = look_ahead
        self._group: anyio.abc.TaskGroup | None = None
        self._running: dict[int, ChatTask] = {}  # by the task's number in the source
        self._ended: dict[int, tuple[ChatTask | None, Result]] = {}  # not yet delivered, in the order of their ends
        self._next = 0
        self._is_left = False
        self._whole = False  # nothing more comes from the source
        self._failure: Exception | None = None  # what the source raised, until the reader gets it
        self._news: anyio.Event | None = None  # there while the reader waits
        self._room: anyio.Event | None = None  # there while the source does

    async def __aenter__(self) -> Self:
        """Begin to read the source.

        Raises:
            RuntimeError: it was entered before.
        """
        if self._group is not None:
            raise RuntimeError("the results can be iterated once; ask the adapter for others")
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._read)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._group is not None  # noqa: S101 - the block was entered
        self._is_left = True
        self._group.cancel_scope.cancel()
        self._cancel_running()
        try:
            # The group is not shown the exception: it would wrap it, and the block's caller should get it as it is.
            await self._group.__aexit__(None, None, None)
        finally:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_GRACE):
                for task in self._cancel_running():  # the source may have brought one more
                    await task.wait()
        if error is None and self._source.close_error is not None:
            raise self._source.close_error

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result:
        """Return the next result, whatever became of its task.

        Raises:
            Exception: what the source raised, as it is, after the results that were there by then.
            RuntimeError: the block was not entered.
        """
        item = await self.next_numbered()
        if item is None:
            raise StopAsyncIteration
        return item[1]

    async def next_numbered(self) -> tuple[int, Result] | None:
        """Return the next result with its task's number in the source, `None` at the end.

        Raises:
            Exception, RuntimeError: as `__anext__`.
        """
        if self._group is None:
            raise RuntimeError("the results are not open: use 'async with' around the loop")
        while True:
            number = self._next if self._ordered else next(iter(self._ended), None)
            if number is not None and number in self._ended:
                task, result = self._ended.pop(number)
                self._next += 1
                self._make_room()
                if task is not None:
                    self._forget(task.id)  # it is the reader's now
                return number, result
            if (failure := self._failure) is not None:
                self._failure = None
                raise failure
            if self._whole and not self._running:
                return None
            if self._news is None:
                self._news = anyio.Event()
            await self._news.wait()

    async def _read(self) -> None:
        """Read the source as far ahead as may be, and start its tasks."""
        number = 0
        try:
            while (task := await self._source.read()) is not None:
                await self._start(number, task)
                number += 1
                while len(self._running) + len(self._ended) >= self._bound:
                    await self._wait_for_room()
        except Exception as error:  # noqa: BLE001 - whatever the source raised, the reader gets it
            if self._is_left:
                self._source.close_error = error  # its answer to being cancelled
            else:
                await self._fail(error)
        finally:
            await self._source.close()
            self._whole = True
            self._tell()

    async def _fail(self, error: Exception) -> None:
        """Let the reader have what is there, and then the error. No task runs then any more."""
        running = self._cancel_running()
        for handle in running:
            handle.on_end = None  # its result is not delivered
        for handle in running:
            await handle.wait()
        self._running.clear()
        self._failure = error

    @property
    def _bound(self) -> int:
        return self._look_ahead or (self._slots.total or 0) + LOOK_AHEAD

    async def _start(self, number: int, task: Task) -> None:
        while True:
            try:
                handle = self._start_task(task)
            except QueueFullError as error:
                if not self._running:  # others fill the queue
                    self._refused(number, task, error)
                    return
                await self._wait_for_room()
            except Exception as error:  # noqa: BLE001 - one bad task among many is a result like any other failure
                self._refused(number, task, error)
                return
            else:
                break
        if handle.result is None:
            self._running[number] = handle
            handle.on_end = partial(self._end, number)
        else:
            self._end(number, handle, handle.result)

    def _end(self, number: int, task: ChatTask | None, result: Result) -> None:
        self._running.pop(number, None)
        self._ended[number] = task, result
        self._make_room()
        self._tell()

    def _refused(self, number: int, task: Task, error: Exception) -> None:
        """Make the result of a task that was not accepted."""
        result = Result(
            task=task,
            platform=Platform.CHATGPT,
            output="",
            success=False,
            status=TaskStatus.FAILED,
            error=str(error),
            exception=error,
        )
        self._end(number, None, result)

    def _cancel_running(self) -> list[ChatTask]:
        running = list(self._running.values())
        for handle in running:
            handle.request_cancel()
        return running

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set()

    async def _wait_for_room(self) -> None:
        """Wait until a result was delivered or a task has ended."""
        self._room = anyio.Event()
        await self._room.wait()


class _Source:
    """An iterable of tasks, sync or async, read one at a time."""

    __slots__ = ("_tasks", "close_error")

    def __init__(self, tasks: Iterable[Task] | AsyncIterable[Task]) -> None:
        if not isinstance(tasks, AsyncIterable | Iterable):
            raise TypeError(f"tasks must be an iterable of tasks, not {type(tasks).__name__}")
        self._tasks = aiter(tasks) if isinstance(tasks, AsyncIterable) else iter(tasks)
        self.close_error: Exception | None = None

    async def read(self) -> Task | None:
        """Return the next task, or `None` at the end.

        Raises:
            TypeError: it is no task.
            Exception: what the iterable raised.
        """
        await checkpoint()  # a source that never waits must not keep the loop to itself
        try:
            item = await anext(self._tasks) if isinstance(self._tasks, AsyncIterator) else next(self._tasks)
        except (StopIteration, StopAsyncIteration):
            return None
        if not isinstance(item, Task):
            raise TypeError(f"the source must consist of tasks, not of {type(item).__name__}")
        return item

    async def close(self) -> None:
        """Close a generator; anything else stays its owner's to close. It takes `CLOSE_GRACE` seconds at most."""
        try:
            if isinstance(self._tasks, AsyncGenerator):
                with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_GRACE):
                    await self._tasks.aclose()
            elif isinstance(self._tasks, Generator):
                self._tasks.close()
        except Exception as error:  # noqa: BLE001 - raised by the block that is being left
            self.close_error = error
