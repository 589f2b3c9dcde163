"""What can go wrong, as one tree. Only exception classes live here; who raises them decides when.

::

    ChatError
    ├── APIConnectionError            no connection, or it broke before the reply
    │   └── APITimeoutError           a deadline passed; `phase` says which
    ├── APIStatusError                the server answered with an error status
    │   ├── BadRequestError           400
    │   ├── AuthenticationError       401
    │   ├── PermissionDeniedError     403
    │   ├── NotFoundError             404
    │   ├── ConflictError             409
    │   ├── UnprocessableEntityError  422
    │   ├── RateLimitError            429: wait and try again
    │   │   └── QuotaExceededError    a quota or spend limit: waiting does not help
    │   └── InternalServerError       5xx
    ├── StreamError                   the reply began and did not end well
    │   ├── StreamTruncatedError      it stopped before its end
    │   ├── StreamProtocolError       it held something that is no chat stream
    │   └── StreamServerError         it held an error object
    ├── InvalidResponseError          a success status with a body that is no completion
    ├── OutputError                   a whole reply that is not the type that was asked for
    │   ├── OutputTruncatedError      it was cut at the token limit
    │   ├── OutputRefusedError        the model refused, or its reply was filtered
    │   └── OutputInvalidError        it is something else
    ├── ToolError                     about the calling of functions
    │   ├── ToolLoopError             the model called functions until no turn was left
    │   └── ToolTimeoutError          a function took longer than it may
    └── TaskError                     about a task, not about a request
        ├── QueueFullError            as many wait already as may
        ├── BudgetExceededError       the tasks before have used up what may be spent
        ├── TaskCancelledError        the task was cancelled
        ├── ResultTimeoutError        `get_result` stopped waiting; the task goes on
        └── UnknownTaskError          no task has this id (any more)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

Phase = Literal["queue", "connect", "headers", "first_token", "idle", "total"]
"""The stretch of a task in which a deadline can pass."""


class ChatError(Exception):
    """The root of every error that chatscope raises on purpose.

    Each attribute is there if it is known, otherwise `None`, and the partial text `""`.

    Attributes:
        message: what happened, in one sentence.
        status: the HTTP status, or the status that an error object inside a stream carries.
        code, type, param: as the server's error object names them.
        request_id: the server's `x-request-id`.
        body: the error body, decoded if it was JSON, as text if it was not; of a longer one, its first 64 KiB.
        phase: which deadline passed.
        attempts: how many requests had been sent when this was raised.
        partial_text: the text that had arrived.
        retry_after: how long the server asks to wait, in seconds.
        should_retry: the server's `x-should-retry` header.
        not_retried: why an error that could have been retried was not.
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

    @property
    def status_code(self) -> int | None:
        """`status`, by the name that httpx and the openai package use."""
        return self.status

    def __str__(self) -> str:
        return f"{self.message} (not retried: {self.not_retried})" if self.not_retried else self.message


class APIConnectionError(ChatError):
    """The server could not be reached, or the connection broke before the reply."""


class APITimeoutError(APIConnectionError):
    """A deadline passed; `phase` names it."""


class APIStatusError(ChatError):
    """The server answered with an error status."""


class BadRequestError(APIStatusError):
    """400: the server did not accept the request."""


class AuthenticationError(APIStatusError):
    """401: the key is missing or wrong."""


class PermissionDeniedError(APIStatusError):
    """403: the key may not do this."""


class NotFoundError(APIStatusError):
    """404: no such model or path."""


class ConflictError(APIStatusError):
    """409: the server asks to try again."""


class UnprocessableEntityError(APIStatusError):
    """422: the request is well formed and cannot be served."""


class RateLimitError(APIStatusError):
    """429: too many requests or tokens."""


class QuotaExceededError(RateLimitError):
    """A quota, a balance or a spend limit is used up; no retry helps."""


class InternalServerError(APIStatusError):
    """5xx: the server failed."""


class StreamError(ChatError):
    """A reply began and did not end well; `partial_text` holds what had arrived."""


class StreamTruncatedError(StreamError):
    """The stream stopped before its end."""


class StreamProtocolError(StreamError):
    """The stream held something that is neither a chunk nor its end."""


class StreamServerError(StreamError):
    """The server reported an error inside a stream that had begun with success."""


class InvalidResponseError(ChatError):
    """A success status came with a body that is no completion."""


class OutputError(ChatError):
    """A whole reply came that is not the type that was asked for; `partial_text` holds its text. It is never retried.

    Attributes:
        completion: the reply (a `Completion`), with the usage of all turns.
    """

    def __init__(self, message: str = "", *, completion: Any = None) -> None:
        super().__init__(message)
        self.completion = completion
        if completion is not None:
            self.partial_text = completion.text
            self.request_id = completion.request_id


class OutputTruncatedError(OutputError):
    """The response was cut at the token limit."""


class OutputRefusedError(OutputError):
    """The model refused to reply, or the server filtered what it said."""


class OutputInvalidError(OutputError):
    """The reply does not fit the type."""


class ToolError(ChatError):
    """About the calling of functions."""


class ToolLoopError(ToolError):
    """The model called functions until no turn was left.

    Attributes:
        messages: the conversation so far; the last message is the model's, with the calls that were not made.
    """

    def __init__(self, message: str = "", *, messages: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.messages = messages


class ToolTimeoutError(ToolError):
    """A function took longer than it may."""


class TaskError(ChatError):
    """About a task rather than about a request."""


class QueueFullError(TaskError):
    """As many calls wait already as may; this one was not accepted."""


class BudgetExceededError(TaskError):
    """The adapter's tasks have used up its `max_cost` or `max_total_tokens`; this one was stopped or not begun."""


class TaskCancelledError(TaskError):
    """The task was cancelled before it ended; `partial_text` holds what had arrived."""


class ResultTimeoutError(TaskError):
    """`get_result` waited as long as it was allowed to; the task itself goes on."""


class UnknownTaskError(TaskError):
    """No task has this id, or it was finished and forgotten."""


QUOTA_CODES: Final = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
    }
)
"""Error codes of the endpoint that stay until somebody pays or a month ends."""

_BY_STATUS: Final[dict[int, type[APIStatusError]]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: QuotaExceededError,  # "Payment Required": DeepSeek and OpenRouter send it for an empty balance
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


def status_error_class(status: int, code: str | None = None, type: str | None = None) -> type[APIStatusError]:  # noqa: A002 - as above
    """Return the class for an error status, quota codes told apart from rate limits."""
    if code in QUOTA_CODES or type in QUOTA_CODES:
        return QuotaExceededError
    if status >= 500:
        return InternalServerError
    return _BY_STATUS.get(status, APIStatusError)
