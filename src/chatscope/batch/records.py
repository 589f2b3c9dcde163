"""Recorded lines as they are read again: enough to resume, and to count. Not here: how they are written (`outcomes`).

The format is that of OpenAI's Batch API. Additional values are in the object `chatscope`, which other tools ignore.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

INVALID_LINE: Final = "invalid_line"
"""The code of a row that cannot become a request."""

_PERMANENT_CODES: Final = frozenset({INVALID_LINE, "invalid_request", "output_invalid"})
_PASSING: Final = frozenset({401, 402, 403, 408, 409, 425, 429})
"""Statuses below 500 that do not mean that the request is wrong: they concern a key, an account, a limit or timing."""

RECORD: Final = "record"
"""The value of `chatscope.format` in a line that is an input record with its output."""


class RecordedError(msgspec.Struct, kw_only=True, gc=False):
    """The `error` of a line."""

    code: str | int | None = None
    """In vLLM's lines, it is the HTTP status."""
    error: Any = None
    """In newer lines of vLLM, the error itself."""


class RecordedResponse(msgspec.Struct, kw_only=True, gc=False):
    """The `response` of a line, without its body."""

    status_code: Any = None
    """In the format `record` it is part of a column of the input, and of any type."""


class RecordedFacts(msgspec.Struct, kw_only=True, gc=False):
    """The values that chatscope adds to a line and a resumed run needs."""

    key: str = ""
    source: str = ""
    cost_usd: float | None = None
    run: str = ""
    format: str = ""
    status_code: int | None = None
    unpriced: bool = False


class RecordedLine(msgspec.Struct, kw_only=True, gc=False):
    """A recorded line without the bodies: enough to resume, to count, and to distinguish failures.

    vLLM's lines can be read, too. In them, `error` may be a text, and `response.body` null.
    """

    custom_id: str
    response: RecordedResponse | str | float | bool | list[Any] | None = None
    """In the format `record` it is a column of the input, of any type."""
    error: RecordedError | str | None = None
    chatscope: RecordedFacts = msgspec.field(default_factory=RecordedFacts)

    @property
    def status(self) -> int | None:
        """The HTTP status, if there was a response."""
        if isinstance(self.response, RecordedResponse) and not self.chatscope.format:
            status: int | None = self.response.status_code
            return status
        return self.chatscope.status_code

    @property
    def failed(self) -> bool:
        """Whether it records a failure."""
        if self.error is not None:
            return True
        return self._is_refusal(self.status)

    @property
    def is_unpriced(self) -> bool:
        """Whether it cost something, and the cost is not known."""
        return self.chatscope.cost_usd is None and (self.chatscope.unpriced or not self.failed)

    @property
    def error_class(self) -> str:
        """What kind of failure it is: the HTTP status, or the error's code."""
        if self._is_refusal(status := self.status):
            return str(status)
        return str(self._code or "error")

    @property
    def _code(self) -> object:
        if not isinstance(self.error, RecordedError):
            return None
        inner = self.error.error
        return self.error.code or (inner.get("code") if isinstance(inner, dict) else None)

    @property
    def is_permanent(self) -> bool:
        """Whether the same request would fail again."""
        if (status := self.status) is not None and self._is_refusal(status):
            return 400 <= status < 500 and status not in _PASSING
        return isinstance(self.error, RecordedError) and self.error.code in _PERMANENT_CODES

    @staticmethod
    def _is_refusal(status: int | None) -> bool:
        return status is not None and status >= 300  # a redirect is no completion


_decode: Final = msgspec.json.Decoder(RecordedLine).decode


def decode_line(data: bytes) -> RecordedLine:
    """Parse a recorded line.

    Raises:
        MsgspecError, UnicodeDecodeError: it is not a record. A line of an input is not one: it has no outcome.
    """
    line = _decode(data)
    if line.response is None and line.error is None and not line.chatscope.key:
        raise msgspec.ValidationError("it has neither a response nor an error")
    if line.status is not None and type(line.status) is not int:
        raise msgspec.ValidationError("its status_code is not a number")
    return line


def is_record(data: bytes) -> bool:
    """Return whether a line is a recorded one."""
    try:
        decode_line(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
