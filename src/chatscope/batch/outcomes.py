"""How the outcome of a request is written: as one line, in the format of OpenAI's Batch API or as the input record.

Additional values are in the object `chatscope`, which other tools ignore. Not here: how a line is read again
(`records`), and the body of a response (`bodies`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from chatscope import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ChatError,
    Completion,
    InvalidResponseError,
    OutputError,
    Result,
    StreamProtocolError,
    StreamServerError,
    StreamTruncatedError,
)
from chatscope.batch.bodies import body_of
from chatscope.batch.progress import first_token_seconds, is_unpriced
from chatscope.batch.records import INVALID_LINE, RECORD
from chatscope.batch.requests import BatchRequest

_CODES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (APITimeoutError, "request_timeout"),
    (APIConnectionError, "connection_error"),
    (StreamTruncatedError, "stream_truncated"),
    (StreamProtocolError, "stream_invalid"),
    (StreamServerError, "stream_error"),
    (InvalidResponseError, "response_invalid"),
    (APIStatusError, "response_invalid"),
    (OutputError, "output_invalid"),
    (ValueError, "invalid_request"),
)
"""The `error.code` of an exception: that of the first class that matches."""

_OUTCOME: Final = ("output", "parsed", "usage", "cost", "error")
_RESERVED: Final = frozenset({*_OUTCOME, "chatscope"})

_encode: Final = msgspec.json.Encoder(enc_hook=str).encode


class LineResponse(msgspec.Struct, gc=False):
    """The `response` of a line. The body of a success is the completion in the format of an unstreamed response."""

    status_code: int
    request_id: str
    body: Any


class LineFacts(msgspec.Struct, gc=False, omit_defaults=True, kw_only=True):
    """The values that chatscope adds to a line."""

    key: str
    source: str
    line: int
    attempts: int
    duration_seconds: float
    first_token_seconds: float | None
    cost_usd: float | None
    run: str
    request: Any = None
    """Of a failure: `chatscope batch failed` prints it, whatever became of the input."""
    status_code: int | None = None
    format: str | None = None
    unpriced: bool = False
    """Of a failure: it used tokens, and what they cost is not known."""
    finish_reason: str | None = None
    """In the format `record`, where there is no other place for it."""
    body: Any = None
    """In the format `record`: a response that is more than the text in `output`, such as one of tool calls."""


class OutcomeLine(msgspec.Struct, gc=False):
    """A line in the format of OpenAI's Batch API."""

    id: str
    custom_id: str
    response: LineResponse | None
    error: Any
    chatscope: LineFacts


class RequestOutcome(msgspec.Struct, frozen=True, gc=False):
    """The record of one request.

    Attributes:
        line: the recorded line.
        error_class: the kind of failure: the HTTP status, or the error's code. `None` for a success.
        message: what went wrong.
        first_token_seconds: the time to the first token, if the response was streamed.
    """

    line: bytes
    error_class: str | None = None
    message: str = ""
    first_token_seconds: float | None = None


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
    key, first_token = request.key.hex(), first_token_seconds(result)
    facts = LineFacts(
        key=key,
        source=request.source.hex(),
        line=request.number,
        attempts=result.attempts,
        duration_seconds=int(result.duration_seconds * 1e6) / 1e6,  # a tenth of the work of rounding
        first_token_seconds=first_token,
        cost_usd=result.cost,
        run=run_id,
    )
    error_class = None
    if result.success:
        response, error = None if as_record else _response(result), None
    else:
        response, error = _failure(result.exception, result)
        error_class = str(error["code"] if error is not None else response and response.status_code)
        facts.unpriced = is_unpriced(result)
        if request.source_task is None:
            facts.request = request.body
    if not as_record:
        line = OutcomeLine(f"batch_req_{key[:24]}", request.custom_id, response, error, facts)
        return RequestOutcome(_written(line), error_class, result.error or "", first_token)
    if response is not None:
        facts.status_code = response.status_code
        error = {"code": error_class, "message": result.error}
    facts.format, facts.finish_reason = RECORD, result.finish_reason
    if result.success and result.completion is not None and not _is_one_text(result.completion, result.output):
        facts.body = body_of(result.completion)
    record = _columns(request) | _record_outcome(result, error, parsed) | {"chatscope": facts}
    return RequestOutcome(_written(record), error_class, result.error or "", first_token)


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


def _is_one_text(completion: Completion, output: str) -> bool:
    message = completion.choices[0].message if len(completion.choices) == 1 else None
    return message is not None and message.content == output and not message.tool_calls


def _columns(request: BatchRequest) -> dict[str, Any]:
    """Return the input's columns. One whose name the output needs gets the prefix `input_`."""
    record = request.record if request.record is not None else {"body": request.body}
    columns: dict[str, Any] = {}
    for name, value in record.items():
        column = name
        if name in _RESERVED or (name == "custom_id" and value is not None and str(value) != request.custom_id):
            column = f"input_{name}"
            while column in record:  # such as in the output of an earlier batch
                column = f"input_{column}"
        columns[column] = value
    return columns | {"custom_id": request.custom_id}


def _record_outcome(result: Result, error: dict[str, Any] | None, parsed: object) -> dict[str, Any]:
    return {
        "output": result.output if result.success else None,
        "parsed": result.parsed if parsed is None else parsed,
        "usage": result.usage,
        "cost": result.cost,
        "error": error,
    }


def _written(line: OutcomeLine | dict[str, Any]) -> bytes:
    """Return a line as JSON. The outcome has been paid for, so values that JSON cannot hold are replaced."""
    try:
        return _encode(line) + b"\n"
    except (UnicodeEncodeError, TypeError, ValueError):
        return (
            _encode(_plain(msgspec.to_builtins(line, enc_hook=str) if isinstance(line, OutcomeLine) else line)) + b"\n"
        )


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


def _response(result: Result) -> LineResponse:
    completion = result.completion
    if completion is None:
        return LineResponse(200, "", {})
    return LineResponse(200, completion.request_id or "", body_of(completion))


def _failure(error: Exception | None, result: Result) -> tuple[LineResponse | None, dict[str, Any] | None]:
    """Return `response` and `error` of a failure. A server's refusal is a response; any other failure is an error.

    A redirect, and an error object under a success status, are errors too: other tools take neither status for a
    failure.
    """
    message = str(error) or type(error).__name__
    if isinstance(error, APIStatusError) and error.status is not None and error.status >= 400:
        body = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
        if isinstance(error.body, Mapping) and isinstance(error.body.get("error"), Mapping):
            body |= error.body["error"]
        return LineResponse(error.status, error.request_id or "", {"error": body}), None
    code = next((code for kind, code in _CODES if isinstance(error, kind)), "error")
    details: dict[str, Any] = {"code": code, "message": message}
    if isinstance(error, ChatError) and error.status is not None:
        details["status_code"] = error.status
    if result.output:
        details["partial_text"] = result.output
    return None, details
