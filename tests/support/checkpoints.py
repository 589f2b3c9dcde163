"""Counts the checkpoints that a tree of tasks passes, and does something at the nth of them.

A checkpoint is a suspension: a task of the tree gives the control back to the event loop. trio tells its instruments
about each; on asyncio (and uvloop) a task factory has every task run through a coroutine that counts. Whose tasks count
is told by a context variable, which a task inherits from the one that starts it: the server's don't.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

import outcome
import sniffio
import trio

_T = TypeVar("_T")


class Watch:
    """The checkpoints of one run of a scenario.

    Args:
        at: at which of them to act, 1 for the first.

    Attributes:
        seen: how many were passed.
        act: what to do there; it must not wait.
        acted: whether it came to that.
        delivered: whether a cancellation reached the scenario's own task after that.
    """

    def __init__(self, at: int) -> None:
        self.seen = 0
        self.act: Callable[[], object] = lambda: None
        self.acted = False
        self.delivered = False
        self._at = at

    def passed(self) -> None:
        """Take note of a checkpoint."""
        self.seen += 1
        if self.seen == self._at:
            self.acted = True
            if sniffio.current_async_library() == "trio":
                self.act()
            else:
                # Not within the task's own step: there, it would cancel itself. An eager task takes its first steps
                # before its maker knows it and can say what to do.
                asyncio.get_running_loop().call_soon(lambda: self.act())  # noqa: PLW0108 - looked up when it is called

    def watched(self, awaitable: Awaitable[_T]) -> Awaitable[_T]:
        """Return what awaits something in the scenario's own task and notices when a cancellation arrives there."""
        return _Noticing(awaitable, self)


WATCH: ContextVar[Watch | None] = ContextVar("WATCH", default=None)
"""Whose checkpoints the current task's are."""


class _Noticing(Generic[_T]):
    def __init__(self, awaitable: Awaitable[_T], watch: Watch) -> None:
        self._steps: Any = awaitable.__await__()
        self._watch = watch

    def __await__(self) -> Generator[Any, Any, _T]:
        step: Callable[[Any], Any] = self._steps.send
        argument: Any = None
        while True:
            try:
                trap = step(argument)
            except StopIteration as end:
                result: _T = end.value
                return result
            try:
                argument = yield trap
                step = self._steps.send
                # trio sends errors as values and raises them on the other side.
                if isinstance(argument, outcome.Error) and isinstance(argument.error, trio.Cancelled):
                    self._watch.delivered |= self._watch.acted
            except BaseException as error:  # noqa: BLE001 - it goes where it was thrown to
                self._watch.delivered |= self._watch.acted and isinstance(error, asyncio.CancelledError)
                argument, step = error, self._steps.throw


@contextmanager
def checkpoints_counted() -> Iterator[None]:
    """Have every task that has a watch report its checkpoints to it."""
    if sniffio.current_async_library() == "trio":
        instrument = _Instrument()
        trio.lowlevel.add_instrument(instrument)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(instrument)
        return
    loop = asyncio.get_running_loop()
    former = loop.get_task_factory()

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        reporting = _Reporting(coroutine)
        return asyncio.Task(reporting, loop=loop, **options) if former is None else former(loop, reporting, **options)

    loop.set_task_factory(make)
    try:
        yield
    finally:
        loop.set_task_factory(former)


class _Instrument(trio.abc.Instrument):
    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        watch = task.context.get(WATCH)
        if watch is not None and inspect.getcoroutinestate(task.coro) == inspect.CORO_SUSPENDED:
            watch.passed()


class _Reporting(Coroutine[Any, Any, Any]):
    """A task's coroutine, seen from the task; everything that asks about its state is told of the one inside."""

    def __init__(self, inner: Coroutine[Any, Any, Any]) -> None:
        self._inner = inner

    def send(self, value: Any) -> Any:
        return self._passed(self._inner.send(value))

    def throw(self, *error: Any) -> Any:
        return self._passed(self._inner.throw(*error))

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _passed(self, trap: Any) -> Any:
        if (watch := WATCH.get()) is not None:
            watch.passed()
        return trap
