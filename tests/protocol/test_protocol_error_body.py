"""Error responses, in all the shapes that servers give them, to typed errors."""

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
from chatscope.protocol.error_body import BODY_LIMIT, body_text, status_error, stream_server_error
from chatscope.protocol.error_codes import QUOTA_CODES
from chatscope.protocol.error_object import find_error, read_error
from chatscope.protocol.error_words import says_too_large, says_unpaid
from chatscope.protocol.loading import load
from chatscope.protocol.redaction import is_secret, redact
from chatscope.protocol.waits import wait_in

NOW = 1_700_000_000.0


def refusal(status: int, body: object, *, secret: str = "", **headers: str) -> APIStatusError:
    """Return the error for a response; underscores in the headers' names stand for hyphens."""
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
    "an error that is a list": ({"error": ["no"]}, "no", None, None, None),
    "an error that is null": ({"error": None, "message": "no", "code": "c"}, "no", "c", None, None),
    "an empty error": ({"error": {}}, '{"error":{}}', None, None, None),
    "an empty object": ({}, "{}", None, None, None),
    "plain text": (b"Internal Server Error", "Internal Server Error", None, None, None),
    "text over several lines": (b"no\n\t such  \r\n thing\n", "no such thing", None, None, None),
    "a page": (
        b"<html>\n<body>Bad gateway</body>\n</html>",
        "Bad gateway",
        None,
        None,
        None,
    ),
    "a list (Google)": (
        [{"error": {"message": "no", "code": 400, "status": "INVALID_ARGUMENT"}}],
        "no",
        "400",
        "INVALID_ARGUMENT",
        None,
    ),
    "a code of 5,000 digits": ({"error": {"message": "no", "code": "9" * 5000}}, "no", "9" * 5000, None, None),
    "error_code and error_msg": ({"error_code": 17, "error_msg": "no"}, "no", "17", None, None),
    "errors": ({"errors": [{"code": 7009, "message": "no"}], "success": False}, "no", "7009", None, None),
    "an error inside an error": ({"error": {"error": {"message": "no", "code": "c"}}}, "no", "c", None, None),
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


def test_quota_codes() -> None:
    for code in QUOTA_CODES:
        for where in ("code", "type"):
            error = refusal(429, {"error": {"message": "no", where: code.title()}})
            assert type(error) is QuotaExceededError, code


@each_row(
    "message",
    [
        "Your credit balance is too low to access the Anthropic API.",
        "Insufficient account balance",
        "Sorry, your account balance is insufficient",
        "Your account is not active, please check your billing details on our website.",
        "Your account org-1 <ak-1> is suspended, please check your plan and billing details",
        "You exceeded your current quota, please check your plan and billing details.",
        "Your team has either used all available credits or reached its monthly spending limit",
        "Account suspended, possibly due to reaching the monthly spending limit or failure to pay past invoices",
        "Access denied, please make sure your account is in good standing.",
        "Budget has been exceeded! Current cost: 1.2, Max budget: 1.0",
        "Billing hard limit has been reached",
        "You have exhausted your quota",
        "Your free trial has ended",
        "This request requires more credits, or fewer max_tokens",
        "Please top up your account",
        "You have reached your specified API usage limits.",
        "Account balance is zero",
        "\u4f59\u989d\u4e0d\u8db3\u6216\u65e0\u53ef\u7528\u8d44\u6e90\u5305",
    ],
)
def test_words_of_an_account_that_is_unpaid(message: str) -> None:
    assert says_unpaid(message)
    for status in (400, 403, 429):
        assert type(refusal(status, {"error": {"message": message}})) is QuotaExceededError
    assert type(refusal(500, {"error": {"message": message}})) is InternalServerError
    assert type(refusal(429, {"error": {"message": f"{message} Please retry in 3s."}})) is RateLimitError, "Gemini"
    report = read_error({"error": {"message": message}})
    assert stream_server_error(report, b"{}").should_retry is False


@each_row(
    "message",
    [
        "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day",
        "Daily token limit exceeded",
        "You have reached your weekly limit",
        "Rate limit reached on requests per day (RPD): Limit 200, Used 200, Requested 1.",
        "\u4eca\u65e5\u8c03\u7528\u6b21\u6570\u5df2\u8fbe\u4e0a\u9650",  # today's calls have reached the limit
    ],
)
def test_limits_of_a_day_or_longer_are_used_up(message: str) -> None:
    error = {"error": {"message": message, "code": 429}}
    assert type(refusal(429, error)) is QuotaExceededError
    assert type(refusal(429, error, retry_after="20")) is RateLimitError, "the server says when to come back"
    assert type(refusal(429, {"error": {"message": f"{message} Try again in 7m12s."}})) is RateLimitError
    assert type(refusal(503, error)) is InternalServerError
    assert stream_server_error(read_error(error), b"{}").should_retry is False


@each_row(
    "message",
    [
        "Rate limit exceeded: 20 requests per minute; accounts without credits have 50 per day",
        "Rate limit reached for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Requested 2000.",
        "Visit https://platform.openai.com/account/rate-limits to learn more.",
        "You can increase your rate limit by adding a payment method to your account.",
        "Too many requests, please slow down",
        "Request 8812 exceeds the limit of 60 requests per minute",
        "The model is overloaded",
        "maximum context length is 4096 tokens",
        "Your organization must be verified to use this model.",
    ],
)
def test_words_of_other_errors(message: str) -> None:
    assert not says_unpaid(message)
    assert not says_too_large(message)
    assert refusal(429, {"error": {"message": message}}).should_retry is None


def test_a_request_that_is_larger_than_the_limit_is_not_worth_a_retry() -> None:
    for message in (
        "Request too large for gpt-4o",
        "on tokens per min (TPM): Limit 30000, Requested 36278.",
        "Requested 36,278 tokens, limit is 30,000",
        "The maximum tokens per minute is 8000; your request has 9000 tokens",
        "Input length 40000 exceeds the maximum allowed TPM of 30000",
        "prompt is too long for your rate limit: 9000 tokens > 8000 limit",
        "Your request of 40000 tokens exceeds the limit of 30000 tokens per minute",
    ):
        body = {"error": {"message": message, "type": "tokens", "code": "rate_limit_exceeded"}}
        assert refusal(429, body).should_retry is False
        assert refusal(429, body, x_should_retry="true").should_retry is True


@each_row(
    ("message", "seconds"),
    [
        ("Please try again in 20s.", 20),
        ("Please try again in 6m0s. Visit", 360),
        ("Please try again in 500ms", 0.5),
        ("Please retry after 1 minute.", 60),
        ("Please retry in 36.6s.", 36.6),
        ("Retry after 26 seconds", 26),
        ("Please wait for 2 hours and 5 minutes", 7500),
        ("try your request again in 1h2m3s", 3723),
        ("Limit resets in 3 min", 180),
        ("Wait time: ~9s", 9),
        ("\u8bf7\u5728 10 \u79d2\u540e\u91cd\u8bd5", 10),  # in 10 seconds
        ("Please try again later", None),
        ("Too many requests. Retry-After: 30", 30),
        ('VertexAIException - {"error": {"details": [{"retryDelay": "34s"}]}}', 34),
        ('upstream said {\\"error\\": {\\"retry_after_ms\\": 1500}}', 1.5),
        ('{"retry_after": "soon"}', None),
        ("20s have passed", None),
        ("try again in 7 steps", None),
    ],
)
def test_waits_in_words(message: str, seconds: float | None) -> None:
    assert wait_in(message) == (None if seconds is None else pytest.approx(seconds))


def test_waits_in_the_body_are_hints() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.5s"}]
    body = [{"error": {"code": 429, "message": "try again in 9s", "details": details}}]
    assert refusal(429, body).retry_after == 1.5
    assert refusal(429, body, retry_after="7").retry_after == 7
    assert refusal(429, {"error": {"message": "no"}, "retry_after": 3}).retry_after == 3
    assert wait_in("", {"retryDelay": {"seconds": 2, "nanos": 500_000_000}}) == 2.5
    assert wait_in("", {"metadata": {"headers": {"Retry-After": "7"}}}) == 7
    assert wait_in("", {"error": "loading", "estimated_time": 20.0}) == 20
    assert wait_in("", {"retry_after_ms": 1500}) == 1.5
    odd: object
    for odd in ("soon", -1, True, [], 10**400, "9" * 5000):
        assert wait_in("", {"retry_after": odd}) is None


NO_CODES: tuple[object, ...] = (None, "", "null", "None", False, [], {})


@each_row(
    ("loaded", "status"),
    [
        ({"choices": None, "error_type": "BadRequestError", "error_message": "too long"}, 400),  # DeepInfra
        ({"__type": "ThrottlingException", "message": "Rate exceeded"}, 429),
        ({"throttlingException": {"message": "Rate exceeded"}}, 429),
        ({"Response": {"Error": {"Code": "LimitExceeded", "Message": "slow"}}}, 429),  # Tencent
        ({"ErrorMsg": {"Msg": "no", "Code": 2003}}, None),
        ({"type": "about:blank", "title": "Too Many Requests", "status": 429}, 429),  # RFC 9457
        ({"detail": {"error": {"message": "no", "code": 404}}}, 404),
        ({"error": '{"error": {"message": "deep", "code": 503}}'}, 503),
        ({"choices": [{"delta": {"content": "a"}}], "x_groq": {"error": "over_capacity"}}, None),
        ({"choices": [{"delta": {}, "finish_reason": "ERROR"}]}, 500),
        ({"error": {"message": "m", "type": "ServiceUnavailableException"}}, 503),
        ({"error": {"message": "m", "type": "Too Many Requests"}}, 429),
        ({"error": {"message": "m", "code": "RateLimitReached"}}, 429),
        ({"error": {"message": "m", "code": "model_overloaded"}}, 503),
        ({"error": 503}, 503),
        ({"error": "Internal Server Error", "message": "boom", "statusCode": 500}, 500),  # NestJS
        ({"error": "rate_limit_exceeded", "message": "slow"}, 429),
        ({"err": "boom"}, None),
        *(({"error": {"message": "boom", "code": code}}, None) for code in NO_CODES),
        *(({"message": "boom", "code": code}, None) for code in NO_CODES),
        ({"errorCode": "InternalError"}, 500),
        ({"status": "error", "reason": "m"}, None),
        ({"promptFeedback": {"blockReason": "SAFETY"}}, 400),  # Gemini
        ({"choices": [], "prompt_feedback": {"block_reason": "OTHER"}}, 400),
        ({"choices": [{"delta": {}, "finish_reason": {"type": "abort", "message": "cuda"}}]}, 500),  # SGLang
        ({"choices": [{}], "code": 500, "message": "boom"}, 500),
        ({"choices": [{"delta": {"content": "a"}}], "Errors": [{"message": "boom"}]}, None),
        ({"choices": [{"delta": {"content": "a"}}], "error_code": 336100, "error_msg": "busy"}, 503),
        ({"choices": [{"index": 0, "delta": {}, "error_message": "boom"}]}, None),
        ({"choices": [{"delta": {}, "finish_reason": "cancelled"}]}, 499),
        ({"choices": [{"delta": {}, "finish_reason": "timeout"}]}, 500),
        ({"id": "r", "message": "internal server error, this has been reported"}, 500),  # Cohere
        ({"ret_code": 1, "ret_msg": "boom"}, None),
        ({"ok": False, "description": "boom"}, None),
        ({"status": "fail", "data": None}, None),
        ({"requestStatus": {"statusCode": "UNAUTHORIZED", "statusDescription": "no"}}, 401),  # Nvidia
        ({"Output": {"__type": "UnknownOperationException"}}, None),  # Amazon
        ({"errors": [{"code": "no_such_model", "message": "no"}], "status_code": 404}, 404),  # watsonx
        ({"error": {"message": "no", "http_status_code": 422}}, 422),
        ({"error": {"message": "no", "code": "DeploymentNotFound"}}, 404),
        ({"code": "InternalError.Algo", "message": "no"}, 500),  # DashScope
        ({"error": "Rate limit exceeded"}, 429),
        ({"code": 50505, "message": "Model service overloaded."}, 503),  # SiliconFlow
        ({"error": {"message": "Insufficient Balance", "type": "unknown_error"}}, 402),  # DeepSeek
    ],
)
def test_errors_in_the_shapes_and_names_of_clouds(loaded: dict[str, Any], status: int | None) -> None:
    report = find_error(loaded)
    assert report is not None
    assert report.status == status


@each_row(
    "body",
    [
        {"type": "CreditsError", "message": "no"},
        {"error": {"message": "m", "metadata": {"raw": "You exceeded your current quota, check your billing"}}},
        {"code": 403, "reason": "NOT_ENOUGH_BALANCE", "message": ""},
        {"error": {"message": "m", "code": "out_of_credits"}},
        {"error": {"message": "m", "type": "TrialExpired"}},
        {"error": {"message": "Key limit exceeded (monthly limit)"}},
        b"Insufficient Balance",
    ],
)
def test_an_account_is_unpaid_wherever_it_is_said(body: Any) -> None:
    assert type(refusal(429, body)) is QuotaExceededError


@each_row("code", ["9" * 5000, f'"{"9" * 5000}"', "1.5", '"1008"'])
@each_row("rest", ["", '"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}],'])
def test_a_code_of_a_base_resp_that_is_not_success_is_an_error(code: str, rest: str) -> None:
    body = f'{{{rest}"base_resp":{{"status_code":{code},"status_msg":"no"}}}}'
    report = find_error(load(body.encode()))
    assert report is not None
    assert report.message == "no"


@each_row(
    "error",
    [
        {"error": {"code": "Success", "message": "all is well"}},
        {"base_resp": {"status_code": 0}},
        {"base_resp": {}},
        {"promptFeedback": {"safetyRatings": []}},
        {"error_code": 0, "error_msg": "success"},
        {"errors": [None], "errno": 0, "err": "no_error"},
    ],
)
def test_what_reports_no_error(error: dict[str, Any]) -> None:
    assert find_error({"choices": [{"delta": {"content": "a"}}]} | error) is None


def test_a_title_and_its_message_are_both_shown() -> None:
    assert (
        str(refusal(500, {"error": "Internal Server Error", "message": "boom"}))
        == "HTTP 500: Internal Server Error: boom"
    )
    assert refusal(400, {"error": "invalid_request_error", "message": "no"}).type == "invalid_request_error"


def test_a_redirect_says_where_to() -> None:
    error = refusal(307, b"", location="https://user:pass@api.test/v1/chat/completions?key=secret")
    assert str(error) == (
        "HTTP 307: the server redirects to https://***@api.test/v1/chat/completions?***; "
        "redirects are not followed, set base_url to the right address"
    )
    assert "redirects;" in str(refusal(302, b""))


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
        ({"message": "no", "status": "INVALID_ARGUMENT"}, 400, BadRequestError),
        ({"message": "no", "status": "RESOURCE_EXHAUSTED"}, 429, RateLimitError),
        ({"message": "no", "type": "api_error"}, 500, InternalServerError),
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
    raw = msgspec.json.encode(body)
    streamed = stream_server_error(read_error(body), raw, secret="sk-secret")
    assert "sk-secret" not in f"{streamed} {streamed!r} {vars(streamed)}"


@each_row("key", ["sk-a/bcde", 'sk-"quoted"', "sk-a\\bcde"])
def test_the_key_is_blotted_out_however_json_writes_it(key: str) -> None:
    for text in (msgspec.json.encode(key).decode(), msgspec.json.encode(key).decode().replace("/", "\\/")):
        error = refusal(401, b'{"error": {"message": "wrong key ' + text[1:-1].encode() + b'"}}', secret=key)
        assert str(error) == "HTTP 401: wrong key ***"
        assert key not in str(error.body)
    error = refusal(422, {"detail": [{"msg": "no", "input": key}]}, secret=key)  # FastAPI: the message is JSON text
    assert str(error) == 'HTTP 422: [{"msg":"no","input":"***"}]'
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in key)
    error = refusal(401, f'{{"error": {{"message": "wrong key {escaped}"}}}}'.encode(), secret=key)
    assert error.body == {"error": {"message": "wrong key ***"}}


def test_blotting_out_leaves_the_rest() -> None:
    value = {"a sk-secret": ["sk-secret", 1, None, {"b": "c sk-secret d"}], "e": True}
    assert redact(value, "sk-secret") == {"a ***": ["***", 1, None, {"b": "c *** d"}], "e": True}
    assert redact(value, "") is value
    for repeated in ("sk-a&b/c+d", "sk-a%26b%2Fc%2Bd", "sk-a&amp;b/c+d"):
        assert redact(f"bad key {repeated}", "sk-a&b/c+d") == "bad key ***"


@each_row(
    "key", ["", "x", "EMPTY", "none", "ollama", "dummy", "limit", "not-needed", "sk-no-key-required", "sk-anything"]
)
def test_keys_that_are_none_stay_in_messages(key: str) -> None:
    assert not is_secret(key)
    code = "project_spend_limit_exceeded"
    error = refusal(
        429, {"error": {"message": f"the limit {key} x", "code": code}}, secret=key, x_request_id=f"r-{key}"
    )
    assert type(error) is QuotaExceededError
    assert (error.code, error.request_id, str(error)) == (code, f"r-{key}", f"HTTP 429: the limit {key} x")


def test_codes_are_read_before_they_are_redacted() -> None:
    error = refusal(429, {"error": {"message": "no", "code": "insufficient_quota"}}, secret="insufficient")
    assert type(error) is QuotaExceededError
    assert error.code == "***_quota"


def test_an_error_inside_a_stream() -> None:
    data = b'{"error":{"message":"no","type":"rate_limit_error","code":"slow","param":"p"},"id":"x"}'
    error = stream_server_error(read_error(load(data)), data)
    assert type(error) is StreamServerError
    assert str(error) == "the server reported an error inside the stream: no"
    assert (error.status, error.type, error.code, error.param) == (429, "rate_limit_error", "slow", "p")
    assert error.body == load(data)


def response(**fields: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}], **fields}


@each_row(
    "empty", [None, {}, "", False, 0, [], {"message": ""}, {"message": None, "code": 0}, "null", "none", "-", "{}"]
)
def test_an_empty_error_beside_a_response_is_none(empty: object) -> None:
    for name in ("error", "errors"):
        assert find_error(response(**{name: empty})) is None
        assert find_error({"choices": [{"message": {"content": "a"}, name: empty}]}) is None
        assert find_error({"choices": [{"message": {"content": "a", name: empty}}]}) is None


@each_row(
    "fields",
    [
        {"base_resp": {"status_code": 0, "status_msg": "success"}},
        {"code": 0, "message": "Success", "sid": "x"},
        {"code": 200, "message": "OK"},
        {"code": "0", "msg": ""},
        {"success": True, "errors": []},
        {"status": "ok"},
        {"detail": None},
    ],
)
def test_success_in_words_is_no_error(fields: dict[str, Any]) -> None:
    assert find_error(response(**fields)) is None
    assert find_error({"id": "c", "choices": [], "usage": {}, **fields}) is None


@each_row(
    "loaded",
    [
        {},
        [],
        None,
        "text",
        3,
        {"id": "c", "choices": []},
        {"usage": {}},
        {"type": "ping"},
        {"type": "status", "message": "queued"},
    ],
)
def test_what_names_no_error(loaded: object) -> None:
    assert find_error(loaded) is None


def test_the_text_of_a_body() -> None:
    assert body_text(b"a sk-secret b", "sk-secret") == "a *** b"
    assert body_text(b"a sk b", "") == "a sk b"
    assert body_text(b"\xff", "") == "\ufffd"


@each_row("key", ["sk-a/bcde", 'sk-"quoted"/', "sk-a\\bcde/"])
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
    try:
        loaded = load(raw)
    except ValueError:
        loaded = None
    assert str(stream_server_error(read_error(loaded), raw)).startswith("the server reported")
