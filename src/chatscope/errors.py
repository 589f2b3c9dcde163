"""Every error that chatscope raises on purpose, as one tree.

Here: the exception classes, and the way out of a group of exceptions. Not here: when they are raised.

::

    ChatError
    ├── APIConnectionError            no connection, or it broke before the response
    │   └── APITimeoutError           a deadline passed; `phase` names it
    ├── APIStatusError                a response with an error status
    │   ├── BadRequestError           400
    │   ├── AuthenticationError       401
    │   ├── PermissionDeniedError     403
    │   ├── NotFoundError             404
    │   ├── ConflictError             409
    │   ├── UnprocessableEntityError  422
    │   ├── RateLimitError            429: too many requests or tokens
    │   │   └── QuotaExceededError    a quota, balance or spend limit; no retry helps
    │   └── InternalServerError       5xx
    ├── StreamError                   a stream began but did not end well
    │   ├── StreamTruncatedError      it stopped before its end
    │   ├── StreamProtocolError       it contained something that is not a chunk
    │   └── StreamServerError         it contained an error object
    ├── InvalidResponseError          a response that is not HTTP, or not a completion
    ├── OutputError                   a complete response that is not of the requested type
    │   ├── OutputTruncatedError      it was cut off at the token limit
    │   ├── OutputRefusedError        the model refused, or its output was filtered
    │   └── OutputInvalidError        it is something else
    ├── ToolError                     a problem with tool calls
    │   ├── ToolLoopError             the model called tools until no turn was left
    │   └── ToolTimeoutError          a tool took too long
    └── TaskError                     a problem with a task, not with a request
        ├── QueueFullError            the queue of waiting tasks is full
        ├── BudgetExceededError       the adapter's budget is exhausted
        ├── TaskCancelledError        the task was cancelled
        ├── ResultTimeoutError        `get_result` stopped waiting; the task continues
        └── UnknownTaskError          no task has this id (any more)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

Phase = Literal["queue", "connect", "headers", "first_token", "idle", "total"]
"""The phases of a task in which a deadline can pass."""


class ChatError(Exception):
    """The root of every error that chatscope raises on purpose.

    An attribute whose value is not known is `None`; `partial_text` is then empty.

    Attributes:
        message: what happened, in one sentence.
        status: the HTTP status, or the status of an error object inside a stream.
        code, type, param: as in the server's error object.
        request_id: the server's `x-request-id`.
        body: the first 64 KiB of the error body: decoded if it is JSON, otherwise as text.
        phase: the deadline that passed.
        attempts: how many requests had been sent when this was raised.
        partial_text: the text received so far.
        retry_after: how long the server asks to wait, in seconds.
        should_retry: whether a retry can help, if known: from the server's `x-should-retry` header, or from what
            the error means. It overrides the status.
        not_retried: why an error that is usually retried was not.
        where: the request that failed, such as `POST http://localhost:8000/v1/chat/completions`, without user,
            password and query. If the response was neither JSON nor a stream, its type follows.
        hint: what may be wrong with the address.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        code: str | None = None,
        type: str | None = None,  # noqa: A002 - the endpoint's own name for it
        param: str | None = None,
        request_id: str | None = None,
        body: object = None,
        phase: Phase | None = None,
        partial_text: str = "",
        retry_after: float | None = None,
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.type = type
        self.param = param
        self.request_id = request_id
        self.body = body
        self.phase = phase
        self.attempts = 0
        self.partial_text = partial_text
        self.retry_after = retry_after
        self.should_retry = should_retry
        self.not_retried: str | None = None
        self.where: str | None = None
        self.hint: str | None = None

    @property
    def status_code(self) -> int | None:
        """The same as `status`, under the name that httpx and the openai package use."""
        return self.status

    def __str__(self) -> str:
        not_retried = f"not retried: {self.not_retried}" if self.not_retried else None
        details = "; ".join(filter(None, (self.where, self.hint, not_retried)))
        return f"{self.message} ({details})" if details else self.message


class APIConnectionError(ChatError):
    """The server could not be reached, or the connection broke before the response."""


class APITimeoutError(APIConnectionError):
    """A deadline passed; `phase` names it."""


class APIStatusError(ChatError):
    """The server responded with an error status."""


class BadRequestError(APIStatusError):
    """400: the server rejects the request."""


class AuthenticationError(APIStatusError):
    """401: the key is missing or wrong."""


class PermissionDeniedError(APIStatusError):
    """403: the key does not allow this."""


class NotFoundError(APIStatusError):
    """404: the model or the path does not exist."""


class ConflictError(APIStatusError):
    """409: the server asks to try again."""


class UnprocessableEntityError(APIStatusError):
    """422: the request is well formed but cannot be processed."""


class RateLimitError(APIStatusError):
    """429: too many requests or tokens."""


class QuotaExceededError(RateLimitError):
    """A quota, a balance or a spend limit is exhausted. No retry helps."""


class InternalServerError(APIStatusError):
    """5xx: the server failed."""


class StreamError(ChatError):
    """A stream began but did not end well; `partial_text` holds what was received."""


class StreamTruncatedError(StreamError):
    """The stream stopped before its end."""


class StreamProtocolError(StreamError):
    """The stream contained something that is neither a chunk nor its end."""


class StreamServerError(StreamError):
    """The server reported an error inside a stream whose status was a success."""


class InvalidResponseError(ChatError):
    """The response is not HTTP, or has a success status and a body that is not a completion."""


class OutputError(ChatError):
    """A complete response is not of the requested type; `partial_text` holds its text. This is never retried.

    Attributes:
        completion: the response (a `Completion`), with the usage of all turns.
    """

    def __init__(self, message: str = "", *, completion: Any = None) -> None:
        super().__init__(message)
        self.completion = completion
        if completion is not None:
            self.partial_text = completion.text
            self.request_id = completion.request_id


class OutputTruncatedError(OutputError):
    """The output was cut off at the token limit."""


class OutputRefusedError(OutputError):
    """The model refused to respond, or its output was filtered."""


class OutputInvalidError(OutputError):
    """The output does not fit the type."""


class ToolError(ChatError):
    """A problem with tool calls."""


class ToolLoopError(ToolError):
    """The model called tools until no turn was left.

    Attributes:
        messages: the conversation so far. The last message is the model's, with the tool calls that were not made.
    """

    def __init__(self, message: str = "", *, messages: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.messages = messages


class ToolTimeoutError(ToolError):
    """A tool took longer than allowed."""


class TaskError(ChatError):
    """A problem with a task, not with a request."""


class QueueFullError(TaskError):
    """The queue is full: this call was not accepted."""


class BudgetExceededError(TaskError):
    """The adapter's `max_cost` or `max_total_tokens` is exhausted: this task was stopped, or never started."""


class TaskCancelledError(TaskError):
    """The task was cancelled; `partial_text` holds what was received."""


class ResultTimeoutError(TaskError):
    """`get_result` stopped waiting; the task itself continues."""


class UnknownTaskError(TaskError):
    """No task has this id, or it has been forgotten."""


def first_in(error: Exception) -> Exception:
    """Return the first exception in a group, however deeply it is nested; an exception that is no group itself."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
