"""Workers: coroutines of the root group that run one task after another. Starting one costs a fifth of a short task.

A worker that has nothing to run ends within a few checkpoints, so that no idle coroutine is kept. Not here: how a task
runs (`runner.py`), and when it may (`supervisor.py`).
"""

from __future__ import annotations

from contextvars import Context, copy_context
from functools import partial
from typing import Final, Protocol

import anyio.abc
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from chatscope.transport.streams import name_current_task

LINGER: Final = 3
"""How many checkpoints a worker waits for its next task. A loop that submits a task for each result needs one; `map`,
whose source and reader are tasks of their own, needs three."""

_MISSING: Final = object()


class WorkedRun(Protocol):
    """The part of a task's run that a worker needs."""

    context: Context | None
    """The context to run it in; `None` for the one that is current when it starts."""

    @property
    def name(self) -> str:
        """The worker's name while it runs the task."""
        ...

    async def run(self) -> None:
        """Run the task and publish its result."""

    def release(self) -> None:
        """Release the task's slot."""

    def give_up(self) -> None:
        """End the task as cancelled, instead of running it."""


class Workers:
    """The free workers of one root task group."""

    __slots__ = ("_free",)

    def __init__(self) -> None:
        self._free: dict[_Worker, None] = {}

    def start(self, group: anyio.abc.TaskGroup, run: WorkedRun) -> None:
        """Run a task: by a free worker whose context has the same values as the task's, or else by a new one.

        Raises:
            RuntimeError: the group is closed.
        """
        if self._free:
            worker = next(reversed(self._free))
            if _has_same_values(worker.context, run.context or copy_context()):
                del self._free[worker]
                worker.next = run
                return
        start = partial(group.start_soon, _Worker(self._free, run).work, name=run.name)
        if run.context is None:
            start()
        else:
            run.context.run(start)


class _Worker:
    """One worker.

    Attributes:
        next: the task to run next.
        context: a copy of its context, made after its last task: what the task has set is in it.
    """

    __slots__ = ("_free", "context", "next")

    def __init__(self, free: dict[_Worker, None], first: WorkedRun) -> None:
        self._free = free
        self.next: WorkedRun | None = first
        self.context = Context()

    async def work(self) -> None:
        """Run tasks until no next one comes. If cancelled, the task that runs and the next one end as cancelled."""
        try:
            await checkpoint_if_cancelled()  # cancelled in the tick that granted the slot: do not send
            while (run := self.next) is not None:
                self.next = None
                try:
                    await run.run()
                    self.context = copy_context()
                    self._free[self] = None
                finally:
                    run.release()  # to a waiting task, which is then the next one
                del run
                await self._wait_for_next()
        finally:
            self._free.pop(self, None)
            if self.next is not None:
                self.next.give_up()

    async def _wait_for_next(self) -> None:
        for _ in range(LINGER):
            await checkpoint()  # also if there is a next task: tasks that never wait must not block the event loop
            if self.next is not None:
                name_current_task(self.next.name)
                return
        del self._free[self]


def _has_same_values(one: Context, other: Context) -> bool:
    """Return whether two contexts have the same values, not only equal ones."""
    return len(one) == len(other) and all(other.get(variable, _MISSING) is value for variable, value in one.items())
