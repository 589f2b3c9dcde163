"""One submitted task: `TaskState`, which its run writes, and `ChatTask`, the public view of it.

The text of a task is an append-only list of parts. Status, text, live streams and late replays all read that list and
the result; a reader keeps only its own position. Not here: how a task runs (`runner.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, cast

from anyio.lowlevel import checkpoint

from chatscope._tasks.alarms import Alarms
from chatscope._tasks.models import Result, Task, TaskId, TaskStatus, unbuilt_of
from chatscope._tasks.step_stream import StepStream
from chatscope._tasks.text_stream import TextStream
from chatscope.errors import ChatError
from chatscope.protocol.response import Completion, OutputT
from chatscope.transport.streams import Waiter, new_waiter


class Run(Protocol):
    """The part of a task's run that its readers need."""

    def cancel(self) -> None:
        """Stop the task without waiting for its end."""

    def so_far(self, error: ChatError) -> Result:
        """Return a result with what is known by now, and the error of a caller that no longer waits."""
        ...


class TaskState:
    """The state of one task. Written by its run; read by handles, text streams and the adapter.

    Attributes:
        task: the task as it was submitted, with its id.
        result: the result, once the task has ended.
        id: the task's id.
        steps: the completions of the turns so far; empty for a task of one turn, whose completion is in the result.
        started_ns: when the first permit to send was acquired (`time.perf_counter_ns`).
        was_read: whether a reader has received any text of the current model call.
        cancel_requested: whether a cancellation has been requested.
        run: the task's run; `None` once it has ended.
        on_start: called with the task before its first request is sent. If it raises, nothing is sent.
        on_end: called once with the result.
    """

    __slots__ = (
        "_parts",
        "_readers",
        "_waiters",
        "cancel_requested",
        "id",
        "on_end",
        "on_start",
        "result",
        "run",
        "started_ns",
        "steps",
        "task",
        "was_read",
    )

    def __init__(self, task: Task) -> None:
        self.task = task
        self.id = task.task_id or ""
        self.result: Result | None = None
        self.steps: tuple[Completion, ...] = ()
        self._parts: Sequence[str] | None = ()
        self.started_ns: int | None = None
        self.was_read = False
        self.cancel_requested = False
        self.run: Run | None = None
        self.on_start: Callable[[Task], object] | None = None
        self.on_end: Callable[[Result], None] | None = None
        self._waiters: dict[Waiter, None] | None = None  # for the result
        self._readers: dict[Waiter, None] | None = None  # for more text, or the result

    @classmethod
    def after(cls, result: Result) -> TaskState:
        """Return the state of a task that has ended, from its result: of most tasks, only that is kept."""
        assert result.task is not None  # noqa: S101 - results of tasks that do not exist are not kept
        state = cls(result.task)
        state.result = result
        state.steps = unbuilt_of(result).steps
        state._parts = None  # most look-ups read no text
        return state

    @property
    def parts(self) -> Sequence[str]:
        """The text so far. A new attempt that replaces unread text replaces the sequence."""
        if self._parts is None:
            assert self.result is not None  # noqa: S101 - `after` set it
            self._parts = unbuilt_of(self.result).parts(self.result.output)
        return self._parts

    @property
    def status(self) -> TaskStatus:
        """The task's current status."""
        if self.result is not None:
            return self.result.status
        return TaskStatus.PENDING if self.started_ns is None else TaskStatus.RUNNING

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.parts)

    def start(self, now_ns: int) -> None:
        """Record that the first permit was acquired, and the first request is about to be sent.

        Raises:
            Exception: `on_start` refuses it.
        """
        if self.on_start is not None:
            self.on_start(self.task)
        self.started_ns = now_ns

    def on_first_output(self) -> None:
        """Do nothing: the text alone is published."""

    def on_text(self, parts: Sequence[str]) -> None:
        """Publish the text parts and wake the readers."""
        self._parts = parts
        if self._readers is not None:
            readers, self._readers = self._readers, None
            for reader in readers:
                reader.set()

    def add_step(self, completion: Completion) -> None:
        """Publish the completion of a turn and wake the readers."""
        self.steps += (completion,)
        self.on_text(self.parts)

    def finish(self, result: Result) -> None:
        """Publish the result, and wake all readers and waiters."""
        self.result = result
        self.run = None
        waiters, self._waiters = self._waiters or {}, None
        for waiter in waiters:
            waiter.set()
        self.on_text(tuple(self.parts))  # which is kept: the garbage collector looks at a list for ever
        if self.on_end is not None:
            self.on_end(result)
            self.on_end = None

    def request_cancel(self) -> None:
        """Request cancellation without waiting for the task to end."""
        if self.run is not None:
            self.cancel_requested = True
            self.run.cancel()

    async def wait(self) -> Result:
        """Wait for the result. Cancelling the wait leaves the task running."""
        if self.result is None:
            await _wait_among(self._all_waiters(), new_waiter())
        else:
            await checkpoint()
        assert self.result is not None  # noqa: S101 - `finish` sets it before it wakes the waiters
        return self.result

    async def wait_until(self, at: float, alarms: Alarms) -> Result | None:
        """Wait for the result as `wait` does, but only until a time on the event loop's clock; then return `None`."""
        if self.result is not None:
            await checkpoint()
            return self.result
        waiters, waiter = self._all_waiters(), new_waiter()
        alarm = alarms.add(at, waiter.set)  # costs a fifth of a cancel scope with a deadline
        try:
            waiters[waiter] = None
            await waiter.wait()  # not by `_wait_among`: each coroutine in the chain would cost some time
        finally:
            waiters.pop(waiter, None)
            alarms.remove(alarm)
        return self.result

    def _all_waiters(self) -> dict[Waiter, None]:
        if self._waiters is None:
            self._waiters = {}
        return self._waiters

    async def cancel(self) -> bool:
        """Stop the task and wait for its end. Return whether it ended as cancelled."""
        if self.result is not None:
            await checkpoint()
            return False
        self.request_cancel()
        return (await self.wait()).status is TaskStatus.CANCELLED

    async def wait_for_change(self) -> None:
        """Wait for more text or the result."""
        if self._readers is None:
            self._readers = {}
        await _wait_among(self._readers, new_waiter())


async def _wait_among(waiters: dict[Waiter, None], waiter: Waiter) -> None:
    waiters[waiter] = None
    try:
        await waiter.wait()
    finally:
        waiters.pop(waiter, None)


class ChatTask(Generic[OutputT]):
    """A handle on one task of an adapter. Made by `start_task`.

    Holding it does not keep the task running, and dropping it does not stop the task.
    """

    __slots__ = ("_state",)

    def __init__(self, state: TaskState) -> None:
        self._state = state

    def __repr__(self) -> str:
        return f"<ChatTask {self.id} {self.status}>"

    @property
    def id(self) -> TaskId[OutputT]:
        """The id by which the adapter knows the task."""
        return typed_id(self._state)

    @property
    def task(self) -> Task[OutputT]:
        """The task as it was submitted, with its id."""
        return self._state.task

    @property
    def result(self) -> Result[OutputT] | None:
        """The result, once the task has ended."""
        return self._state.result

    @property
    def status(self) -> TaskStatus:
        """The task's current status."""
        return self._state.status

    @property
    def text(self) -> str:
        """The text so far."""
        return self._state.text

    async def wait(self) -> Result[OutputT]:
        """Wait for the task to end and return its result, also after a failure.

        Cancelling the wait leaves the task running.
        """
        return await self._state.wait()

    def stream(self) -> TextStream:
        """Iterate over the text from its beginning, live while the task runs. Any number of readers can attach."""
        return TextStream(self._state)

    def steps(self) -> StepStream:
        """Iterate over the completions of a task with tools, one for each turn, from the first on, as they arrive.

        Each is available before its tools are called. A task without tools has one step. Any number of readers can
        attach.
        """
        return StepStream(self._state)

    async def cancel(self) -> bool:
        """Stop the task. When this returns, its connection is closed and its result is available.

        If this call is cancelled, the task is still stopped.

        Returns:
            True if the task ended as cancelled; False if it had already ended, or ended at the same time.
        """
        return await self._state.cancel()

    def request_cancel(self) -> None:
        """Ask the task to stop without waiting for its end. Call this in the event loop's own thread."""
        self._state.request_cancel()


def typed_id(state: TaskState) -> TaskId[Any]:
    """Return a task's id. Type checkers infer the type of the task's result from it."""
    return cast("TaskId[Any]", state.id)  # as a text: to build the type costs more than all the rest
