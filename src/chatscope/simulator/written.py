"""What a paced server wrote, and when: the record that a client's own times are compared with.

Not here: the server (`paced`).
"""

from __future__ import annotations

from typing import Final

import msgspec

MOST_LATE: Final = 0.002
"""Seconds by which writes may be late at p99. If they are later, the core cannot sustain the load."""


class WrittenResponse(msgspec.Struct):
    """When a request had arrived, and when each token of its response was passed to the operating system.

    Both are `time.perf_counter_ns`, a clock that all processes of a Linux machine share. There the kernel says when a
    request had arrived, however busy the server was.
    """

    arrived_ns: int
    token_ns: list[int] = []


class WrittenResponses(msgspec.Struct):
    """All responses by request id, and the seconds by which the server's writes were late."""

    responses: dict[str, WrittenResponse]
    tokens: int
    late_p50: float
    late_p99: float

    @property
    def held(self) -> bool:
        """Whether the server was on time."""
        return self.late_p99 <= MOST_LATE
