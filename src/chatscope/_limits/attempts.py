"""AttemptsLog: one record for each request that was sent for a call.

The code that sends a request starts and finishes its record. The code that decides on a retry records the wait. No
other code writes here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TypeAlias

import msgspec


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request that was sent for a task."""

    started_seconds: float
    """When it was sent, in seconds after the task was submitted."""
    duration_seconds: float
    """How long it took, or has taken so far if it is still running."""
    status: int | None
    """The HTTP status, if there was a response."""
    error: str | None
    """The class of the error it ended with; `None` if it succeeded or is still running."""
    request_id: str | None
    wait_seconds: float | None
    """How long the retry policy waited after it; `None` if it did not. The next attempt may have waited longer, or may
    not have been made."""


AttemptValues: TypeAlias = tuple[float, float, int | None, str | None, str | None, float | None]
"""The fields of an `Attempt`, in their order."""


class AttemptRecord(msgspec.Struct, gc=False):
    """The record of one request, while it is being written. Times are by `time.perf_counter`.

    Attributes:
        started, finished: when it was sent, and when it ended.
        status, request_id: the response's, once its headers have arrived.
        error: the class of the error it ended with.
        wait_seconds: how long the retry policy waited after it.
    """

    started: float
    finished: float | None = None
    status: int | None = None
    request_id: str | None = None
    error: str | None = None
    wait_seconds: float | None = None

    def finish(self, error: BaseException | None) -> None:
        """Record the end of the request. Only the first end counts."""
        if self.finished is None:
            self.finished = time.perf_counter()
            self.error = None if error is None else type(error).__name__

    def values(self, zero: float) -> AttemptValues:
        """Return the fields of an `Attempt`, whose times count from `zero`."""
        duration = (self.finished or time.perf_counter()) - self.started
        return self.started - zero, duration, self.status, self.error, self.request_id, self.wait_seconds


class AttemptsLog:
    """The records of all requests of one call or task, in the order in which they were sent.

    Args:
        zero: the time from which their times count, by `time.perf_counter`; default now.
    """

    __slots__ = ("_records", "_zero")

    def __init__(self, zero: float | None = None) -> None:
        self._zero = time.perf_counter() if zero is None else zero
        self._records: list[AttemptRecord] = []

    def __len__(self) -> int:
        return len(self._records)

    def start(self) -> AttemptRecord:
        """Start the record of a request that is being sent."""
        record = AttemptRecord(time.perf_counter())
        self._records.append(record)
        return record

    def set_wait(self, seconds: float | None) -> None:
        """Record the wait after the last request."""
        if self._records:
            self._records[-1].wait_seconds = seconds

    def values(self) -> tuple[AttemptValues, ...]:
        """Return the attempts so far: for each of them, the fields of an `Attempt`."""
        return tuple([record.values(self._zero) for record in self._records])
