"""Error replies, in all the shapes that servers give them, to typed errors."""

from __future__ import annotations

import json
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.tables import each_row

from chatscope.errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    QuotaExceededError,
    RateLimitError,
    StreamServerError,
    UnprocessableEntityError,
)
from chatscope.protocol.endpoint import Secret
from chatscope.protocol.error_body import BODY_LIMIT, body_text, is_error, redact, status_error, stream_server_error
from chatscope.protocol.error_codes import QUOTA_CODES

NOW = 1_700_000_000.0


def refusal(status: int, body: object, *, secret: str = "", **headers: str) -> APIStatusError:
    """Return the error for a reply; underscores in the headers' names stand for hyphens."""
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return status_error(
        status,
        httpx.Headers({name.replace("_", "-"): value for name, value in headers.items()}),
        raw,
        now=NOW,
        secret=secret,
    )


def test_the_endpoint_s_own_shape() -> None:
    body = {
        "error": {
            "message": "No such model.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }
    error = refusal(404, body, x_request_id="req_1")
    assert type(error) is NotFoundError
    assert str(error) == "HTTP 404: No such model."
    assert (error.status, error.type, error.param, error.code) == (
        404,
        "invalid_request_error",
        "model",
        "model_not_found",
    )
    assert error.request_id == "req_1"
    assert error.body == body
    assert error.retry_after is None
    assert error.should_retry is None


SHAPES: dict[str, tuple[object, str, str | None, str | None, str | None]] = {
    # body; message, code, type, param
    "older vLLM, flat": (
        {"object": "error", "message": "no", "type": "BadRequestError", "param": "n", "code": 400},
        "no",
        "400",
        "BadRequestError",
        "n",
    ),
    "Ollama": ({"error": "no"}, "no", None, None, None),
    "text with fields beside it": ({"error": "no", "type": "t", "code": "c"}, "no", "c", "t", None),
    "vLLM, OpenRouter: code as an integer": ({"error": {"message": "no", "code": 400}}, "no", "400", None, None),
    "OpenRouter with null fields": (
        {"error": {"message": "no", "code": None}, "choices": None},
        "no",
        None,
        None,
        None,
    ),
    "FastAPI": ({"detail": "no"}, "no", None, None, None),
    "FastAPI's validation": (
        {"detail": [{"loc": ["body", "n"], "msg": "no"}]},
        '[{"loc":["body","n"],"msg":"no"}]',
        None,
        None,
        None,
    ),
    "detail inside the error": ({"error": {"detail": "no"}}, "no", None, None, None),
    "a message alone": ({"message": "no"}, "no", None, None, None),
    "a message that is an object": ({"error": {"message": {"a": 1}}}, '{"a":1}', None, None, None),
    "an error that is a list": ({"error": ["no"]}, '["no"]', None, None, None),
    "an error that is null": ({"error": None, "message": "no", "code": "c"}, "no", "c", None, None),
    "an empty error": ({"error": {}}, '{"error":{}}', None, None, None),
    "an empty object": ({}, "{}", None, None, None),
    "plain text": (b"Internal Server Error", "Internal Server Error", None, None, None),
    "text over several lines": (b"no\n\t such  \r\n thing\n", "no such thing", None, None, None),
    "a page": (
        b"<html>\n<body>Bad gateway</body>\n</html>",
        "<html> <body>Bad gateway</body> </html>",
        None,
        None,
        None,
    ),
    "a list": ([{"error": {"message": "no"}}], '[{"error":{"message":"no"}}]', None, None, None),
    "JSON cut short": (b'{"error": {"message": "n', '{"error": {"message": "n', None, None, None),
    "no UTF-8": (b"\xffno", "\ufffdno", None, None, None),
    "nested beyond the stack": (b"[" * 100_000, "[" * 500, None, None, None),
}


@each_row(("body", "message", "code", "kind", "param"), SHAPES.values(), ids=SHAPES)
def test_other_shapes(body: object, message: str, code: str | None, kind: str | None, param: str | None) -> None:
    error = refusal(400, body)
    assert type(error) is BadRequestError
    assert str(error) == f"HTTP 400: {message}"
    assert (error.status, error.code, error.type, error.param) == (400, code, kind, param)


def test_an_empty_body() -> None:
    error = refusal(500, b"")
    assert type(error) is InternalServerError
    assert str(error) == "HTTP 500"
    assert error.body == ""


@each_row(
    ("status", "body", "kind"),
    [
        (400, {"error": {"code": "invalid_api_key"}}, BadRequestError),  # LiteLLM
        (408, {"error": {"type": "invalid_request_error"}}, APIStatusError),  # LiteLLM
        (401, {}, AuthenticationError),
        (402, {}, QuotaExceededError),
        (422, {}, UnprocessableEntityError),
        (429, {}, RateLimitError),
        (429, {"error": {"code": 500}}, RateLimitError),  # the status line goes before the body
        (429, {"error": {"type": "insufficient_quota"}}, QuotaExceededError),
        (403, {"error": {"code": "billing_hard_limit_reached"}}, QuotaExceededError),
        (418, {}, APIStatusError),
        (500, {}, InternalServerError),
        (529, {}, InternalServerError),
        (599, {}, InternalServerError),
    ],
)
def test_the_class_by_status_and_code(status: int, body: object, kind: type[APIStatusError]) -> None:
    error = refusal(status, body)
    assert type(error) is kind
    assert error.status == status


@each_row("code", sorted(QUOTA_CODES))
@each_row("where", ["code", "type"])
def test_quota_codes(code: str, where: str) -> None:
    assert type(refusal(429, {"error": {"message": "no", where: code}})) is QuotaExceededError


@each_row(
    ("error", "status", "kind"),
    [
        ({"message": "no", "code": 429}, 429, RateLimitError),
        ({"message": "no", "code": "503"}, 503, InternalServerError),
        ({"message": "no", "status": 404}, 404, NotFoundError),
        ({"message": "no", "status_code": 401, "code": 500}, 401, AuthenticationError),
        ({"message": "no", "type": "server_error"}, 500, InternalServerError),
        ({"message": "no", "type": "overloaded_error"}, 503, InternalServerError),
        ({"message": "no", "code": "rate_limit_exceeded"}, 429, RateLimitError),
        ({"message": "no", "status": "INVALID_ARGUMENT"}, 200, APIStatusError),
        ({"message": "no", "code": 12}, 200, APIStatusError),
        ({"message": "no", "code": 600}, 200, APIStatusError),
        ({"message": "no", "code": True}, 200, APIStatusError),
    ],
)
def test_an_error_object_with_a_success_status(error: dict[str, Any], status: int, kind: type[APIStatusError]) -> None:
    made = refusal(200, {"choices": None, "error": error})
    assert type(made) is kind
    assert made.status == status


def test_what_the_headers_say() -> None:
    error = refusal(429, {}, retry_after="7", x_should_retry="false", x_request_id="r")
    assert (error.retry_after, error.should_retry, error.request_id) == (7.0, False, "r")
    assert refusal(429, {}, retry_after="Tue, 14 Nov 2023 22:13:50 GMT").retry_after == 30.0
    assert refusal(429, {}, retry_after_ms="250", retry_after="9").retry_after == 0.25


def test_the_body_is_bounded() -> None:
    error = refusal(502, b"x" * (BODY_LIMIT + 1000))
    assert error.body == "x" * BODY_LIMIT
    assert len(str(error)) < 600


def test_the_key_is_blotted_out() -> None:
    body = {
        "error": {"message": "Incorrect key sk-secret.", "code": "sk-secret", "type": "x", "metadata": ["sk-secret"]}
    }
    for error in (refusal(401, body, secret="sk-secret"), refusal(401, b"sk-secret is wrong", secret="sk-secret")):
        assert "sk-secret" not in f"{error} {error!r} {vars(error)}"
        assert "***" in str(error)
    streamed = stream_server_error(msgspec.json.encode(body), secret="sk-secret")
    assert "sk-secret" not in f"{streamed} {streamed!r} {vars(streamed)}"


@pytest.mark.parametrize("key", ["sk-a/b", 'sk-"quoted"', "sk-a\\b"])
def test_the_key_is_blotted_out_however_json_writes_it(key: str) -> None:
    for text in (msgspec.json.encode(key).decode(), msgspec.json.encode(key).decode().replace("/", "\\/")):
        error = refusal(401, b'{"error": {"message": "wrong key ' + text[1:-1].encode() + b'"}}', secret=key)
        assert str(error) == "HTTP 401: wrong key ***"
        assert key not in str(error.body)
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in key)
    error = refusal(401, f'{{"error": {{"message": "wrong key {escaped}"}}}}'.encode(), secret=key)
    assert error.body == {"error": {"message": "wrong key ***"}}


def test_blotting_out_leaves_the_rest() -> None:
    value = {"a sk": ["sk", 1, None, {"b": "c sk d"}], "e": True}
    assert redact(value, "sk") == {"a ***": ["***", 1, None, {"b": "c *** d"}], "e": True}
    assert redact(value, "") is value


def test_an_error_inside_a_stream() -> None:
    error = stream_server_error(
        b'{"error":{"message":"no","type":"rate_limit_error","code":"slow","param":"p"},"id":"x"}'
    )
    assert type(error) is StreamServerError
    assert str(error) == "the server reported an error inside the stream: no"
    assert (error.status, error.type, error.code, error.param) == (429, "rate_limit_error", "slow", "p")
    assert error.body == {
        "error": {"message": "no", "type": "rate_limit_error", "code": "slow", "param": "p"},
        "id": "x",
    }


@each_row(
    ("data", "message"),
    [
        (b"no", "no"),
        (b'{"message": "no"}', "no"),
        (b'{"reason":\n "no"}', '{"reason": "no"}'),
        (b'{"error": {"code": 1}}', '{"error": {"code": 1}}'),
        (b"<p>" + b"x" * 1000, "<p>" + "x" * 497),
    ],
)
def test_an_error_event_without_an_error_object(data: bytes, message: str) -> None:
    assert str(stream_server_error(data)) == f"the server reported an error inside the stream: {message}"


def test_what_counts_as_an_error_object() -> None:
    assert is_error({"error": "no"})
    assert is_error({"error": {}})
    assert is_error({"object": "error", "message": "no"})
    assert not is_error({"error": None, "choices": []})
    assert not is_error({"object": "chat.completion"})
    assert not is_error({})


def test_the_text_of_a_body() -> None:
    assert body_text(b"a sk b", "sk") == "a *** b"
    assert body_text(b"a sk b", "") == "a sk b"
    assert body_text(b"\xff", "") == "\ufffd"


@pytest.mark.parametrize("key", ["sk-a/b", 'sk-"quoted"/', "sk-a\\b/"])
def test_the_text_of_a_body_hides_the_key_however_json_writes_it(key: str) -> None:
    for text in (key, json.dumps(key)[1:-1], json.dumps(key)[1:-1].replace("/", "\\/")):
        assert body_text(f'{{"a": "{text}"}}'.encode(), Secret(key)) == '{"a": "***"}'


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(sorted(QUOTA_CODES)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "detail", "code", "type", "param", "status", "status_code", "object"]),
            inner,
        )
    ),
    max_leaves=8,
)


@given(json_values | st.binary(max_size=50), st.integers(100, 599))
def test_any_body_is_an_error_of_some_kind(body: object, status: int) -> None:
    error = refusal(status, body)
    assert error.status is not None
    assert error.status == status or (status < 400 <= error.status <= 599)
    for value in (error.code, error.type, error.param):
        assert value is None or isinstance(value, str)
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    assert str(stream_server_error(raw)).startswith("the server reported")
