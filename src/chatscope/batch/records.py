"""Lines of the output: how an outcome is written, and what a line says when it is read again.

The shape is that of OpenAI's Batch API. Our own facts are in the object `chatscope`, which other tools ignore.
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
"""What `error.code` says, by the first class that fits."""

_PERMANENT_CODES: Final = frozenset({INVALID_LINE, "invalid_request", "output_invalid"})
_PASSING: Final = frozenset({401, 402, 403, 408, 409, 425, 429})
"""Refusals below 500 that say nothing against the request: a key, an account, a limit, or a moment."""

_encode: Final = msgspec.json.Encoder(enc_hook=str).encode


class RecordedError(msgspec.Struct, kw_only=True, gc=False):
    """The `error` of a line."""

    code: str | None = None
    message: str | None = None


class RecordedResponse(msgspec.Struct, kw_only=True, gc=False):
    """The `response` of a line, without its body."""

    status_code: int | None = None


class RecordedFacts(msgspec.Struct, kw_only=True, gc=False):
    """What chatscope adds to a line, as far as a resumed run needs it."""

    key: str = ""
    source: str = ""
    cost_usd: float | None = None


class RecordedLine(msgspec.Struct, kw_only=True, gc=False):
    """What a recorded line says, without the bodies: enough to resume, to count, and to tell failures apart.

    vLLM's lines fit as well: there, `error` may be a text, and `response.body` null.
    """

    custom_id: str
    response: RecordedResponse | None = None
    error: RecordedError | str | None = None
    chatscope: RecordedFacts = msgspec.field(default_factory=RecordedFacts)

    @property
    def failed(self) -> bool:
        """Whether it records a failure."""
        return self.error is not None or (
            self.response is not None and self.response.status_code is not None and self.response.status_code >= 400
        )

    @property
    def error_class(self) -> str:
        """What kind of failure it is: the HTTP status, or the error's code."""
        if isinstance(self.error, RecordedError):
            return self.error.code or "error"
        if self.error is not None:
            return "error"
        return str(self.response.status_code) if self.response is not None else "error"

    @property
    def is_permanent(self) -> bool:
        """Whether the same request would fail again."""
        if self.error is not None:
            return isinstance(self.error, RecordedError) and self.error.code in _PERMANENT_CODES
        status = self.response.status_code if self.response is not None else None
        return status is not None and 400 <= status < 500 and status not in _PASSING


decode_line: Final = msgspec.json.Decoder(RecordedLine).decode


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """What is recorded of one request.

    Attributes:
        line: the recorded line.
        error_class: the kind of failure: the HTTP status, or the error's code. `None` for a success.
        message: what went wrong.
    """

    line: bytes
    error_class: str | None = None
    message: str = ""


def outcome_of(request: BatchRequest, result: Result, run_id: str, *, as_record: bool) -> RequestOutcome:
    """Return what is recorded of a request that has ended.

    Args:
        request: the request.
        result: what became of it.
        run_id: names the run.
        as_record: write the input record with its output, not the lines of OpenAI's Batch API.
    """
    facts = {
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
    if as_record:
        line = _record_line(request, result, response, error)
    else:
        line = {
            "id": f"batch_req_{request.key.hex()[:24]}",
            "custom_id": request.custom_id,
            "response": response,
            "error": error,
        }
    return RequestOutcome(_encode(line | {"chatscope": facts}) + b"\n", error_class, result.error or "")


def invalid_line(custom_id: str, key: bytes, number: int, message: str, run_id: str) -> bytes:
    """Return the line that records a row which cannot become a request."""
    error = {"code": INVALID_LINE, "message": f"line {number}: {message}"}
    facts = {"key": key.hex(), "line": number, "attempts": 0, "cost_usd": 0.0, "run": run_id}
    line = {"id": f"batch_req_{key.hex()[:24]}", "custom_id": custom_id, "response": None, "error": error}
    return _encode(line | {"chatscope": facts}) + b"\n"


def copied_line(line: bytes, request: BatchRequest) -> bytes:
    """Return the recorded line of an equal request under another id; it cost nothing more."""
    copied = msgspec.json.decode(line)
    facts = copied["chatscope"] | {
        "line": request.number,
        "source": request.source.hex(),
        "cost_usd": 0.0,
        "copied_from": copied["custom_id"],
    }
    return _encode(copied | (request.record or {}) | {"custom_id": request.custom_id, "chatscope": facts}) + b"\n"


def _record_line(
    request: BatchRequest, result: Result, response: dict[str, Any] | None, error: dict[str, Any] | None
) -> dict[str, Any]:
    line: dict[str, Any] = dict(request.record) if request.record is not None else {"body": request.body}
    line["custom_id"] = request.custom_id
    line["output"] = result.output if result.success else None
    line["parsed"] = result.parsed
    line["usage"] = result.usage
    line["cost"] = result.cost
    if error is None and not result.success and response is not None:
        error = {"code": str(response["status_code"]), "message": result.error}
        line["response"] = {"status_code": response["status_code"]}
    line["error"] = error
    return line


def _response(result: Result) -> dict[str, Any]:
    """Return the `response` of a success: the body is the completion as an unstreamed response would have it."""
    completion = result.completion
    body = completion.to_dict() if completion is not None else {}
    return {"status_code": 200, "request_id": result.metadata.get("request_id") or "", "body": body}


def _failure(error: Exception | None, result: Result) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return `response` and `error` of a failure: a server's refusal is a response, all else an error."""
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
