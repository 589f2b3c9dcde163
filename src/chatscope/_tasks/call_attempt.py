"""One attempt at a model call: a request, the response so far, and whether the server may charge for it.

`model_call.py` decides when attempts are made, and which of two hedged attempts delivers.
"""

from __future__ import annotations

from chatscope._client.completion import fetch
from chatscope._client.core import ClientCore
from chatscope._client.server import PreparedRequest
from chatscope._client.stream_reader import AttemptObserver, StreamReader
from chatscope._limits.retry import Retrier
from chatscope._limits.timeouts import CallDeadlines
from chatscope._tasks.prepared import PreparedTask
from chatscope.errors import APITimeoutError, ChatError
from chatscope.protocol.response import Completion


class CallAttempt:
    """One request and the response so far. After `discard`, the same object makes the next attempt.

    Attributes:
        model: the requested model.
        reader: reads a streamed response; `None` if the response is not streamed.
        request: the request.
    """

    __slots__ = ("_limiter", "_plain", "model", "reader", "request")

    def __init__(self, core: ClientCore, prepared: PreparedTask, request: PreparedRequest, retrier: Retrier) -> None:
        self.model = prepared.model
        self._limiter = core.limiter
        self.request = core.start(
            request,
            retrier,
            CallDeadlines(prepared.timeouts),
            observed=prepared.observed,
            priority=prepared.task.constraints.priority,
        )
        self.reader = StreamReader(self.request) if prepared.streams else None
        self._plain: Completion | None = None

    @property
    def completion(self) -> Completion | None:
        """The response so far."""
        return self.reader.completion if self.reader is not None else self._plain

    @property
    def has_output(self) -> bool:
        """Whether the model has written anything."""
        return self.reader.has_output if self.reader is not None else self._plain is not None

    @property
    def can_hedge(self) -> bool:
        """Whether a second attempt may run concurrently with this one."""
        return self._limiter.can_hedge

    def may_be_charged(self, error: BaseException) -> bool:
        """Return whether the server may charge for an attempt that ended with an error.

        It may if the model has written anything, or if the client gave up while the server may have been working. It
        does not if the server refused the request, or dropped it before any output.
        """
        if self.request.sent_ns is None:
            return False
        if self.has_output:
            return True
        if isinstance(error, APITimeoutError):
            return error.phase != "connect"
        return not isinstance(error, ChatError)

    async def read(self, observer: AttemptObserver) -> Completion:
        """Send the request and read the response. The caller holds the permit. If cancelled, the connection is closed.

        Raises:
            ChatError: the response is not complete.
        """
        if self.reader is not None:
            return await self.reader.read_to_end(observer)
        completion = self._plain = await fetch(self.request)
        observer.on_text([completion.text] if completion.text else [])
        return completion

    def discard(self) -> None:
        """Discard the response so far."""
        self._plain = None
        if self.reader is not None:
            self.reader.discard()
