"""StepStream: one reader's position in the turns of a task.

Between two steps it holds no cancel scope, task group or task, so a reader can stop anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

from chatscope._tasks.models import Result, TaskStatus
from chatscope.protocol.response import Completion


class StepLog(Protocol):
    """The part of a task's state that a reader of its steps needs."""

    @property
    def steps(self) -> Sequence[Completion]:
        """The completions of the turns so far."""
        ...

    @property
    def result(self) -> Result | None:
        """The result, once the task has ended."""
        ...

    async def wait_for_change(self) -> None:
        """Wait for more steps, text or the result."""


class StepStream:
    """The completions of a task's turns: first those that have arrived, then live. Made by `ChatTask.steps`.

    It ends with the task. A failed task raises its error after the steps that arrived; a cancelled one just ends. A
    reader may stop anywhere, and the task continues.
    """

    __slots__ = ("_log", "_position")

    def __init__(self, log: StepLog) -> None:
        self._log = log
        self._position = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Completion:
        """Return the next completion. If cancelled while waiting, none is lost: the next call returns it.

        Raises:
            Exception: the task's error.
        """
        log = self._log
        while True:
            if self._position < len(log.steps):
                self._position += 1
                return log.steps[self._position - 1]
            if (result := log.result) is not None:
                break
            await log.wait_for_change()
        if not self._position and result.success and result.completion is not None:
            self._position = 1
            return result.completion  # of a task of one turn, which is not kept twice
        if result.status is TaskStatus.FAILED:
            result.raise_for_error()
        raise StopAsyncIteration
