"""How long things may take. Cancel scopes own every deadline; what passes it becomes an `APITimeoutError` here.

Nothing in here reads a connection: the caller says what it waits for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Final, NamedTuple, Self

import anyio

from chatscope._validation import check_seconds
from chatscope.errors import APITimeoutError, Phase

FINISH_GRACE: Final = 5.0
"""How long a stream may stay silent after its finish_reason, in seconds, before it counts as complete. Usage and
[DONE] follow within milliseconds; some servers send neither and keep the connection open."""

CLOSE_GRACE: Final = 2.0
"""How long closing a connection may take during cancellation, in seconds. Closing sends at most a TLS alert; a
transport that needs longer has lost its peer."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each phase of a request may take, in seconds; `None` or infinity is no limit.

    Args:
        connect: to open a connection, TLS included; `None` takes `read`.
        first_token: from the beginning of an attempt until the model's first output.
        idle: between two parsed chunks; keep-alive comments don't count.
        total: everything: queueing, attempts, waits.
        read: silence, no byte for that long. This is what `timeout=60.0` sets.

    Raises:
        ValueError: a value is not a positive number; it names the field.
    """

    connect: float | None = None
    first_token: float | None = None
    idle: float | None = None
    total: float | None = None
    read: float | None = 60.0

    def __post_init__(self) -> None:
        for item in fields(self):
            check_seconds(getattr(self, item.name), f"timeout.{item.name}")

    @classmethod
    def of(cls, timeout: float | Timeouts | None) -> Timeouts:
        """Return the timeouts that an argument `timeout=` means.

        Raises:
            ValueError: it is not a positive number.
        """
        if isinstance(timeout, Timeouts):
            return timeout
        check_seconds(timeout, "timeout")
        return cls(read=timeout)

    def for_transport(self) -> dict[str, float | None]:
        """Return what an httpx transport is told in `request.extensions["timeout"]`."""
        read = _finite(self.read)
        return {
            "connect": read if self.connect is None else _finite(self.connect),
            "read": read,
            "write": read,
            "pool": read,
        }


def _finite(seconds: float | None) -> float | None:
    return None if seconds == math.inf else seconds


class Deadline(NamedTuple):
    """A moment on the event loop's clock, the phase it ends, and the seconds it was set to."""

    at: float
    phase: Phase
    seconds: float

    def error(self) -> APITimeoutError:
        """Return the error for this limit having passed."""
        return APITimeoutError(_SAYS[self.phase].format(f"{self.seconds:g}"), phase=self.phase)


_SAYS: Final[dict[Phase, str]] = {
    "queue": "the task waited for its turn until its deadline of {} s passed (queue)",
    "connect": "no connection within {} s (connect)",
    "headers": "no reply to the request within {} s (headers)",
    "first_token": "no token within {} s (first_token)",
    "idle": "the stream fell silent for {} s (idle)",
    "total": "not finished within {} s (total)",
}


def transport_timeout(timeouts: Timeouts, phase: Phase) -> APITimeoutError:
    """Return the error for a transport that reported a timeout of its own in that phase."""
    seconds = timeouts.connect if phase == "connect" and timeouts.connect is not None else timeouts.read
    return Deadline(0.0, phase, seconds or 0.0).error()


class CallDeadlines:
    """The limits of one call: which of them is next, given how far the call has come.

    `on_attempt` and `on_chunk` tell it; both read the loop's clock only if a limit depends on it.
    """

    __slots__ = ("_attempt_at", "_began_at", "_chunk_at", "timeouts")

    def __init__(self, timeouts: Timeouts) -> None:
        self.timeouts = timeouts
        self._began_at = anyio.current_time() if timeouts.total else 0.0
        self._attempt_at = 0.0
        self._chunk_at = 0.0

    def on_attempt(self) -> None:
        """A request is about to be sent."""
        if self.timeouts.first_token:
            self._attempt_at = anyio.current_time()

    def on_chunk(self) -> None:
        """A chunk was parsed."""
        if self.timeouts.idle:
            self._chunk_at = anyio.current_time()

    @property
    def total(self) -> Deadline | None:
        """The limit of the whole call."""
        seconds = self.timeouts.total
        return Deadline(self._began_at + seconds, "total", seconds) if seconds else None

    @property
    def queue(self) -> Deadline | None:
        """The same, while the call waits for its slot."""
        return self.total._replace(phase="queue") if self.total else None

    def first_token(self) -> Deadline | None:
        """Return an attempt's own limit, until the model's first output."""
        seconds = self.timeouts.first_token
        return Deadline(self._attempt_at + seconds, "first_token", seconds) if seconds else None

    def next_chunk(self) -> Deadline | None:
        """Return the limit for the next chunk, the whole call's included."""
        seconds = self.timeouts.idle
        if seconds is None and self.timeouts.total is None:
            return None  # said first, as it is asked for every chunk and seldom otherwise
        return _sooner(Deadline(self._chunk_at + seconds, "idle", seconds) if seconds else None, self.total)


def _sooner(one: Deadline | None, other: Deadline | None) -> Deadline | None:
    return min(one, other) if one and other else one or other


class fail_at:  # noqa: N801 - reads as the statement that it is used in
    """A block that must end by a limit: `with fail_at(limit): ...`. No limit costs no scope.

    A cancellation from outside passes through untouched; only the limit's own becomes an error.

    Raises:
        APITimeoutError: the limit passed.
    """

    __slots__ = ("_limit", "_scope")

    def __init__(self, limit: Deadline | None) -> None:
        self._limit = limit
        self._scope: anyio.CancelScope | None = None

    def __enter__(self) -> Self:
        if self._limit is not None:
            self._scope = anyio.CancelScope(deadline=self._limit.at)
            self._scope.__enter__()
        return self

    def move(self, limit: Deadline | None) -> None:
        """Go on under another limit; the block must have been entered with one."""
        if self._scope is not None and limit is not None:
            self._limit = limit
            self._scope.deadline = limit.at

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if self._scope is None or self._limit is None:
            return None
        swallowed = self._scope.__exit__(kind, error, trace)
        if self._scope.cancelled_caught:
            raise self._limit.error()
        return swallowed
