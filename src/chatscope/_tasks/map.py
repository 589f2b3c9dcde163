"""Many tasks from one source: how far the source is read ahead, and in which order results are delivered.

Not here: how one task runs. This module only starts tasks, counts them, and cancels those whose results are not needed;
`map_source.py` reads the source.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Final, Generic, Protocol, Self

import anyio
import anyio.abc

from chatscope._limits.timeouts import CLOSE_GRACE
from chatscope._tasks.handle import TaskState
from chatscope._tasks.map_source import MapSource
from chatscope._tasks.models import Result, Task, TaskStatus
from chatscope._tasks.outcome import result_without_run
from chatscope._validation import check_count
from chatscope.errors import QueueFullError
from chatscope.protocol.response import OutputT

LOOK_AHEAD: Final = 64
"""How many tasks are read ahead beyond the number of slots, by default. They keep the slots busy while the reader
handles a result. A task with a page of text takes about 10 KiB, so this is under 1 MiB."""


class Starter(Protocol):
    """Starts tasks: the supervisor of an adapter."""

    @property
    def slots_total(self) -> int | None:
        """How many tasks may run at a time."""
        ...

    def submit(self, task: Task) -> TaskState:
        """Accept a task."""
        ...

    def forget(self, task_id: str) -> bool:
        """Forget a finished task."""
        ...


class ResultStream(Generic[OutputT]):
    """The results of many tasks: enter it, then iterate it. Made by `AsyncChatGPTAdapter.map`.

    A separate task reads the source, as far ahead of the reader as the bound allows. The bound covers tasks that are
    being read, wait, run, or have ended but are not delivered. So a slow reader slows the source down, and memory use
    stays flat.

    Leaving the block cancels the tasks that still run, waits for their ends, and closes the source if it is a
    generator; each takes at most `CLOSE_GRACE` seconds. If cancelled while waiting for a result, nothing is lost: the
    next call returns it.
    """

    __slots__ = (
        "_failure",
        "_finished",
        "_group",
        "_is_exhausted",
        "_is_left",
        "_is_refused",
        "_look_ahead",
        "_next",
        "_on_start",
        "_ordered",
        "_reader",
        "_room",
        "_running",
        "_source",
        "_starter",
    )

    def __init__(
        self,
        tasks: Iterable[Task[OutputT] | str] | AsyncIterable[Task[OutputT] | str],
        starter: Starter,
        *,
        ordered: bool,
        look_ahead: int | None,
        on_start: Callable[[Task[OutputT]], object] | None = None,
    ) -> None:
        if look_ahead is not None:
            check_count(look_ahead, "look_ahead")
        self._source = MapSource(tasks)
        self._starter = starter
        self._ordered = ordered
        self._look_ahead = look_ahead
        self._on_start = on_start
        self._group: anyio.abc.TaskGroup | None = None
        self._running: dict[int, TaskState] = {}  # by the task's number in the source
        self._finished: dict[int, Result] = {}  # not delivered yet, in the order in which they ended
        self._next = 0
        self._is_left = False
        self._is_exhausted = False
        self._is_refused = False  # whether the queue of tasks was full
        self._failure: Exception | None = None  # what the source raised, until the reader gets it
        self._reader: anyio.Event | None = None  # exists while the reader waits
        self._room: anyio.Event | None = None  # exists while the source waits

    async def __aenter__(self) -> Self:
        """Start reading the source.

        Raises:
            RuntimeError: it was entered before.
        """
        if self._group is not None:
            raise RuntimeError("the results can be iterated once; call map again for others")
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._read_source)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._group is not None  # noqa: S101 - the block was entered
        self._is_left = True
        self._group.cancel_scope.cancel()
        running = self._cancel_running()
        try:
            # The group does not see the exception: it would wrap it, and the block's caller should get it as it is.
            await self._group.__aexit__(None, None, None)
        finally:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_GRACE):
                for state in running + self._cancel_running():  # the source may have delivered one more
                    await state.wait()
        if error is None and self._source.close_error is not None:
            raise self._source.close_error

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result[OutputT]:
        """Return the next result, also that of a failed task. If cancelled, no result is lost.

        Raises:
            Exception: what the source raised, unchanged, after the results that were available by then.
            RuntimeError: the block was not entered.
        """
        item = await self._next_numbered()
        if item is None:
            raise StopAsyncIteration
        return item[1]

    async def _next_numbered(self) -> tuple[int, Result[OutputT]] | None:
        """Return the next result with its task's number in the source, or `None` at the end.

        If cancelled, no result is lost.

        Raises:
            Exception, RuntimeError: as `__anext__`.
        """
        if self._group is None:
            raise RuntimeError("the results are not open: use 'async with' around the loop")
        while True:
            if (item := self._pop()) is not None:
                self._wake_source()
                return item
            if (failure := self._failure) is not None:
                self._failure = None
                raise failure
            if self._is_exhausted and not self._running:
                return None
            if self._reader is None:
                self._reader = anyio.Event()
            await self._reader.wait()

    def ready(self) -> list[Result[OutputT]]:
        """Return the results that are there already, without waiting: none, one or many. They are delivered then.

        A loop that has just got a result gets the others that ended with it, to handle them all together::

            async for result in results:
                save([result, *results.ready()])
        """
        found = []
        while (item := self._pop()) is not None:
            found.append(item[1])
        if found:
            self._wake_source()
        return found

    def _pop(self) -> tuple[int, Result[OutputT]] | None:
        """Deliver the next result that is there."""
        number = self._next if self._ordered else next(iter(self._finished), None)
        if number is None or (result := self._finished.pop(number, None)) is None:
            return None
        self._next += 1
        if result.task is not None and result.task.task_id is not None:
            self._starter.forget(result.task.task_id)  # the reader has it now
        return number, result

    async def _read_source(self) -> None:
        """Read the source as far ahead as the bound allows, and start its tasks."""
        number = 0
        try:
            while (task := await self._source.read()) is not None:
                await self._start(number, task)
                number += 1
                while not self._has_room:
                    await self._wait_for_room()
        except Exception as error:  # noqa: BLE001 - the reader gets whatever the source raised
            if self._is_left:
                self._source.close_error = error  # raised by the source because it was cancelled
            else:
                await self._fail(error)
        finally:
            await self._source.close()
            self._is_exhausted = True
            self._wake_reader()

    async def _fail(self, error: Exception) -> None:
        """Cancel the running tasks, whose results are dropped; give the reader the results so far, then the error."""
        running = list(self._running.values())
        for state in running:
            state.on_end = None
        self._cancel_running()
        for state in running:
            await state.wait()
        self._running.clear()
        self._failure = error

    @property
    def _has_room(self) -> bool:
        bound = self._look_ahead or (self._starter.slots_total or 0) + LOOK_AHEAD
        return len(self._running) + len(self._finished) < bound

    async def _start(self, number: int, task: Task) -> None:
        while True:
            try:
                state = self._starter.submit(task)
            except QueueFullError as error:
                if not self._running:  # other tasks fill the queue
                    self._reject(number, task, error)
                    return
                self._is_refused = True
                await self._wait_for_room()
                self._is_refused = False
            except Exception as error:  # noqa: BLE001 - one bad task among many is a result like any other failure
                self._reject(number, task, error)
                return
            else:
                break
        if state.result is None:
            self._running[number] = state
            state.on_start = self._on_start
            state.on_end = partial(self._on_end, number)
        else:
            self._on_end(number, state.result)

    def _reject(self, number: int, task: Task, error: Exception) -> None:
        """Deliver a failed result for a task that was not accepted."""
        self._on_end(number, result_without_run(error, TaskStatus.FAILED, task))

    def _on_end(self, number: int, result: Result) -> None:
        self._running.pop(number, None)
        self._finished[number] = result
        self._wake_source()
        self._wake_reader()

    def _cancel_running(self) -> list[TaskState]:
        running = list(self._running.values())
        for state in running:
            state.request_cancel()
        return running

    def _wake_reader(self) -> None:
        if self._reader is not None:
            self._reader.set()
            self._reader = None

    def _wake_source(self) -> None:
        if self._room is not None and (self._is_refused or self._has_room):
            self._room.set()
            self._room = None

    async def _wait_for_room(self) -> None:
        """Wait until a result was delivered or, if the queue was full, until a task has ended."""
        self._room = anyio.Event()
        await self._room.wait()
