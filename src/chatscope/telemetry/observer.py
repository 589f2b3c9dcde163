"""The protocol of an observer: what is reported to it, and when.

One call is one task, or one request of a `ChatClient`. Without an observer, `None` replaces the `ObservedCall`, so that
telemetry costs one comparison. Here: the protocols. Not here: the guard against observers that fail (`guarded`), and
the observer for OpenTelemetry (`otel`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, Self

from chatscope.protocol.messages import SentMessage
from chatscope.protocol.response import Completion
from chatscope.protocol.usage import Usage


class ObservedAttempt(Protocol):
    """One attempt of a call."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers to send in addition to the request's own."""
        ...

    def current(self) -> AbstractContextManager[object]:
        """Return a block in which the attempt is the parent of what other instrumentation reports."""
        ...

    def on_response(self, status: int, request_id: str | None) -> None:
        """The headers of a successful response arrived."""
        ...

    def end(self, error: BaseException | None) -> None:
        """The attempt ended, with an error or without."""
        ...


class ObservedCall(Protocol):
    """One call. `start` and `end` are each called once. Ignore all other calls before `start` and after `end`."""

    def start(self) -> None:
        """The call starts. It waits for a slot and a permit."""
        ...

    def current(self) -> AbstractContextManager[object]:
        """Return a block in which the call is the parent of what other instrumentation reports."""
        ...

    def permit_acquired(self) -> None:
        """The call may be sent. With retries, this is called more than once."""
        ...

    def attempt(self, failed: int) -> ObservedAttempt:
        """An attempt starts, after `failed` others."""
        ...

    def end(
        self,
        error: BaseException | None,
        completion: Completion | None,
        *,
        usage: Usage | None = None,
        sent_ns: int | None = None,
        token_ns: Sequence[int] = (),
    ) -> None:
        """The call ended.

        Args:
            error: why the call failed; `None` if it succeeded.
            completion: the response, or the part of it that was received.
            usage: the usage of all turns, if it differs from the completion's.
            sent_ns: when the last attempt was sent (`time.perf_counter_ns`).
            token_ns: when each chunk of a streamed response was read.
        """
        ...


class Observer(Protocol):
    """Observes the calls of a client."""

    def call(
        self,
        model: str,
        messages: Sequence[SentMessage],
        parameters: Mapping[str, Any],
        *,
        stream: bool,
        address: str,
        port: int,
    ) -> ObservedCall:
        """Prepare the observation of a call. The call has not started, and may never start."""
        ...


class observed:  # noqa: N801 - reads as the statement that it is used in
    """A block that lasts from the start of one call to its end: `with observed(call) as seen: ...`. `None` is free.

    Attributes:
        completion: the response, to be set within the block.
    """

    __slots__ = ("_call", "_current", "completion")

    def __init__(self, call: ObservedCall | None) -> None:
        self._call = call
        self._current: AbstractContextManager[object] | None = None
        self.completion: Completion | None = None

    def __enter__(self) -> Self:
        if self._call is not None:
            self._call.start()
            self._current = self._call.current()
            self._current.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._call is not None and self._current is not None:
            self._current.__exit__(None, None, None)
            self._call.end(error, self.completion)
