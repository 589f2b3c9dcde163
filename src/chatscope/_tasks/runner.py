"""The run of one task: from its submission to exactly one result.

Until its slot is granted, a task is only an entry in the queue of slots and has no coroutine. Then a worker of the root
group (`workers.py`) runs it in a task group of its own, whose cancel scope stops it. Every failure becomes the result
in this module, so that siblings never see it. Only cancellation from outside passes through.
"""

from __future__ import annotations

import logging
import time
from contextvars import Context, copy_context
from typing import Final, Protocol

import anyio
from anyio.lowlevel import checkpoint

from chatscope._client.core import ClientCore
from chatscope._limits.concurrency import Slot
from chatscope._tasks.alarms import Alarm, Alarms
from chatscope._tasks.handle import TaskState
from chatscope._tasks.model_call import ModelCalls
from chatscope._tasks.models import Result, TaskStatus
from chatscope._tasks.outcome import NO_BILL, Bill, Price, bill_for, result_of, status_after, without_frames
from chatscope._tasks.prepared import PreparedTask
from chatscope.errors import ChatError, TaskCancelledError

_log: Final = logging.getLogger("chatscope.tasks")


class Host(Protocol):
    """The part of the supervisor that a task's run needs."""

    core: ClientCore
    alarms: Alarms

    @property
    def price(self) -> Price:
        """Prices a request."""
        ...

    @property
    def hedge_after(self) -> float | None:
        """Seconds without output after which a second attempt starts."""
        ...

    def spawn(self, run: TaskRun) -> None:
        """Let a worker run the task."""

    def on_end(self, state: TaskState, bill: Bill, result: Result) -> None:
        """Store a task that has ended."""


class TaskRun:
    """One task while it waits and runs.

    Args:
        host: the supervisor.
        prepared: the task, checked.

    Attributes:
        state: what readers see of the task.
        context: the context of its submission, from which a task that waited for its slot is started.
        is_waiting: whether it is waiting for its slot and has no coroutine yet.
    """

    __slots__ = (
        "_alarm",
        "_calls",
        "_host",
        "_prepared",
        "_scope",
        "_slot",
        "_stopped_by",
        "context",
        "is_waiting",
        "state",
    )

    def __init__(self, host: Host, prepared: PreparedTask) -> None:
        self._host = host
        self._prepared = prepared
        self.state = TaskState(prepared.task)
        self.state.run = self
        self._calls: ModelCalls | None = None
        self._slot: Slot | None = None
        self._scope: anyio.CancelScope | None = None
        self._alarm: Alarm | None = None
        self._stopped_by: ChatError | None = None
        self.context: Context | None = None
        self.is_waiting = False

    def enter(self) -> None:
        """Acquire a slot and start, or join the queue of slots.

        Raises:
            QueueFullError: as many tasks wait as `max_pending` allows.
            RuntimeError: no task can be started in the root group any more.
        """
        observed = self._prepared.observed
        priority = self._prepared.task.constraints.priority
        self._slot = self._host.core.limiter.slots.reserve(priority, self._on_grant)
        if observed is None:
            self._start_or_wait(self._slot)
        else:
            observed.start()
            with observed.current():  # the task runs in this context
                self._start_or_wait(self._slot)

    def _start_or_wait(self, slot: Slot) -> None:
        if slot.is_granted:
            slot.on_grant = None
            self._host.spawn(self)
            return
        self.context = copy_context()
        self.is_waiting = True
        prepared = self._prepared
        if prepared.deadline is not None:
            self._alarm = self._host.alarms.add(prepared.deadline.at, self._on_deadline)

    def reject(self, error: ChatError) -> None:
        """End the task at its submission."""
        if self._prepared.observed is not None:
            self._prepared.observed.start()
        self.end(error)

    def abandon(self) -> None:
        """Release what `enter` acquired before it failed."""
        self.state.run = None
        self.release()
        if self._prepared.observed is not None:
            self._prepared.observed.end(TaskCancelledError("the task was not started"), None)

    @property
    def name(self) -> str:
        """The task's id, which is its worker's name while it runs."""
        return self.state.id

    async def run(self) -> None:
        """Run the task in its own task group, and publish its result. The caller releases its slot afterwards.

        If cancelled from outside, the task ends as cancelled, its connection is closed, and the cancellation passes.
        """
        deadline = self._prepared.deadline
        was_queued, self.context = self.context is not None, None
        failure: Exception | None = None
        status = TaskStatus.CANCELLED
        scope: anyio.CancelScope | None = None
        try:
            async with anyio.create_task_group() as group:
                scope = self._scope = group.cancel_scope
                if deadline is not None:
                    scope.deadline = deadline.at
                if self.state.cancel_requested:
                    scope.cancel()
                assert self._slot is not None  # noqa: S101 - `enter` reserved it
                if was_queued or scope.cancel_called:
                    await checkpoint()  # cancelled in the tick that granted the slot: do not send
                try:
                    self._calls = ModelCalls(self._host.core, self._prepared, self.state, self._host.hedge_after)
                    await self._calls.run(self._slot)
                    status = TaskStatus.COMPLETED
                except Exception as error:  # noqa: BLE001 - any error is the outcome of this task alone
                    failure, status = error, TaskStatus.FAILED
        finally:
            if status is TaskStatus.CANCELLED:
                failure = self._interruption(timed_out=scope is not None and scope.cancelled_caught)
                status = status_after(failure)
            self._publish(failure, status)
            failure = None  # its causes may refer to this frame

    def cancel(self) -> None:
        """Stop the task: at once if it waits for its slot, otherwise by its scope."""
        if self.is_waiting:
            self.end(self._interruption(timed_out=False))
        elif self._scope is not None:
            self._scope.cancel()

    def stop(self, error: ChatError) -> None:
        """Stop the task with this error without waiting for its end. A task already being cancelled stays cancelled."""
        if not self.state.cancel_requested:
            self._stopped_by = error
            self.state.request_cancel()

    def end(self, error: ChatError) -> None:
        """End a task that does not run: publish its result, and release its slot or leave the queue."""
        try:
            self._publish(error, status_after(error))
        finally:
            self.release()  # also after Ctrl-C in a user's function

    def give_up(self) -> None:
        """End a task that does not run as cancelled."""
        self.end(TaskCancelledError("the task was cancelled"))

    def release(self) -> None:
        """Release the task's slot."""
        if self._slot is not None:
            self._slot.on_grant = None  # the queue may refer to the slot for a while
            self._slot.release()

    def _publish(self, failure: Exception | None, status: TaskStatus) -> None:
        """Publish the task's result.

        Args:
            failure: the error that it ended with; `None` after a success.
            status: its status. It need not follow from the error: a tool may raise the `TaskCancelledError` of another
                task.
        """
        self.is_waiting = False
        self._scope = self.context = None
        self._stop_watching()
        state = self.state
        if isinstance(failure, ChatError):
            self._annotate(failure)
        finished_ns = time.perf_counter_ns()
        bill, result = NO_BILL, None
        try:
            bill = self._bill(self._host.price)
            result = self._result(failure, status, bill, finished_ns)
            self._report(result)
        finally:
            if result is None:  # Ctrl-C in a user's function: waiting tasks still get the result
                bill = self._bill(lambda _: None)
                result = self._result(failure, status, bill, finished_ns)
            self._host.on_end(state, bill, result)
            state.finish(result)

    def so_far(self, error: ChatError) -> Result:
        """Return a result with everything known so far, and the error of a caller that stopped waiting."""
        self._annotate(error)
        ended = self.state.result
        finished_ns = ended.timings.finished_ns if ended is not None and ended.timings is not None else None
        return self._result(error, self.state.status, self._bill(self._host.price), finished_ns)

    def _on_grant(self) -> None:
        """Let a worker run a task that waited for its slot."""
        self._stop_watching()
        self.is_waiting = False
        if self._slot is not None:
            self._slot.on_grant = None  # once only: a paused slot is granted again
        try:
            self._host.spawn(self)
        except RuntimeError:  # the block has been left
            self.give_up()

    def _on_deadline(self) -> None:
        """End a task whose deadline passed before it got a slot."""
        deadline = self._prepared.deadline
        if self.is_waiting and deadline is not None:
            self.end(deadline._replace(phase="queue").error(self._last_failure()))

    def _stop_watching(self) -> None:
        if self._alarm is not None:
            self._host.alarms.remove(self._alarm)
            self._alarm = None

    def _interruption(self, *, timed_out: bool) -> ChatError:
        """Return the error of a task that was stopped: by `stop`, its deadline, `cancel`, or from outside."""
        if self._stopped_by is not None:
            return self._stopped_by
        deadline = self._prepared.deadline
        if not timed_out or self.state.cancel_requested or deadline is None or anyio.current_time() < deadline.at:
            return TaskCancelledError("the task was cancelled")
        if self.state.started_ns is None:
            deadline = deadline._replace(phase="queue")
        return deadline.error(self._last_failure())

    def _annotate(self, error: ChatError) -> None:
        error.partial_text = error.partial_text or self.state.text
        if self._calls is not None:
            self._calls.request.annotate(error)

    def _last_failure(self) -> Exception | None:
        """Return the error of the task's last failed request; without one, the reason why the server counts as down."""
        if self._calls is None:
            return self._host.core.limiter.outage
        return self._calls.request.last_failure()

    def _report(self, result: Result) -> None:
        failure, calls, observed = result.exception, self._calls, self._prepared.observed
        if observed is not None:
            completion = None if calls is None else calls.completion
            sent_ns, token_ns = (None, ()) if calls is None else (calls.sent_ns, calls.token_ns)
            observed.end(failure, completion, usage=result.usage, sent_ns=sent_ns, token_ns=token_ns)
        if isinstance(failure, ChatError) and failure.phase is not None:
            _log.info("%s: deadline passed in phase %s: %s", self.state.id, failure.phase, failure)
        _log.debug("%s: %s after %.3f s", self.state.id, result.status, result.duration_seconds)

    def _bill(self, price: Price) -> Bill:
        calls = self._calls
        if calls is None:
            return NO_BILL
        return bill_for(calls.charged, self._prepared.model, self._host.core.base_url, price)

    def _result(self, failure: Exception | None, status: TaskStatus, bill: Bill, finished_ns: int | None) -> Result:
        if failure is not None:
            without_frames(failure)
        return result_of(self._prepared, self.state, self._calls, bill, failure, status, finished_ns)
