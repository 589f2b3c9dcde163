"""Rows: error responses. Every status that HTTP or a server uses, every shape of an error body, and headers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from typing import Any

from tests.faults.rows import Row, Via, completes, fails, on_one_loop, wire
from tests.support.defaults import BRIEF, TEXT

from chatscope import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    UnprocessableEntityError,
)
from chatscope.simulator import Close, ErrorShape, Reply, Response, Stall, error, html, respond

STATUSES = (400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 425, 429, 451, 499, 500, 502, 503, 504, 524, 529, 599)
"""One for each class and each decision, those in no standard among them; `test_errors.py` has every status."""

CLASSES: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: QuotaExceededError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}

TRIED_AGAIN = {408, 409, 425, 429}


def refused(name: str, response: Response, **more: Any) -> Row:
    """Return the row of an error response, which its status alone decides."""
    status = response.status
    error_class = InternalServerError if status >= 500 else CLASSES.get(status, APIStatusError)
    attempts = 2 if status in TRIED_AGAIN or status >= 500 else 1
    return fails(name, response, error_class, status, attempts=attempts, **more)


EVERY_STATUS = [refused(f"{status}", error(status), says=f"HTTP {status}") for status in STATUSES]

ANOTHER_WAY = [
    refused(f"{status}, {via.value}", error(status), via=via)
    for status in (400, 401, 429, 503)
    for via in (Via.PLAIN_TASK, Via.STREAM, Via.COMPLETE)
]

NOT_FOLLOWED = [
    fails(
        f"{status} to another place",
        respond(status, headers=(("location", "http://127.0.0.1:9/"),)),
        APIStatusError,
        status,
    )
    for status in (300, 301, 302, 303, 304, 307, 308)
]


def body(
    name: str, data: bytes, kind: str = "application/json", says: str = "", statuses: Iterable[int] = (400,)
) -> Iterator[Row]:
    """Yield the rows of an error body."""
    for status in statuses:
        yield refused(f"{status} with {name}", respond(status, data, kind), says=says or f"HTTP {status}")


VALIDATION = json.dumps({"detail": [{"loc": ["body", "messages"], "msg": "field required"}]}).encode()

BODIES = [
    *(
        refused(f"{status} with a body like {shape.value}", error(status, "Out of luck.", shape=shape), says=says)
        for shape in ErrorShape
        for status, says in ((400, "Out of luck."), (500, "Out of luck."))
    ),
    *body("a list of details", VALIDATION, says="field required"),
    *body("a page for people", html().content, "text/html", says="Please sign in"),
    *body("plain text", b"upstream connect error", "text/plain", says="upstream connect error"),
    *body("plain text that is no UTF-8", b"caf\xe9", "text/plain", says="caf\ufffd"),
    *body("nothing", b"", statuses=(400, 503)),
    *body("white space", b" \r\n\r\n "),
    *body("half of a JSON object", b'{"error": {"message": "Out of', says="Out of", statuses=(400, 503)),
    *body("a JSON list", b'[{"error": "Out of luck."}]', says="Out of luck."),
    *body("JSON null", b"null", says="null"),
    *body("an error that is null", b'{"error": null}'),
    *body("an error that is a list", b'{"error": ["Out of luck."]}'),
    *body("an error that is a number", b'{"error": 7}'),
    *body("a message that is an object", b'{"error": {"message": {"text": "Out of luck."}}}', says="Out of luck."),
    *body("a code that is no status", b'{"error": {"message": "no", "code": 1234567}}', says="no"),
    *body("JSON a thousand levels deep", b'{"error":' * 10_000, says='{"error":'),
    *body("10 MB of text", b"luck " * 2_000_000, "text/plain", says="luck luck"),
    *body("10 MB of JSON", b'{"error": {"message": "%b"}}' % (b"x" * 10_000_000)),
    refused("400 with a page instead of a body", html(400), says="Please sign in"),
    refused("400 without a reason phrase", Response(400, reason=""), says="HTTP 400"),
    refused("400 in gzip", respond(400, gzip.compress(b'{"error": "luck"}'), headers=(("content-encoding", "gzip"),))),
    refused("400 in broken gzip", respond(400, b"no gzip", headers=(("content-encoding", "gzip"),))),
    refused("400 in a coding that nobody knows", respond(400, b"??", headers=(("content-encoding", "exotic"),))),
]

CUT_BODIES = [
    fails(
        "400, closed within its body",
        wire(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 100\r\n\r\nOut of", Close()),
        BadRequestError,
        400,
        says="Out of",
    ),
    fails(
        "400, silent within its body",
        wire(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 100\r\n\r\nOut of", Stall()),
        BadRequestError,
        400,
        says="Out of",
        timeouts=BRIEF,
    ),
    fails(
        "400 in broken chunks",
        wire(b"HTTP/1.1 400 Bad Request\r\ntransfer-encoding: chunked\r\n\r\n6\r\nOut of\r\nluck", Close()),
        BadRequestError,
        400,
    ),
]

QUOTAS = [
    fails(
        f"429 for good: {code}",
        error(429, code=code),
        QuotaExceededError,
        429,
    )
    for code in (
        "insufficient_quota",
        "billing_hard_limit_reached",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
    )
] + [
    fails("429 for good, told by its type", error(429, kind="insufficient_quota"), QuotaExceededError, 429),
    fails("403 for want of a quota", error(403, code="insufficient_quota"), QuotaExceededError, 403),
    fails(
        "a quota, though the server says to try again",
        error(429, code="insufficient_quota", headers=(("x-should-retry", "true"),)),
        QuotaExceededError,
        429,
    ),
]


def ordered(status: int, value: str) -> Response:
    """Return an error that says itself whether to try again."""
    return error(status, headers=(("x-should-retry", value),))


def asking(**headers: str) -> list[Response | Reply]:
    """Return an error that asks for a wait, and the response after it."""
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return [error(503, headers=named), Reply(TEXT)]


ORDERS = [
    fails("400, to be tried again", ordered(400, "true"), BadRequestError, 400, attempts=2),
    fails("500, not to be tried again", ordered(500, "false"), InternalServerError, 500),
    fails("429, not to be tried again", ordered(429, "FALSE"), RateLimitError, 429),
    refused("503 with an order that is none", ordered(503, "perhaps")),
    completes("retry-after-ms", asking(retry_after_ms="10"), attempts=2),
    completes("retry-after in fractions", asking(retry_after="0.01"), attempts=2),
    completes("retry-after of zero", asking(retry_after="0"), attempts=2),
    completes("retry-after below zero", asking(retry_after="-5"), attempts=2),
    completes("retry-after in the past", asking(retry_after="Wed, 21 Oct 2015 07:28:00 GMT"), attempts=2),
    completes("retry-after that is nonsense", asking(retry_after="soon"), attempts=2),
    completes("retry-after that is no number", asking(retry_after="nan"), attempts=2),
    completes("retry-after without end", asking(retry_after="inf"), attempts=2),
    completes(
        "retry-after under another name",
        [error(429, headers=(("llm_provider-retry-after", "0.01"),)), Reply(TEXT)],
        attempts=2,
    ),
    fails("retry-after above the limit", error(429, retry_after=121), RateLimitError, 429, says="not retried"),
    fails(
        "retry-after beyond the deadline",
        error(429, retry_after=60),
        RateLimitError,
        429,
        says="would pass the deadline",
        deadline=30.0,
    ),
]

FIELD_ERRORS = [
    fails("400 for a wrong key", error(400, "Invalid API key"), BadRequestError, 400, says="Invalid API key"),
    fails("408 called invalid", error(408, kind="invalid_request_error"), APIStatusError, 408, attempts=2),
    refused("500 for what will never be valid", error(500, "Requested tokens exceed context window")),
    completes(
        "include_usage refused with 400",
        [error(400, "Unknown field: stream_options.include_usage"), Reply(TEXT)],
        attempts=2,
    ),
    completes(
        "stream_options refused with 422",
        [respond(422, b'{"detail": [{"loc": ["body", "stream_options"], "type": "extra_forbidden"}]}'), Reply(TEXT)],
        attempts=2,
    ),
    fails(
        "include_usage refused, then something else",
        [error(400, "stream_options is not supported"), error(400, "nor is this")],
        BadRequestError,
        400,
        attempts=2,
        says="nor is this",
    ),
    fails(
        "stream_options blamed though left out",
        error(400, "stream_options is not supported"),
        BadRequestError,
        400,
        attempts=2,
    ),
]

WITH_STATUS = set(ErrorShape) - {ErrorShape.STRING, ErrorShape.DETAIL}

ERRORS_IN_SUCCESS = [
    fails(
        f"plain, 200 with an error like {shape.value}",
        respond(200, error(400, "Out of luck.", shape=shape).content),
        BadRequestError if shape in WITH_STATUS else APIStatusError,
        400 if shape in WITH_STATUS else 200,
        via=Via.COMPLETE,
        says="Out of luck.",
    )
    for shape in ErrorShape
    if shape is not ErrorShape.DETAIL
] + [
    fails("plain, 200 with details", respond(200, VALIDATION), APIStatusError, 200, via=Via.COMPLETE),
]

ROWS = [
    *on_one_loop(
        *EVERY_STATUS,
        *ANOTHER_WAY,
        *NOT_FOLLOWED,
        *BODIES,
        *QUOTAS,
        *ORDERS,
        *FIELD_ERRORS,
        *ERRORS_IN_SUCCESS,
    ),
    *CUT_BODIES,
]
