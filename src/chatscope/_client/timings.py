"""Timings: when things happened to a request or a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """When things happened to a task or request, by `time.perf_counter_ns`; `None` if they did not happen.

    Bytes are timed when they are read from the connection, not when the caller receives them.
    """

    submitted_ns: int
    started_ns: int | None = None
    """When its first permit was acquired."""
    sent_ns: int | None = None
    """When the last attempt was sent: connecting follows, if it is needed."""
    headers_ns: int | None = None
    token_ns: Sequence[int] = ()
    """For each chunk with output of the model, when it was read."""
    finished_ns: int | None = None
    written_ns: int | None = None
    """When the last attempt's request had been written; unknown with a transport other than chatscope's own."""
    connect_ns: int | None = None
    """How many nanoseconds connecting took for the last attempt, if a new connection was needed."""

    @property
    def queue_seconds(self) -> float | None:
        """How long it waited for its slot and its first permit."""
        return _between(self.submitted_ns, self.started_ns)

    @property
    def first_token_seconds(self) -> float | None:
        """The time to the first token, from when that attempt was sent."""
        return _between(self.sent_ns, self.token_ns[0]) if self.token_ns else None

    @property
    def inter_token_seconds(self) -> list[float]:
        """The time between one chunk and the next."""
        return [(after - before) / 1e9 for before, after in zip(self.token_ns, self.token_ns[1:], strict=False)]

    @property
    def total_seconds(self) -> float | None:
        """The time from submission to the end."""
        return _between(self.submitted_ns, self.finished_ns)


def _between(start: int | None, end: int | None) -> float | None:
    return None if start is None or end is None else (end - start) / 1e9
