"""CircuitBreaker: detects outages. After many consecutive failures, a server is sent only one request at a time.

Here: when a server counts as down, and when the next probe is due. Not here: waiting (`limiter`), and how many retries
are allowed while the server works (`retry_budget`).
"""

from __future__ import annotations

import logging
from typing import Final

from chatscope._limits.clock import Clock
from chatscope.errors import ChatError

DOWN_AFTER: Final = 10
"""Consecutive failures after which a server counts as down. At a failure rate of one half, the chance is 1 in 1000."""

PROBE_FIRST: Final = 1.0
PROBE_MOST: Final = 4.0
"""Seconds between two probes, the requests that test whether a server works again. The wait doubles from the first
value to the last, which bounds how late a recovery is noticed."""

_log: Final = logging.getLogger("chatscope.retry")


class CircuitBreaker:
    """Counts a server's consecutive failures, and spaces the probes while it is down.

    Args:
        name: the server's name in the log.
        clock: the clock by which the probes are spaced.

    Attributes:
        failures: the number of consecutive failures.
        last_failure: the error of the last one.
    """

    __slots__ = ("_clock", "_name", "_probe_at", "_probe_wait", "failures", "last_failure")

    def __init__(self, name: str, clock: Clock) -> None:
        self._clock = clock
        self._name = name
        self._probe_at = 0.0
        self._probe_wait = PROBE_FIRST
        self.failures = 0
        self.last_failure: ChatError | None = None

    @property
    def is_open(self) -> bool:
        """Whether the server counts as down."""
        return self.failures >= DOWN_AFTER

    def try_probe(self, now: float) -> float:
        """Take the next probe and return 0, or return the seconds until it is due."""
        wait = self._probe_at - now
        if wait <= 0:
            self._probe_at = now + self._probe_wait
            self._probe_wait = min(2 * self._probe_wait, PROBE_MOST)
        return max(wait, 0.0)

    def on_failure(self, error: ChatError) -> None:
        """Record that the server failed a request."""
        self.failures += 1
        self.last_failure = error
        if self.failures == DOWN_AFTER:
            words = "%s failed %d consecutive requests: only probes are sent until it works"
            _log.warning(words, self._name, DOWN_AFTER)
            self._probe_at = self._clock.now() + self._probe_wait

    def on_response(self) -> bool:
        """Record that the server works, even if it refused the request; return whether it was down."""
        was_open = self.is_open
        if was_open:
            _log.info("%s works again after %d consecutive failures", self._name, self.failures)
            self._probe_wait = PROBE_FIRST
        self.failures = 0
        self.last_failure = None
        return was_open
