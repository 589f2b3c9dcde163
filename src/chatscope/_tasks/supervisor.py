"""The tasks of one adapter: their root task group, the tasks that wait or run, and the finished ones that are stored.

Not here: how one task runs (`runner.py`), and the public methods (`adapter.py`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import iscoroutine
from typing import Any

import anyio
import anyio.abc
from anyio.lowlevel import checkpoint_if_cancelled

from chatscope._client.core import ClientCore
from chatscope._tasks.alarms import Alarms
from chatscope._tasks.handle import TaskState
from chatscope._tasks.models import Result, Task
from chatscope._tasks.outcome import Bill, Price
from chatscope._tasks.prepared import TaskDefaults, prepare
from chatscope._tasks.runner import TaskRun
from chatscope._tasks.spending import Spending
from chatscope._tasks.workers import Workers
from chatscope._validation import check_model


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """The adapter's arguments that concern its tasks. `AsyncChatGPTAdapter` documents them."""

    model: str
    price: Price
    hedge_after: float | None
    keep_finished: int
    cancel_over_budget: bool


class Supervisor:
    """The tasks of one adapter. All methods are called in the event loop's own thread.

    Args:
        core: sends the requests.
        options: the adapter's options for its tasks.
        spending: counts what all tasks use.
        new_id: returns an unused task id.
    """

    __slots__ = (
        "_defaults",
        "_finished",
        "_group",
        "_host_id",
        "_new_id",
        "_options",
        "_running",
        "_thread",
        "_workers",
        "alarms",
        "core",
        "spending",
    )

    def __init__(self, core: ClientCore, options: TaskOptions, spending: Spending, new_id: Callable[[], str]) -> None:
        self.core = core
        self._defaults = TaskDefaults.of(options.model, core.options.timeouts)
        self._new_id = new_id
        self._options = options
        self.spending = spending
        self._group: anyio.abc.TaskGroup | None = None
        self._thread = 0
        self._host_id = 0
        self._workers = Workers()
        self._running: dict[str, TaskRun] = {}
        self._finished: OrderedDict[str, Result] = OrderedDict()  # finding a dict's first item would take ever longer
        self.alarms = Alarms(self._start_watching)

    @property
    def model(self) -> str:
        """The model of tasks that name none."""
        return self._defaults.model

    @model.setter
    def model(self, model: str) -> None:
        check_model(model)
        self._defaults = replace(self._defaults, model=model)

    @property
    def hedge_after(self) -> float | None:
        """Seconds without output after which a second attempt starts; `None` for never."""
        return self._options.hedge_after

    @property
    def price(self) -> Price:
        """Prices a request."""
        return self._options.price

    @property
    def slots_total(self) -> int | None:
        """How many tasks may run at a time."""
        return self.core.limiter.slots.total

    @property
    def pending_count(self) -> int:
        """How many tasks wait for their first permit to send."""
        return sum(run.state.started_ns is None for run in self._running.values())

    @property
    def running_count(self) -> int:
        """How many tasks have started and not ended."""
        return len(self._running) - self.pending_count

    async def open(self) -> None:
        """Open the root task group."""
        self.alarms = Alarms(self._start_watching)
        self._workers = Workers()  # none of a loop that was stopped before they ended
        self._thread = threading.get_ident()
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._host_id = anyio.get_current_task().id

    async def close(self, *, cancel: bool) -> None:
        """Wait for the tasks, or cancel them. If cancelled while waiting, cancel them and wait for their ends."""
        group = self.open_group()
        self._check_host()
        try:
            if cancel:
                self._cancel_waiting()
                group.cancel_scope.cancel()
            self.alarms.close()
            await group.__aexit__(None, None, None)
            if not cancel:
                # A cancellation in the tick of the last task's end may have reached that task and not this wait.
                await checkpoint_if_cancelled()
        finally:
            self._group = None
            self._cancel_waiting()
            for run in list(self._running.values()):
                # On asyncio, a native cancellation can stop a task before its first step.
                run.give_up()

    def _check_host(self) -> None:
        """Check that the task that leaves the block is the one that entered it. If not, cancel all tasks.

        Raises:
            RuntimeError: another task leaves the block.
        """
        if anyio.get_current_task().id == self._host_id:
            return
        for run in list(self._running.values()):
            run.state.request_cancel()
        raise RuntimeError(
            "the adapter's block was entered in one task and is left in another: a task group must be left where it "
            "was entered. Keep 'async with' in one function or, in pytest, in a fixture of the anyio plugin"
        )

    def open_group(self) -> anyio.abc.TaskGroup:
        """Return the root task group.

        Raises:
            RuntimeError: the adapter is not open, or this is not the thread of its event loop.
        """
        if self._group is None:
            raise RuntimeError("the adapter is not open: use 'async with' around the code that runs tasks")
        if threading.get_ident() != self._thread:
            raise RuntimeError(
                "the adapter belongs to the event loop of another thread: there, use anyio.from_thread.run("
                "adapter.submit_task, task) in a worker thread, or a BlockingPortal in any other thread"
            )
        return self._group

    def submit(self, task: Task | str) -> TaskState:
        """Accept a task, or a prompt for one. If this raises, no slot is held and no task remains.

        Raises:
            ValueError, QueueFullError, RuntimeError: as `AsyncChatGPTAdapter.start_task`.
        """
        self.open_group()
        if isinstance(task, str):
            task = Task(task)
        task_id = self._new_id()
        run = TaskRun(self, prepare(self.core, task, task_id, self._defaults))
        task.task_id = task_id
        if (error := self.spending.exceeded()) is not None:
            run.reject(error)
            return run.state
        self._running[task_id] = run
        try:
            run.enter()
        except BaseException:
            self._running.pop(task_id, None)
            run.abandon()
            task.task_id = None
            raise
        return run.state

    def find(self, task_id: str) -> TaskState | None:
        """Return the state of a task that has not ended, or is still kept."""
        if (run := self._running.get(task_id)) is not None:
            return run.state
        if (result := self._finished.get(task_id)) is not None:
            return TaskState.after(result)
        _refuse_coroutine(task_id)
        return None

    def forget(self, task_id: str) -> bool:
        """Forget a finished task. Return whether it existed."""
        return self._finished.pop(task_id, None) is not None

    def spawn(self, run: TaskRun) -> None:
        """Let a worker run a task in the root group.

        Raises:
            RuntimeError: the group is closed.
        """
        self._workers.start(self.open_group(), run)

    def on_end(self, state: TaskState, bill: Bill, result: Result) -> None:
        """Move a task that has just ended to the finished ones, and count its usage."""
        self._running.pop(state.id, None)
        self._finished[state.id] = result
        if len(self._finished) > self._options.keep_finished:
            self._finished.popitem(last=False)
        was_within = self.spending.exceeded() is None
        self.spending.add(result, bill.reported_tokens, is_charged=bill.is_charged)
        if was_within and self.spending.exceeded() is not None:
            self._stop_over_budget()

    def _start_watching(self) -> None:
        self.open_group().start_soon(self.alarms.watch, name="chatscope: alarms")

    def _cancel_waiting(self) -> None:
        """End the tasks that have no coroutine yet: a cancellation of the group does not reach them."""
        for run in list(self._running.values()):
            if run.is_waiting:
                run.state.request_cancel()

    def _stop_over_budget(self) -> None:
        for run in list(self._running.values()):
            error = self.spending.exceeded()  # one error for each task, since it is annotated with that task's data
            if error is not None and (self._options.cancel_over_budget or run.state.started_ns is None):
                run.stop(error)


def _refuse_coroutine(task_id: Any) -> None:
    """Refuse a coroutine in place of an id, which is a common mistake.

    Raises:
        TypeError: the id is a coroutine that was not awaited.
    """
    if iscoroutine(task_id):
        task_id.close()  # otherwise Python would warn about it, too
        raise TypeError(f"task_id is a coroutine: forgot 'await' before {task_id.__name__}()?")
