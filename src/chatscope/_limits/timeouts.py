"""Timeouts and deadlines: how long each phase of a call may take, and the `APITimeoutError` when one passes.

Here: every deadline of a call, as a cancel scope. Not here: the silence of a connection, which the transport times, and
reading or sending.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self, TypeAlias

import anyio

from chatscope._validation import check_seconds
from chatscope.errors import APITimeoutError, ChatError, Phase

FINISH_GRACE: Final = 5.0
"""How long a stream may stay silent after its finish_reason, in seconds, before it counts as complete. Usage and
[DONE] follow within milliseconds; some servers send neither and keep the connection open."""

DEADLINE_MARGIN: Final = 0.05
"""How long before the deadline a finished response counts as complete, in seconds: one without its usage is better
than a timeout."""

CLOSE_GRACE: Final = 2.0
"""How long closing a connection may take during cancellation, in seconds. Closing sends at most a TLS alert; a
transport that needs longer has lost its peer."""


class HTTPXTimeout(Protocol):
    """An `httpx.Timeout` or `httpx2.Timeout`. Only its `connect` and `read` are used."""

    connect: float | None
    read: float | None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each phase of a request may take, in seconds. `None` and infinity mean no limit.

    Args:
        connect: to open a connection, TLS included; `None` means the same as `read`.
        first_token: from sending the request to the model's first output.
        idle: between two parsed chunks; keep-alive comments do not count.
        total: everything: queueing, attempts and waits.
        read: without receiving a single byte. `timeout=60.0` sets this one.

    Raises:
        ValueError: a value is not a positive number; the error names the field.
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
    def of(cls, timeout: Timeout) -> Timeouts:
        """Return the timeouts for an argument `timeout=`.

        Of an `httpx.Timeout`, only `connect` and `read` are used: there is no pool to wait for, and `read` also bounds
        writes.

        Raises:
            ValueError: it is not a positive number of seconds.
        """
        if isinstance(timeout, Timeouts):
            return timeout
        if timeout is None or isinstance(timeout, int | float):
            check_seconds(timeout, "timeout")
            return cls(read=timeout)
        # Recognised by its attributes, because the openai package re-exports the class under its own module name.
        if not hasattr(timeout, "connect") or not hasattr(timeout, "read"):
            check_seconds(timeout, "timeout")
        return cls(connect=math.inf if timeout.connect is None else timeout.connect, read=timeout.read)

    def for_transport(self) -> dict[str, float | None]:
        """Return the value of `request.extensions["timeout"]` for an httpx transport."""
        read = _finite(self.read)
        return {
            "connect": read if self.connect is None else _finite(self.connect),
            "read": read,
            "write": read,
            "pool": read,
        }


Timeout: TypeAlias = float | Timeouts | HTTPXTimeout | None
"""The type of an argument `timeout=`."""


def _finite(seconds: float | None) -> float | None:
    return None if seconds == math.inf else seconds


class Deadline(NamedTuple):
    """A time by which something must be done.

    Attributes:
        at: when, on the event loop's clock.
        phase: the phase that must be over by then.
        seconds: how long the phase may take.
    """

    at: float
    phase: Phase
    seconds: float

    @property
    def finish_by(self) -> float:
        """When a response that may be whole counts as complete."""
        return self.at - DEADLINE_MARGIN

    def error(self, last_failure: BaseException | None = None) -> APITimeoutError:
        """Return the error for a deadline that has passed.

        Args:
            last_failure: the error of the last failed attempt; the message quotes it, and it becomes the cause.
        """
        message = _MESSAGES[self.phase].format(f"{self.seconds:g}")
        if last_failure is not None:
            reason = last_failure.message if isinstance(last_failure, ChatError) else str(last_failure)
            message += f"; last failure: {reason or type(last_failure).__name__}"
        error = APITimeoutError(message, phase=self.phase)
        error.__cause__ = last_failure
        return error


_MESSAGES: Final[dict[Phase, str]] = {
    "queue": "not started within {} s (queue)",
    "connect": "no connection within {} s (connect)",
    "headers": "no response within {} s (headers)",
    "first_token": "no token within {} s (first_token)",
    "idle": "nothing received for {} s (idle)",
    "total": "not finished within {} s (total)",
}


def transport_timeout(timeouts: Timeouts, phase: Phase) -> APITimeoutError:
    """Return the error for a timeout that the transport reported in that phase."""
    seconds = timeouts.connect if phase == "connect" and timeouts.connect is not None else timeouts.read
    return Deadline(0.0, phase, seconds or 0.0).error()


class CallDeadlines:
    """The deadlines of one call.

    Call `on_attempt` and `on_chunk` as it makes progress. They read the loop's clock only if a deadline needs it.

    Args:
        timeouts: those of the call, which starts now.

    Attributes:
        total: the deadline of the whole call.
        limits_chunks: whether any deadline applies to the wait for the next chunk.
    """

    __slots__ = ("_attempt_at", "_chunk_at", "limits_chunks", "timeouts", "total")

    def __init__(self, timeouts: Timeouts) -> None:
        self.timeouts = timeouts
        seconds = timeouts.total
        self.total = Deadline(anyio.current_time() + seconds, "total", seconds) if seconds else None
        self.limits_chunks = bool(timeouts.idle or seconds)
        self._attempt_at = 0.0
        self._chunk_at = 0.0

    def on_attempt(self) -> Deadline | None:
        """Record that a request is about to be sent; return the deadline for the model's first output."""
        if not self.timeouts.first_token:
            return None
        self._attempt_at = anyio.current_time()
        return self.first_token()

    def on_chunk(self) -> None:
        """Record that a chunk was parsed."""
        if self.timeouts.idle:
            self._chunk_at = anyio.current_time()

    @property
    def queue(self) -> Deadline | None:
        """The deadline of the whole call, while the call waits for a slot."""
        return self.total._replace(phase="queue") if self.total else None

    def first_token(self) -> Deadline | None:
        """Return the deadline for the model's first output in this attempt."""
        seconds = self.timeouts.first_token
        return Deadline(self._attempt_at + seconds, "first_token", seconds) if seconds else None

    def next_chunk(self) -> Deadline | None:
        """Return the deadline for the next chunk: its own, or the whole call's if that is sooner."""
        seconds = self.timeouts.idle
        return _sooner(Deadline(self._chunk_at + seconds, "idle", seconds) if seconds else None, self.total)


def _sooner(one: Deadline | None, other: Deadline | None) -> Deadline | None:
    return min(one, other) if one and other else one or other


class fail_at:  # noqa: N801 - reads as the statement that it is used in
    """A block that must end by a deadline: `with fail_at(deadline): ...`. Without a deadline, no scope is entered.

    Cancellation from outside passes through. Only the deadline's own cancellation becomes an error.

    Args:
        deadline: when the block must end.
        last_failure: returns the error of the last failed attempt, to be quoted.

    Raises:
        APITimeoutError: the deadline passed.
    """

    __slots__ = ("_deadline", "_last_failure", "_scope")

    def __init__(
        self, deadline: Deadline | None, last_failure: Callable[[], BaseException | None] | None = None
    ) -> None:
        self._deadline = deadline
        self._last_failure = last_failure
        self._scope: anyio.CancelScope | None = None

    def __enter__(self) -> Self:
        if self._deadline is not None:
            self._scope = anyio.CancelScope(deadline=self._deadline.at)
            self._scope.__enter__()
        return self

    def move(self, deadline: Deadline | None) -> None:
        """Replace the deadline; the block must have been entered with one."""
        if self._scope is not None and deadline is not None:
            self._deadline = deadline
            self._scope.deadline = deadline.at

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if self._scope is None or self._deadline is None:
            return None
        swallowed = self._scope.__exit__(kind, error, trace)
        if self._scope.cancelled_caught:
            raise self._deadline.error(None if self._last_failure is None else self._last_failure())
        return swallowed


NO_DEADLINE: Final = fail_at(None)
"""A block without a deadline: with none, the object holds nothing, so that all such blocks can share it."""
