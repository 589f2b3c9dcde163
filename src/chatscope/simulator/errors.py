"""Error objects in the shapes that servers use, and the HTTP responses that carry them.

Sources: the error bodies of the OpenAI API and of the servers named beside the shapes. Not here: why a request is
refused (`request`, `limits`, `endpoint`), and how errors appear inside a stream (`faults`).
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Any

import msgspec

from chatscope.simulator.plan import Part, Response

TYPES = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    403: "invalid_request_error",
    404: "invalid_request_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "requests",
}
"""The `type` that the OpenAI API uses for a status. All others are server errors."""

HTML = b"<!DOCTYPE html>\n<html><head><title>Gateway</title></head><body><h1>Please sign in</h1></body></html>\n"


class ErrorShape(Enum):
    """How a server spells an error as JSON."""

    NESTED = "nested"
    """`{"error": {"message", "type", "param", "code"}}`: OpenAI."""
    INT_CODE = "int-code"
    """The same with the status as `code`: vLLM, OpenRouter."""
    FLAT = "flat"
    """`{"object": "error", "message", "type", "param", "code"}`: older vLLM."""
    STRING = "string"
    """`{"error": "text"}`: Ollama."""
    DETAIL = "detail"
    """`{"detail": "text"}`: FastAPI servers."""
    NULL_CHOICES = "null-choices"
    """A chunk with an `error` and `choices: null`: OpenRouter."""
    IN_CHUNK = "in-chunk"
    """A chunk with an `error` and a choice that finishes with "error": OpenRouter."""


def error_object(
    shape: ErrorShape,
    status: int,
    message: str,
    *,
    kind: str | None = None,
    code: str | None = None,
    param: str | None = None,
) -> dict[str, Any]:
    """Return an error as the JSON object that a server of this shape sends."""
    error_type = kind or TYPES.get(status, "server_error")
    nested = {"message": message, "type": error_type, "param": param, "code": code}
    chunk = {"id": "gen-simulated", "object": "chat.completion.chunk", "created": 0, "model": "simulated"}
    match shape:
        case ErrorShape.NESTED:
            return {"error": nested}
        case ErrorShape.INT_CODE:
            return {"error": {**nested, "code": status}}
        case ErrorShape.FLAT:
            return {"object": "error", **nested, "code": status}
        case ErrorShape.STRING:
            return {"error": message}
        case ErrorShape.DETAIL:
            return {"detail": message}
        case ErrorShape.NULL_CHOICES:
            return {**chunk, "choices": None, "error": {"message": message, "code": status}}
        case ErrorShape.IN_CHUNK:
            choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
            return {**chunk, "choices": [choice], "error": {"message": message, "code": status}}


def respond(
    status: int, body: bytes = b"", content_type: str = "application/json", headers: tuple[tuple[str, str], ...] = ()
) -> Response:
    """Return a response with any status, body, content type and additional headers."""
    return Response(status, (("content-type", content_type), *headers), (Part(body),) if body else ())


def html(status: int = 200) -> Response:
    """Return an HTML page of the kind that captive portals and gateways send."""
    return respond(status, HTML, "text/html; charset=utf-8")


def error(
    status: int,
    message: str | None = None,
    *,
    kind: str | None = None,
    code: str | None = None,
    param: str | None = None,
    shape: ErrorShape = ErrorShape.NESTED,
    retry_after: float | None = None,
    headers: tuple[tuple[str, str], ...] = (),
) -> Response:
    """Return an error response.

    Args:
        status: The HTTP status.
        message: The message. By default, a sentence that names the status.
        kind: The error's `type`. By default, the one that OpenAI uses with this status.
        code: The error's `code`.
        param: The error's `param`, the name of the offending parameter.
        shape: The shape of the body.
        retry_after: Seconds to put into `retry-after` (rounded up) and `retry-after-ms` (rounded up to a millisecond).
        headers: More headers.
    """
    text = f"The simulator was told to answer with status {status}." if message is None else message
    if retry_after is not None:
        # Rounded first to a thousandth of a millisecond: 0.07 s is 70 ms, although 0.07 * 1000 exceeds 70.
        milliseconds = math.ceil(round(retry_after * 1000, 3))
        headers = (
            ("retry-after", str(math.ceil(milliseconds / 1000))),
            ("retry-after-ms", str(milliseconds)),
            *headers,
        )
    body = error_object(shape, status, text, kind=kind, code=code, param=param)
    return respond(status, msgspec.json.encode(body), headers=headers)
