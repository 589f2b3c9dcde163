"""Clock: the time by which a client's limits count, across all event-loop runs in which the client is used.

Here: time that continues from one run to the next. Not here: the deadlines of calls, which belong to a single run.
"""

from __future__ import annotations

from time import monotonic

import anyio
from anyio.lowlevel import RunVar

_run: RunVar[object] = RunVar("chatscope_run")


class Clock:
    """The event loop's time while a client is open. Between two runs of event loops, real time passes.

    Each run counts from a different time, which trio chooses at random. Pauses, budgets and outages outlive a run.
    """

    __slots__ = ("_offset", "_stopped")

    def __init__(self) -> None:
        self._offset = 0.0
        self._stopped: tuple[object, float, float] | None = None

    def now(self) -> float:
        """Return the current time, in seconds."""
        return anyio.current_time() + self._offset

    def stop(self) -> None:
        """Record that the client is closed. It may be opened again, in this run or in another."""
        self._stopped = (_current_run(), self.now(), monotonic())

    def start(self) -> None:
        """Continue after `stop`, if it was called."""
        if self._stopped is not None:
            run, stopped_at, since = self._stopped
            if run is not _current_run():
                self._offset += stopped_at + monotonic() - since - self.now()


def _current_run() -> object:
    """Return an object that identifies the current run of an event loop."""
    run = _run.get(None)
    if run is None:
        run = object()
        _run.set(run)
    return run
