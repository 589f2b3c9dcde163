"""Lines of the output: how an outcome is written, and how a line is read again.

The format is that of OpenAI's Batch API. Additional values are in the object `chatscope`, which other tools ignore.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from chatscope import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ChatError,
    InvalidResponseError,
    OutputError,
    Result,
    StreamProtocolError,
    StreamServerError,
    StreamTruncatedError,
)
from chatscope.batch.requests import BatchRequest

INVALID_LINE: Final = "invalid_line"
"""The code of a row that cannot become a request."""

_CODES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (APITimeoutError, "request_timeout"),
    (APIConnectionError, "connection_error"),
    (StreamTruncatedError, "stream_truncated"),
    (StreamProtocolError, "stream_invalid"),
    (StreamServerError, "stream_error"),
    (InvalidResponseError, "response_invalid"),
    (OutputError, "output_invalid"),
    (ValueError, "invalid_request"),
)
"""The `error.code` of an exception: that of the first class that matches."""

_PERMANENT_CODES: Final = frozenset({INVALID_LINE, "invalid_request", "output_invalid"})
_PASSING: Final = frozenset({401, 402, 403, 408, 409, 425, 429})
"""Statuses below 500 that do not mean that the request is wrong: they concern a key, an account, a limit or timing."""

RECORD: Final = "record"
"""The value of `chatscope.format` in a line that is an input record with its output."""

_OUTCOME: Final = ("output", "parsed", "usage", "cost", "error")
_RESERVED: Final = frozenset({*_OUTCOME, "chatscope"})

_encode: Final = msgspec.json.Encoder(enc_hook=str).encode


class RecordedError(msgspec.Struct, kw_only=True, gc=False):
    """The `error` of a line."""

    code: str | int | None = None
    """In vLLM's lines, it is the HTTP status."""


class RecordedResponse(msgspec.Struct, kw_only=True, gc=False):
    """The `response` of a line, without its body."""

    status_code: int | None = None


class RecordedFacts(msgspec.Struct, kw_only=True, gc=False):
    """The values that chatscope adds to a line and a resumed run needs."""

    key: str = ""
    source: str = ""
    cost_usd: float | None = None
    run: str = ""
    format: str = ""
    status_code: int | None = None


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
            return self.response.status_code
        return self.chatscope.status_code

    @property
    def failed(self) -> bool:
        """Whether it records a failure."""
        if self.error is not None:
            return True
        status = self.status
        return status is not None and status >= 400

    @property
    def error_class(self) -> str:
        """What kind of failure it is: the HTTP status, or the error's code."""
        if (status := self.status) is not None and status >= 400:
            return str(status)
        return str((self.error.code if isinstance(self.error, RecordedError) else None) or "error")

    @property
    def is_permanent(self) -> bool:
        """Whether the same request would fail again."""
        if (status := self.status) is not None and status >= 400:
            return status < 500 and status not in _PASSING
        return isinstance(self.error, RecordedError) and self.error.code in _PERMANENT_CODES


_decode: Final = msgspec.json.Decoder(RecordedLine).decode


def decode_line(data: bytes) -> RecordedLine:
    """Parse a recorded line.

    Raises:
        MsgspecError, UnicodeDecodeError: it is not a record. A line of an input is not one: it has no outcome.
    """
    line = _decode(data)
    if line.response is None and line.error is None and not line.chatscope.key:
        raise msgspec.ValidationError("it has neither a response nor an error")
    return line


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """The record of one request.

    Attributes:
        line: the recorded line.
        error_class: the kind of failure: the HTTP status, or the error's code. `None` for a success.
        message: what went wrong.
    """

    line: bytes
    error_class: str | None = None
    message: str = ""


def outcome_of(
    request: BatchRequest, result: Result, run_id: str, *, as_record: bool, parsed: object = None
) -> RequestOutcome:
    """Return the record of a request that has ended.

    Args:
        request: the request.
        result: its result.
        run_id: the name of the run.
        as_record: write the input record with its output, not the lines of OpenAI's Batch API.
        parsed: the output as the value that its schema describes.
    """
    facts: dict[str, Any] = {
        "key": request.key.hex(),
        "source": request.source.hex(),
        "line": request.number,
        "attempts": result.attempts,
        "duration_seconds": round(result.duration_seconds, 6),
        "first_token_seconds": result.timings.first_token_seconds if result.timings is not None else None,
        "cost_usd": result.cost,
        "run": run_id,
    }
    response, error = (_response(result), None) if result.success else _failure(result.exception, result)
    error_class = None
    if not result.success:
        error_class = str(error["code"] if error is not None else (response or {}).get("status_code"))
        if request.source_task is None:
            facts["request"] = request.body  # `chatscope batch failed` prints it, whatever became of the input
    if as_record:
        if response is not None and not result.success:
            facts["status_code"] = response["status_code"]
            error = {"code": error_class, "message": result.error}
        line = _columns(request) | _record_outcome(result, error, parsed)
        facts["format"] = RECORD
    else:
        line = {
            "id": f"batch_req_{request.key.hex()[:24]}",
            "custom_id": request.custom_id,
            "response": response,
            "error": error,
        }
    return RequestOutcome(_written(line | {"chatscope": facts}), error_class, result.error or "")


def invalid_line(custom_id: str, key: bytes, number: int, message: str, run_id: str) -> bytes:
    """Return the line that records a row which cannot become a request."""
    error = {"code": INVALID_LINE, "message": f"line {number}: {message}"}
    facts = {"key": key.hex(), "line": number, "attempts": 0, "cost_usd": 0.0, "run": run_id}
    line = {"id": f"batch_req_{key.hex()[:24]}", "custom_id": custom_id, "response": None, "error": error}
    return _written(line | {"chatscope": facts})


def copied_line(line: bytes, request: BatchRequest) -> bytes:
    """Return the recorded line of an equal request under another id, without further cost."""
    copied = msgspec.json.decode(line)
    facts = copied["chatscope"] | {
        "line": request.number,
        "source": request.source.hex(),
        "cost_usd": 0.0,
        "copied_from": copied["custom_id"],
    }
    if facts.get("format") == RECORD:
        outcome = {name: copied.get(name) for name in _OUTCOME} | {"cost": 0.0}
        return _written(_columns(request) | outcome | {"chatscope": facts})
    return _written(copied | {"custom_id": request.custom_id, "chatscope": facts})


def _columns(request: BatchRequest) -> dict[str, Any]:
    """Return the input's columns. One whose name the output needs gets the prefix `input_`."""
    record = request.record if request.record is not None else {"body": request.body}
    columns = {f"input_{name}" if name in _RESERVED else name: value for name, value in record.items()}
    return columns | {"custom_id": request.custom_id}


def _record_outcome(result: Result, error: dict[str, Any] | None, parsed: object) -> dict[str, Any]:
    return {
        "output": result.output if result.success else None,
        "parsed": result.parsed if parsed is None else parsed,
        "usage": result.usage,
        "cost": result.cost,
        "error": error,
    }


def _written(line: dict[str, Any]) -> bytes:
    """Return a line as JSON. The outcome has been paid for, so values that JSON cannot hold are replaced."""
    try:
        return _encode(line) + b"\n"
    except (UnicodeEncodeError, TypeError, ValueError):
        return _encode(_plain(line)) + b"\n"


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {_plain(str(name)): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    try:
        if not isinstance(value, str):
            return msgspec.to_builtins(value, enc_hook=str)
    except (TypeError, ValueError):
        value = str(value)
    return str(value).encode("utf-8", "replace").decode()  # a lone surrogate becomes a question mark


def _response(result: Result) -> dict[str, Any]:
    """Return the `response` of a success. The body is the completion in the format of an unstreamed response."""
    completion = result.completion
    body = completion.to_dict() if completion is not None else {}
    return {"status_code": 200, "request_id": result.metadata.get("request_id") or "", "body": body}


def _failure(error: Exception | None, result: Result) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return `response` and `error` of a failure. A server's refusal is a response; any other failure is an error."""
    message = str(error) or type(error).__name__
    if isinstance(error, APIStatusError) and error.status is not None:
        body = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
        if isinstance(error.body, Mapping) and isinstance(error.body.get("error"), Mapping):
            body |= error.body["error"]
        response = {"status_code": error.status, "request_id": error.request_id or "", "body": {"error": body}}
        return response, None
    code = next((code for kind, code in _CODES if isinstance(error, kind)), "error")
    details: dict[str, Any] = {"code": code, "message": message}
    if isinstance(error, ChatError) and error.status is not None:
        details["status_code"] = error.status
    if result.output:
        details["partial_text"] = result.output
    return None, details
