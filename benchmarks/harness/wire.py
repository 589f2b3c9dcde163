"""The content of a benchmark: the request, and responses like OpenAI's, as values and as bytes.

The server sends these words, and the check of every contender expects them. Not here: sending (`server`).
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final

MODEL: Final = "gpt-4o-mini"
API_KEY: Final = "sk-benchmark-0123456789abcdef0123456789abcdef"
PROMPT: Final = "Explain structured concurrency to somebody who knows threads, with two short examples."
PROMPT_TOKENS: Final = 23

_WORDS: Final = (
    " the", " task", " group", " waits", ",", " so", " nothing", " out", "lives", " its", " scope", ".", "\n\n", "```",
    " naïve", " “quoted”", " cancellation", " is", " delivered", " at",
)  # fmt: skip

_HEAD: Final = {
    "id": "chatcmpl-CeR5xkWbM2nQ8vTz0aLpYd7Uf3Hg1",
    "created": 1762000000,
    "model": "gpt-4o-mini-2024-07-18",
    "service_tier": "default",
    "system_fingerprint": "fp_560af6e559",
}

# As many headers as OpenAI's edge sends, and about as long.
_HEADERS: Final = (
    "Date: Sat, 22 Nov 2025 12:00:00 GMT",
    "Connection: keep-alive",
    "access-control-expose-headers: X-Request-ID",
    "openai-organization: benchmark-org",
    "openai-processing-ms: 412",
    "openai-project: proj_0123456789abcdef",
    "openai-version: 2020-10-01",
    "x-envoy-upstream-service-time: 433",
    "x-ratelimit-limit-requests: 10000",
    "x-ratelimit-limit-tokens: 10000000",
    "x-ratelimit-remaining-requests: 9999",
    "x-ratelimit-remaining-tokens: 9999975",
    "x-ratelimit-reset-requests: 6ms",
    "x-ratelimit-reset-tokens: 0s",
    "x-request-id: req_0123456789abcdef0123456789abcdef",
    "cf-cache-status: DYNAMIC",
    "strict-transport-security: max-age=31536000; includeSubDomains; preload",
    "x-content-type-options: nosniff",
    "Server: cloudflare",
    "CF-RAY: 9a28f0e1bd3c4a5b-FRA",
)


def request_body(tokens: int, *, stream: bool) -> dict[str, Any]:
    """Return the body that every contender sends. `max_tokens` is the exact length of the response."""
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": PROMPT}],
        "temperature": 0.0,
        "max_tokens": tokens,
    }
    return body | {"stream": True, "stream_options": {"include_usage": True}} if stream else body


def token_text(number: int) -> str:
    """Return the text of one token of a response."""
    return _WORDS[number % len(_WORDS)]


@cache
def response_text(tokens: int) -> str:
    """Return the text of a response with a number of tokens."""
    return "".join(map(token_text, range(tokens)))


@cache
def token_chunk(number: int) -> bytes:
    """Return a token as an HTTP chunk with one event."""
    return _event({"choices": [_choice({"content": token_text(number)})], "usage": None})


@cache
def stream_start() -> bytes:
    """Return the head of a streamed response and its first event, which has no text."""
    head = _response_head("text/event-stream; charset=utf-8", "Transfer-Encoding: chunked")
    return head + _event({"choices": [_choice({"role": "assistant", "content": "", "refusal": None})], "usage": None})


@cache
def stream_end(tokens: int) -> bytes:
    """Return the bytes after the last token: the finish reason, the usage, `[DONE]`, the end of the body."""
    finish = _event({"choices": [_choice({}, "stop")], "usage": None})
    usage = _event({"choices": [], "usage": _usage(tokens)})
    return finish + usage + _http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


@cache
def whole_stream(tokens: int) -> bytes:
    """Return a whole streamed response."""
    return stream_start() + b"".join(map(token_chunk, range(tokens))) + stream_end(tokens)


@cache
def plain_response(tokens: int) -> bytes:
    """Return a whole response that is not streamed."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": response_text(tokens),
        "refusal": None,
        "annotations": [],
    }
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    body = _HEAD | {"object": "chat.completion", "choices": [choice], "usage": _usage(tokens)}
    return json_response(body)


def json_response(body: dict[str, Any]) -> bytes:
    """Return a response with a JSON body."""
    data = _json(body)
    return _response_head("application/json", f"Content-Length: {len(data)}") + data


def _response_head(content_type: str, framing: str) -> bytes:
    lines = ("HTTP/1.1 200 OK", f"Content-Type: {content_type}", framing, *_HEADERS, "", "")
    return "\r\n".join(lines).encode("ascii")


def _choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _usage(tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": tokens,
        "total_tokens": PROMPT_TOKENS + tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _event(fields: dict[str, Any]) -> bytes:
    return _http_chunk(b"data: " + _json(_HEAD | {"object": "chat.completion.chunk"} | fields) + b"\n\n")


def _http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
