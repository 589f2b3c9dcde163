"""A user's observer behind a guard: nothing that it raises or returns can affect a call, a slot or a connection.

All other packages see an observer only through these wrappers, which implement the protocols of `observer.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from chatscope._validation import check_headers
from chatscope.protocol.messages import SentMessage
from chatscope.protocol.response import Completion
from chatscope.protocol.usage import Usage
from chatscope.telemetry.guard import Guard, GuardedBlock
from chatscope.telemetry.observer import ObservedAttempt, ObservedCall, Observer


class GuardedObserver:
    """An `Observer` that never raises.

    Args:
        observer: the user's.
    """

    __slots__ = ("_guard", "_observer")

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._guard = Guard()

    def call(
        self,
        model: str,
        messages: Sequence[SentMessage],
        parameters: Mapping[str, Any],
        *,
        stream: bool,
        address: str,
        port: int,
    ) -> GuardedCall | None:
        """Prepare the observation of a call. Return `None` if the observer raised."""
        call = self._guard.call(
            "telemetry's call()",
            None,
            lambda: self._observer.call(model, messages, parameters, stream=stream, address=address, port=port),
        )
        return None if call is None else GuardedCall(self._guard, call)


class GuardedCall:
    """An `ObservedCall` that never raises."""

    __slots__ = ("_call", "_guard")

    def __init__(self, guard: Guard, call: ObservedCall) -> None:
        self._guard = guard
        self._call = call

    def start(self) -> None:
        """Report that the call starts."""
        self._guard.call("telemetry's start()", None, lambda: self._call.start())  # noqa: PLW0108 - looked up inside the guard

    def current(self) -> AbstractContextManager[object]:
        """Return a block in which the call is current."""
        return GuardedBlock(self._guard, "telemetry's current()", lambda: self._call.current())  # noqa: PLW0108 - looked up inside the guard

    def permit_acquired(self) -> None:
        """Report that the call may be sent."""
        self._guard.call("telemetry's permit_acquired()", None, lambda: self._call.permit_acquired())  # noqa: PLW0108 - looked up inside the guard

    def attempt(self, failed: int) -> GuardedAttempt:
        """Begin an attempt."""
        attempt = self._guard.call("telemetry's attempt()", None, lambda: self._call.attempt(failed))
        return GuardedAttempt(self._guard, attempt)

    def end(
        self,
        error: BaseException | None,
        completion: Completion | None,
        *,
        usage: Usage | None = None,
        sent_ns: int | None = None,
        token_ns: Sequence[int] = (),
    ) -> None:
        """Report the end of the call."""
        self._guard.call(
            "telemetry's end()",
            None,
            lambda: self._call.end(error, completion, usage=usage, sent_ns=sent_ns, token_ns=token_ns),
        )


class GuardedAttempt:
    """An `ObservedAttempt` that never raises. If the user's observer returned no attempt, it does nothing.

    Attributes:
        headers: the headers that the user's attempt adds to the request; empty if they cannot be sent.
    """

    __slots__ = ("_attempt", "_guard", "headers")

    def __init__(self, guard: Guard, attempt: ObservedAttempt | None) -> None:
        self._guard = guard
        self._attempt = attempt
        none: dict[str, str] = {}
        self.headers = none if attempt is None else guard.call("telemetry's headers", none, _headers, attempt)

    def current(self) -> AbstractContextManager[object]:
        """Return a block in which the attempt is current."""
        attempt = self._attempt
        make = None if attempt is None else lambda: attempt.current()  # noqa: PLW0108 - looked up inside the guard
        return GuardedBlock(self._guard, "telemetry's attempt.current()", make)

    def on_response(self, status: int, request_id: str | None) -> None:
        """Report the headers of a success."""
        if (attempt := self._attempt) is not None:
            self._guard.call("telemetry's on_response()", None, lambda: attempt.on_response(status, request_id))

    def end(self, error: BaseException | None) -> None:
        """Report the end of the attempt."""
        if (attempt := self._attempt) is not None:
            self._guard.call("telemetry's attempt.end()", None, lambda: attempt.end(error))


def _headers(attempt: ObservedAttempt) -> dict[str, str]:
    headers = dict(attempt.headers)
    check_headers(headers, "telemetry's headers")
    return headers
