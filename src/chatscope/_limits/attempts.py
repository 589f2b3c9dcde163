"""AttemptsLog: one record for each request that was sent for a call.

The code that sends a request starts and finishes its record. The code that decides on a retry records the wait. No
other code writes here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec.structs import replace


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


class AttemptRecord(msgspec.Struct, gc=False):
    """The record of one request, while it is being written. Times are by `time.perf_counter_ns`.

    Attributes:
        sent_ns, finished_ns: when it was sent, and when it ended.
        written_ns, connect_ns: when it had been written, and how long connecting took, as far as the HTTP library
            reports that.
        headers_ns: when the headers of its response arrived.
        status, request_id: the response's, from then on.
        error: the class of the error it ended with.
        wait_seconds: how long the retry policy waited after it.
    """

    sent_ns: int | None
    written_ns: int | None = None
    connect_ns: int | None = None
    headers_ns: int | None = None
    finished_ns: int | None = None
    status: int | None = None
    request_id: str | None = None
    error: str | None = None
    wait_seconds: float | None = None

    def finish(self, error: BaseException | None) -> None:
        """Record the end of the request. Only the first end counts."""
        if self.finished_ns is None and self.sent_ns is not None:
            self.finished_ns = time.perf_counter_ns()
            self.error = None if error is None else type(error).__name__

    def so_far(self) -> AttemptRecord:
        """Return the record, or a copy that ends now of one that is still being written."""
        return self if self.finished_ns is not None else replace(self, finished_ns=time.perf_counter_ns())

    def attempt(self, zero_ns: int) -> Attempt:
        """Return the `Attempt`, whose times count from `zero_ns`."""
        sent_ns = self.sent_ns or zero_ns
        seconds = ((self.finished_ns or time.perf_counter_ns()) - sent_ns) / 1e9
        return Attempt((sent_ns - zero_ns) / 1e9, seconds, self.status, self.error, self.request_id, self.wait_seconds)


NOT_SENT: Final = AttemptRecord(None)
"""The record before the first request. Nothing is ever written to it."""


class AttemptsLog(msgspec.Struct, eq=False):
    """The records of all requests of one call or task, in the order in which they were sent."""

    records: list[AttemptRecord] = msgspec.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.records)

    def start(self) -> AttemptRecord:
        """Start the record of a request that is being sent."""
        record = AttemptRecord(time.perf_counter_ns())
        self.records.append(record)
        return record

    def set_wait(self, seconds: float | None) -> None:
        """Record the wait after the last request."""
        if self.records:
            self.records[-1].wait_seconds = seconds

    def so_far(self) -> tuple[AttemptRecord, ...]:
        """Return the records so far. What follows changes at most the wait after the last one."""
        return tuple([record.so_far() for record in self.records])
