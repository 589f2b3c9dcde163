"""One attempt at a model call: a request, the response so far, and whether the server may charge for it.

`model_call.py` decides when attempts are made, and which of two hedged attempts delivers.
"""

from __future__ import annotations

from chatscope._client.attempt_observer import AttemptObserver
from chatscope._client.completion import fetch
from chatscope._client.core import ClientCore
from chatscope._client.server import PreparedRequest
from chatscope._client.stream_reader import StreamReader
from chatscope._limits.attempts import NOT_SENT
from chatscope._limits.retry import Retrier
from chatscope._limits.timeouts import CallDeadlines
from chatscope._tasks.prepared import PreparedTask
from chatscope.errors import APITimeoutError, ChatError
from chatscope.protocol.response import Completion


class CallAttempt:
    """One request and the response so far. After `discard`, the same object makes the next attempt.

    Args:
        core: sends the request.
        prepared: the task.
        request: the request.
        retrier: records the request.
        charged: receives an entry for each attempt that the server may charge for: its response, as far as it arrived.

    Attributes:
        reader: reads a streamed response; `None` if the response is not streamed.
        request: the request.
    """

    __slots__ = ("_charged", "_finished", "reader", "request")

    def __init__(
        self,
        core: ClientCore,
        prepared: PreparedTask,
        request: PreparedRequest,
        retrier: Retrier,
        charged: list[Completion | None],
    ) -> None:
        self._charged = charged
        self._finished: Completion | None = None
        self.request = core.start(
            request,
            retrier,
            CallDeadlines(prepared.timeouts),
            prepared.observed,
            prepared.task.constraints.priority,
        )
        self.reader = StreamReader(self.request) if prepared.streams else None

    @property
    def completion(self) -> Completion | None:
        """The response so far; `None` until a response that is not streamed has arrived."""
        if self._finished is None and self.reader is not None:
            return self.reader.completion
        return self._finished

    @property
    def has_output(self) -> bool:
        """Whether the model has written anything."""
        return self.reader.has_output if self.reader is not None else self._finished is not None

    async def read(self, observer: AttemptObserver) -> Completion:
        """Send the request and read the response. The caller holds the permit. If cancelled, the connection is closed.

        Raises:
            ChatError: the response is not complete.
        """
        self.request.record = NOT_SENT
        try:
            if self.reader is not None:
                completion = self._finished = await self.reader.read_to_end(observer)
            else:
                completion = self._finished = await fetch(self.request, holds_permit=True)
                observer.on_text([text] if (text := completion.text) else [])
        except BaseException as error:
            if self._may_be_charged(error):
                self._charged.append(self.completion)
            raise
        self._charged.append(completion)
        return completion

    def discard(self) -> None:
        """Discard the response so far."""
        self._finished = None
        if self.reader is not None:
            self.reader.discard()

    def _may_be_charged(self, error: BaseException) -> bool:
        """Return whether the server may charge for an attempt that ended with an error.

        It may charge if the model has written anything, or if the client gave up while the server may have been
        working. It does not charge if it refused the request, or dropped it before any output.
        """
        if self.request.record.sent_ns is None:
            return False
        if self.has_output:
            return True
        if isinstance(error, APITimeoutError):
            return error.phase != "connect"
        return not isinstance(error, ChatError)
