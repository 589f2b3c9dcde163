"""What a call tells whoever observes it: the moments it passes, and nothing of how they are reported.

One call is one task, or one request of a `ChatClient`. Where nobody observes, its `Retrier` holds `None` instead of an
`ObservedCall`, and that test is all it costs. `telemetry` observes for OpenTelemetry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, Self

from chatscope.protocol.messages import Message
from chatscope.protocol.response import Completion
from chatscope.protocol.usage import Usage


class ObservedAttempt(Protocol):
    """One attempt, from its sending on."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What is to be sent besides the request's own headers."""
        ...

    def current(self) -> AbstractContextManager[object]:
        """Return a block in which the attempt is what instrumentation sees as its cause."""
        ...

    def on_response(self, status: int, request_id: str | None) -> None:
        """A reply of success began."""
        ...

    def end(self, error: BaseException | None) -> None:
        """Take note of the end, and of what went wrong."""
        ...


class ObservedCall(Protocol):
    """One call. `start` and `end` come once; what comes before the one or after the other is ignored."""

    def start(self) -> None:
        """The call begins, and waits for its turn."""
        ...

    def current(self) -> AbstractContextManager[object]:
        """Return a block in which the call is what instrumentation sees as its cause."""
        ...

    def permit_acquired(self) -> None:
        """It may be sent; of a call that is tried again, this comes more than once."""
        ...

    def attempt(self, failed: int) -> ObservedAttempt:
        """Begin an attempt, after so many that failed."""
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
        """Take note of the end.

        Args:
            error: what went wrong.
            completion: what came of it, as far as it came.
            usage: that of all turns, where it is not the completion's.
            sent_ns: when the last attempt was begun.
            token_ns: when each chunk of a streamed reply was read.
        """
        ...


class Observer(Protocol):
    """Whoever wants to know about a client's calls."""

    def call(
        self,
        model: str,
        messages: Sequence[Message],
        parameters: Mapping[str, Any],
        *,
        stream: bool,
        address: str,
        port: int,
    ) -> ObservedCall:
        """Prepare the observation of a call; it has not begun, and may never begin."""
        ...


class observed:  # noqa: N801 - reads as the statement that it is used in
    """A block that is one call from its start to its end: `with observed(call) as seen: ...`. `None` costs nothing.

    Attributes:
        completion: to be set to what came of it.
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
