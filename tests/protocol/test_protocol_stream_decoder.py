"""One response's bytes to its chunks and its outcome: the table of ends in docs/servers.md, and real servers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.tables import each_row

from chatscope.errors import (
    ChatError,
    InvalidResponseError,
    StreamProtocolError,
    StreamServerError,
    StreamTruncatedError,
)
from chatscope.protocol.chunk_decoder import ChunkDecoder
from chatscope.protocol.error_body import BODY_LIMIT
from chatscope.protocol.error_codes import FAILED_FINISH_REASONS
from chatscope.protocol.response import (
    Chunk,
    ChunkChoice,
    Completion,
    CustomDelta,
    Delta,
    FunctionDelta,
    Logprobs,
    TokenLogprob,
    ToolCallDelta,
    XGroq,
)
from chatscope.protocol.sse import SSEDecoder
from chatscope.protocol.stream_decoder import StreamDecoder
from chatscope.protocol.usage import Usage

DONE = b"data: [DONE]\n\n"
BOM = b"\xef\xbb\xbf"


def data(value: object) -> bytes:
    """Return an event that carries a JSON value."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def says(text: str | None = None, *, finish: Any = None, **fields: Any) -> dict[str, Any]:
    """Return a chunk whose first choice says something."""
    delta = {} if text is None else {"content": text}
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **fields}


def error_in_chunk(text: str, error: object) -> dict[str, Any]:
    return says(text, finish="error", error=error)


ONE = data(says("one"))
TWO = data(says(" two"))
STOP = data(says(finish="stop"))
WHOLE = {
    "object": "chat.completion",
    "id": "w",
    "choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}],
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of reading a response."""

    reader: StreamDecoder
    chunks: list[Chunk]

    @property
    def error(self) -> ChatError | None:
        return self.reader.error

    @property
    def text(self) -> str:
        return self.reader.assembler.text

    @property
    def completion(self) -> Completion:
        return self.reader.assembler.completion()

    @property
    def outcome(self) -> tuple[list[dict[str, Any]], str, type[ChatError] | None, bool]:
        chunks = [chunk.to_dict() for chunk in self.chunks]
        is_done = self.reader.done and self.error is None
        return chunks, self.text, type(self.error) if self.error is not None else None, is_done


def read(
    *parts: bytes, content_type: str = "text/event-stream", broken: bool = False, secret: str = "", ends: bool = True
) -> Reading:
    """Read as a stream does: until the reader has had enough, and tell it of the end only if it has not."""
    reader = StreamDecoder(content_type, secret=secret)
    chunks: list[Chunk] = []
    for at_ns, part in enumerate(parts):
        chunks += reader.feed(part, at_ns)
        if reader.done or reader.error is not None:
            return Reading(reader, chunks)
    if ends:
        chunks += reader.end(len(parts), broken=broken)
    return Reading(reader, chunks)


def cut(raw: bytes, places: Iterable[int]) -> list[bytes]:
    ends = [*sorted(place % (len(raw) + 1) for place in places), len(raw)]
    return [raw[start:end] for start, end in zip([0, *ends], ends, strict=False)]


COMPLETE = {
    "[DONE] after chunks": (ONE + TWO + STOP + DONE, "one two", "stop"),
    "[DONE] without a finish_reason": (ONE + DONE, "one", None),
    "[DONE] after a choice that says nothing": (data({"choices": [{"index": 0, "delta": {}}]}) + DONE, "", None),
    "a finish_reason, then the end": (ONE + STOP, "one", "stop"),
    "a finish_reason with text, then the end": (data(says("one", finish="length")), "one", "length"),
    "a finish_reason of the server's own": (data(says("one", finish="eos_token")), "one", "eos_token"),
    "[DONE] without its blank line": (ONE + b"data: [DONE]", "one", None),
    "[DONE] with white space": (ONE + b"data:   [DONE] \n\n", "one", None),
    "a finish_reason without its blank line": (ONE + STOP.rstrip(), "one", "stop"),
    "half an event after the finish_reason": (ONE + STOP + b'data: {"usage": {"prompt', "one", "stop"),
    "anything after [DONE]": (ONE + DONE + TWO + b"data: nonsense\n\n", "one", None),
    "comments": (b": keep-alive\n\n" * 3 + ONE + b": OPENROUTER PROCESSING\n\n" + STOP, "one", "stop"),
    "comments wrapped as data": (
        b"data: : OPENROUTER PROCESSING\n\n" + ONE + b"data: : ping\n\n" + STOP,
        "one",
        "stop",
    ),
    "pings": (b'event: ping\ndata: {"type": "ping"}\n\n' + ONE + b"event: ping\ndata: now\n\n" + DONE, "one", None),
    "other keep-alives by name": (
        b"event: keep-alive\ndata: {}\n\n" + ONE + b"event: heartbeat\ndata: 1\n\nevent: KeepAlive\ndata: x\n\n" + DONE,
        "one",
        None,
    ),
    "keep-alives as data": (b"data: keep-alive\n\n" + ONE + b"data: null\n\ndata: [PING]\n\n" + DONE, "one", None),
    "data twice": (b"data: data: " + ONE[6:] + b"data: data: [DONE]\n\n", "one", None),
    "an empty error": (
        data(says("one", error={"message": "", "code": None})) + data(says(error=False)) + DONE,
        "one",
        None,
    ),
    "a code of success": (
        data(says("one", code=0, message="Success")) + data({"base_resp": {"status_code": 0}}) + DONE,
        "one",
        None,
    ),
    "a finish_reason that is none": (
        b"".join(
            data(says(text, finish=reason))
            for text, reason in [("one", "null"), ("", ""), ("", "None"), ("", "not_finished"), ("", 0)]
        )
        + DONE,
        "one",
        None,
    ),
    "a finish_reason as an object (SGLang)": (data(says("one", finish={"type": "stop", "matched": 2})), "one", "stop"),
    "choices without indexes": (
        data({"choices": [{"delta": {"content": text}, "finish_reason": "stop"} for text in ("one", "two")]}),
        "one",
        "stop",
    ),
    "one choice instead of a list": (data({"choices": {"delta": {"content": "one"}}}) + DONE, "one", None),
    "empty data": (b"data:\n\ndata: \n\ndata:  \t \n\n" + ONE + DONE, "one", None),
    "retry alone": (b"retry: 3000\n\n" + ONE + b"retry: 1\n\n" + DONE, "one", None),
    "CRLF": ((ONE + STOP + DONE).replace(b"\n", b"\r\n"), "one", "stop"),
    "a byte order mark": (BOM + ONE + DONE, "one", None),
    "blank lines before it": (b"\r\n\n\n" + ONE + DONE, "one", None),
    "JSON over several data lines": (
        b'data: {"choices":\ndata: [{"delta":{"content":"one"}}]}\n\n' + DONE,
        "one",
        None,
    ),
    "an event name of the server's own": (b"event: completion\n" + ONE + DONE, "one", None),
    "other line separators in the text": (data(says("\u2028\u2029\u0085\n\r")) + DONE, "\u2028\u2029\u0085\n\r", None),
    "the same unescaped": (
        'data: {"choices":[{"delta":{"content":"\u2028\u2029\u0085"}}]}\n\n'.encode() + DONE,
        "\u2028\u2029\u0085",
        None,
    ),
    "Azure's first chunk": (
        data({"id": "", "model": "", "choices": [], "prompt_filter_results": []}) + ONE + STOP + DONE,
        "one",
        "stop",
    ),
    "choices without delta": (data({"choices": [{"index": 0, "finish_reason": None}]}) + ONE + DONE, "one", None),
    "choices: null": (data({"choices": None}) + ONE + DONE, "one", None),
    "no choices at all": (data({"id": "x"}) + ONE + DONE, "one", None),
    "a repeated finish_reason": (ONE + STOP + STOP + DONE, "one", "stop"),
    "another finish_reason": (ONE + STOP + data(says(finish="tool_calls")) + DONE, "one", "tool_calls"),
    "content as a list of parts": (
        data({"choices": [{"delta": {"content": ["on", {"type": "text", "text": "e"}, {"type": "image"}]}}]}) + DONE,
        "one",
        None,
    ),
    "duplicate keys": (
        b'data: {"id":"","choices":[],"choices":[{"delta":{"content":"one"}}],"id":"x"}\n\n',
        "one",
        None,
    ),
    "a whole completion as one event": (data(WHOLE) + DONE, "whole", "stop"),
    "[DONE] as JSON": (ONE + b'data: "[DONE]"\n\n', "one", None),
    "data of an event that opens": (b"event: open\ndata: connected\n\n" + ONE + DONE, "one", None),
    "error: null": (data(says("one", error=None)) + DONE, "one", None),
}
COMPLETE["duplicate keys"] = (COMPLETE["duplicate keys"][0] + DONE, "one", None)


@each_row(("raw", "text", "finish"), COMPLETE.values(), ids=COMPLETE)
def test_a_complete_response(raw: bytes, text: str, finish: str | None) -> None:
    for parts in ([raw], [raw[place : place + 1] for place in range(len(raw))]):
        reading = read(*parts)
        assert reading.error is None
        assert reading.reader.done
        assert reading.text == text
        assert reading.completion.text == text
        assert reading.completion.finish_reason == finish


FAILED: dict[str, tuple[bytes, type[ChatError], str]] = {
    "neither finish_reason nor [DONE]": (ONE + TWO, StreamTruncatedError, "one two"),
    "no event at all": (b"", StreamTruncatedError, ""),
    "nothing but white space": (b"\n \r\n", StreamTruncatedError, ""),
    "nothing but comments": (b": ping\n\n" * 5, StreamTruncatedError, ""),
    "nothing but [DONE]": (DONE, StreamTruncatedError, ""),
    "nothing but [DONE] without its blank line": (b"data: [DONE]", StreamTruncatedError, ""),
    "cut within an event": (ONE + TWO[:-9], StreamTruncatedError, "one"),
    "cut within a character": (ONE + data(says("\u20ac"))[:-30], StreamTruncatedError, "one"),
    "data that is no JSON": (ONE + b"data: nonsense\n\n" + DONE, StreamProtocolError, "one"),
    "data that is JSON cut short": (ONE + b'data: {"choices": [\n\n' + DONE, StreamProtocolError, "one"),
    "data that is no object": (ONE + b"data: [1]\n\n" + DONE, StreamProtocolError, "one"),
    "no blank lines": ((ONE + TWO + STOP + DONE).replace(b"\n\n", b"\n"), StreamProtocolError, ""),
    "no choice, but [DONE]": (data({"choices": []}) + data({"usage": {}}) + DONE, StreamTruncatedError, ""),
    "an empty object as the choice": (data({"choices": [{}]}) + DONE, StreamTruncatedError, ""),
    "a JSON body with an empty object as the choice": (b'{"choices": [{}]}', InvalidResponseError, ""),
    "no choice and an end": (data({"id": "x"}), StreamTruncatedError, ""),
    "a JSON body without choices": (b'{"choices": [], "usage": {"total_tokens": 1}}', InvalidResponseError, ""),
    "a chunk as the whole body": (
        b'{"object": "chat.completion.chunk", "choices": [{"delta": {"content": "one"}}]}',
        StreamTruncatedError,
        "one",
    ),
    "two objects in one event": (ONE + b"data: {}\ndata: {}\n\n" + DONE, StreamProtocolError, "one"),
    "an error after [DONE] that ended nothing": (DONE + data({"error": "x"}), StreamTruncatedError, ""),
    "HTML": (b"<html><body>502 Bad Gateway</body></html>", InvalidResponseError, ""),
    "HTML after blank lines": (b"\n\n  <!doctype html>", InvalidResponseError, ""),
    "a JSON body that is no completion": (b'{"status": "ok"}', InvalidResponseError, ""),
    "a JSON body cut short": (b'{"choices": [{"message": {"cont', InvalidResponseError, ""),
    "two JSON bodies": (b'{"choices": []}{"choices": []}', InvalidResponseError, ""),
}


@each_row(("raw", "kind", "text"), FAILED.values(), ids=FAILED)
def test_a_response_that_failed(raw: bytes, kind: type[ChatError], text: str) -> None:
    for parts in ([raw], [raw[place : place + 1] for place in range(len(raw))]):
        reading = read(*parts)
        assert type(reading.error) is kind
        assert isinstance(reading.error, ChatError)
        assert reading.text == reading.error.partial_text == text


@each_row("raw", [b"", ONE, ONE + STOP, ONE + b"data: [DONE", b'{"choices": []}', b": ping\n\n", b"<h"])
def test_a_connection_that_broke_off(raw: bytes) -> None:
    reading = read(raw, broken=True)
    assert type(reading.error) is StreamTruncatedError
    assert reading.error.partial_text == reading.text == ("one" if raw.startswith(b"data") else "")
    assert len(reading.chunks) == raw.count(b"choices") - raw.startswith(b"{")


def test_after_done_it_ends_at_once_whatever_the_connection_does() -> None:
    reading = read(ONE, DONE, ends=False)
    assert reading.reader.done
    assert reading.error is None


ERRORS: dict[str, tuple[bytes, int | None, str | None, str | None, str]] = {
    "vLLM, OpenRouter": (
        data({"error": {"message": "no", "type": "server_error", "param": None, "code": 502}}),
        502,
        "502",
        "server_error",
        "no",
    ),
    "with [DONE] after it": (data({"error": {"message": "no", "code": "429"}}) + DONE, 429, "429", None, "no"),
    "a status by its type": (
        data({"error": {"message": "no", "type": "overloaded_error"}}),
        503,
        None,
        "overloaded_error",
        "no",
    ),
    "a status by its code": (
        data({"error": {"message": "no", "code": "rate_limit_exceeded"}}),
        429,
        "rate_limit_exceeded",
        None,
        "no",
    ),
    "a quota": (
        data({"error": {"message": "no", "code": "insufficient_quota"}}),
        429,
        "insufficient_quota",
        None,
        "no",
    ),
    "llama.cpp's error field": (
        b'error: {"code":500,"message":"no","type":"server_error"}\n\n',
        500,
        "500",
        "server_error",
        "no",
    ),
    "the same, nested": (b'error: {"error":{"code":500,"message":"no"}}\n\n', 500, "500", None, "no"),
    "the same, without its blank line": (b'error: {"code":500,"message":"no"}', 500, "500", None, "no"),
    "the same as text": (b"error: no\n\n", None, None, None, "no"),
    "event: error": (b'event: error\ndata: {"message": "no", "code": 400}\n\n', 400, "400", None, "no"),
    "event: error as text": (b"event: error\ndata: no\n\n", None, None, None, "no"),
    "event: error with an error object": (
        b"event: error\n" + data({"error": {"message": "no"}}),
        None,
        None,
        None,
        "no",
    ),
    "older vLLM, flat": (
        data({"object": "error", "message": "no", "type": "BadRequestError", "param": None, "code": 400}),
        400,
        "400",
        "BadRequestError",
        "no",
    ),
    "Ollama's text": (data({"error": "no"}), None, None, None, "no"),
    "text with a code beside it": (data({"error": "no", "code": 503, "type": "t"}), 503, "503", "t", "no"),
    "choices: null": (data({"choices": None, "error": {"message": "no", "code": 404}}), 404, "404", None, "no"),
    "in a normal chunk": (data(error_in_chunk("", {"message": "no", "code": 500})), 500, "500", None, "no"),
    "after the finish_reason": (
        STOP + data(error_in_chunk("", {"message": "no", "code": 500})),
        500,
        "500",
        None,
        "no",
    ),
    "in the choice": (
        data({"choices": [{"delta": {}, "error": {"message": "no", "code": 502}}]}),
        502,
        "502",
        None,
        "no",
    ),
    "in the delta": (data({"choices": [{"delta": {"error": {"message": "no"}}}]}), None, None, None, "no"),
    "in the message": (data({"choices": [{"message": {"error": "no"}}]}), None, None, None, "no"),
    "a list (Google)": (data([{"error": {"message": "no", "code": 503}}]), 503, "503", None, "no"),
    "a code and a message": (
        data({"code": "InspectionFailed", "message": "no", "request_id": "r"}),
        400,
        "InspectionFailed",
        None,
        "no",
    ),
    "a numeric code and a message": (data({"code": 10013, "message": "no", "choices": []}), None, "10013", None, "no"),
    "error_code and error_msg": (
        data({"error_code": 336003, "error_msg": "no", "id": "x"}),
        None,
        "336003",
        None,
        "no",
    ),
    "errors (Cloudflare)": (
        data({"errors": [{"code": 3040, "message": "no"}], "success": False}),
        None,
        "3040",
        None,
        "no",
    ),
    "detail": (data({"detail": "no"}), None, None, None, "no"),
    "base_resp (MiniMax)": (
        data({"choices": None, "base_resp": {"status_code": 1008, "status_msg": "no"}}),
        402,
        "1008",
        None,
        "no",
    ),
    "a message with a status": (data({"id": "x", "message": "no", "status": 503}), 503, None, None, "no"),
    "a message alone": (data({"message": "no"}), None, None, None, "no"),
    "a prompt that was blocked (Gemini)": (
        data({"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": "no"}}),
        400,
        "SAFETY",
        None,
        "the prompt was blocked: no",
    ),
    "event: error with a name's type": (
        b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"no"}}\n\n',
        500,
        None,
        "api_error",
        "no",
    ),
    "Google's status": (data({"error": {"message": "no", "status": "UNAVAILABLE"}}), 503, None, "UNAVAILABLE", "no"),
    "a code of absurd size": (data({"error": {"message": "no", "code": 10**400}}), None, "1" + "0" * 400, None, "no"),
    "LiteLLM's status as text": (
        data({"error": {"message": "no", "code": "500", "type": "None"}}),
        500,
        "500",
        "None",
        "no",
    ),
}


@each_row(("raw", "status", "code", "kind", "message"), ERRORS.values(), ids=ERRORS)
@each_row("before", [b"", ONE, ONE + TWO])
def test_an_error_inside_a_stream(
    before: bytes, raw: bytes, status: int | None, code: str | None, kind: str | None, message: str
) -> None:
    for parts in ([before + raw], [bytes([byte]) for byte in before + raw]):
        reading = read(*parts)
        assert type(reading.error) is StreamServerError
        assert (reading.error.status, reading.error.code, reading.error.type) == (status, code, kind)
        assert str(reading.error).endswith(f": {message}")
        assert reading.error.partial_text == reading.text == {0: "", 1: "one", 2: "one two"}[before.count(b"data")]


@each_row("content_type", ["text/event-stream", "application/json", "text/plain", ""])
def test_an_error_body_with_a_success_status(content_type: str) -> None:
    reading = read(b'\n{"error": {"message": "no", "code": 429}}', content_type=content_type)
    assert type(reading.error) is StreamServerError
    assert reading.error.status == 429
    assert reading.chunks == []


@pytest.mark.parametrize("reason", sorted(FAILED_FINISH_REASONS))
def test_a_finish_reason_that_means_failure(reason: str) -> None:
    reading = read(ONE + data(says(finish=reason)) + DONE)
    assert type(reading.error) is StreamServerError
    assert repr(reason) in str(reading.error)
    assert (reading.text, reading.error.status) == ("one", FAILED_FINISH_REASONS[reason])


def test_usage_after_an_error_still_counts() -> None:
    decoder = StreamDecoder()
    decoder.feed(ONE + data({"error": {"message": "no"}}), 1)
    error = decoder.error
    assert not decoder.done
    assert not decoder.feed_text(TWO, 2)
    assert decoder.feed(TWO, 2) == []
    assert decoder.feed(data({"choices": [], "usage": {"total_tokens": 3, "cost": 0.5}}), 2) == []
    assert decoder.feed(b"data: nonsense\n\n" + data({"error": "another"}) + DONE, 2) == []
    assert decoder.done
    assert decoder.error is error
    completion = decoder.assembler.completion()
    assert (completion.text, completion.usage) == ("one", Usage(total_tokens=3))
    assert completion.extra == {"usage": {"cost": 0.5}}


def test_usage_in_an_event_named_error_counts() -> None:
    decoder = StreamDecoder()
    decoder.feed(ONE + b'event: error\ndata: {"error": "no", "usage": {"input_tokens": 3, "output_tokens": 1}}\n\n', 1)
    assert decoder.assembler.usage == Usage(prompt_tokens=3, completion_tokens=1, total_tokens=4)


def test_a_body_without_blank_lines_says_so_and_is_not_worth_a_retry() -> None:
    error = read((ONE + STOP + DONE).replace(b"\n\n", b"\n")).error
    assert error is not None
    assert "not separated by blank lines" in str(error)
    assert error.should_retry is False


def test_the_text_of_the_chunk_with_the_error_is_kept_and_handed_out() -> None:
    reading = read(ONE + data(error_in_chunk(" two", {"message": "no"})) + DONE)
    assert [chunk.text for chunk in reading.chunks] == ["one", " two"]
    assert reading.error is not None
    assert reading.error.partial_text == "one two"
    assert reading.completion.finish_reason == "error"


def test_chunks_before_an_error_in_the_same_read_are_handed_out() -> None:
    assert [chunk.text for chunk in read(ONE + TWO + b"data: nonsense\n\n").chunks] == ["one", " two"]


@each_row("content_type", ["text/event-stream; charset=utf-8", "application/json", "text/plain", ""])
@each_row("start", [b"", b"\n\n\n", BOM, BOM + b"\r\n \t"])
def test_a_whole_completion_although_a_stream_was_asked(content_type: str, start: bytes) -> None:
    body = start + msgspec.json.encode(WHOLE)
    for parts in ([body], [bytes([byte]) for byte in body]):
        reading = read(*parts, content_type=content_type)
        assert reading.error is None
        assert [chunk.text for chunk in reading.chunks] == ["whole"]
        assert reading.completion.finish_reason == "stop"
        assert list(reading.reader.token_ns) == [len(parts)]


@each_row("content_type", ["application/json", "text/plain", "application/octet-stream", ""])
@each_row("start", [b"", b"\n", b": ping\n\n", b"event: x\n", b"id: 1\n", b"retry: 1\n", BOM])
def test_a_stream_under_another_content_type(content_type: str, start: bytes) -> None:
    reading = read(start, ONE, STOP, content_type=content_type)
    assert reading.error is None
    assert reading.text == "one"


def test_an_error_field_under_another_content_type() -> None:
    assert type(read(b'error: {"code":500}\n\n', content_type="text/plain").error) is StreamServerError


@each_row(
    ("body", "content_type"),
    [
        (b"Internal Server Error", "text/plain"),
        (b"<html>", "text/html"),
        (b"[1, 2]", "application/json"),
        (b"\xff\xfe", ""),
    ],
)
def test_a_body_that_is_neither_is_kept_in_the_error(body: bytes, content_type: str) -> None:
    reading = read(body, content_type=content_type)
    assert type(reading.error) is InvalidResponseError
    assert reading.error.body == body.decode("utf-8", "replace")


@pytest.mark.parametrize("body", [b"<p>" + b"x" * BODY_LIMIT, b"\n" * (BODY_LIMIT + 1), b"No." + b"." * BODY_LIMIT])
def test_a_body_that_is_neither_is_not_read_for_ever(body: bytes) -> None:
    reading = read(body, content_type="text/html", ends=False)
    assert type(reading.error) is InvalidResponseError
    assert len(str(reading.error.body)) == BODY_LIMIT


def test_a_json_body_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatscope.protocol.body_start.MAX_BODY_BYTES", 100)
    fits = b'{"choices": [{"index":0}]' + b" " * 74 + b"}"
    assert read(fits).error is None
    reading = read(fits + b" ", ends=False)
    assert type(reading.error) is InvalidResponseError
    assert "larger than 100 bytes" in str(reading.error)


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("broken", [True, False])
def test_an_event_beyond_the_limit(monkeypatch: pytest.MonkeyPatch, ends: bool, broken: bool) -> None:
    decoder = SSEDecoder
    monkeypatch.setattr(
        "chatscope.protocol.stream_decoder.SSEDecoder",
        lambda *, error_field: decoder(error_field=error_field, max_event_bytes=99),
    )
    long = b"data: " + b"x" * 100
    for parts in ([ONE + long], [ONE, long], [bytes([byte]) for byte in ONE + long]):
        reading = read(*parts, *(() if ends else (b"\n",)), ends=ends, broken=broken)
        assert type(reading.error) is StreamProtocolError
        assert [chunk.text for chunk in reading.chunks] == ["one"]
        assert reading.error.partial_text == "one"


def test_the_key_is_blotted_out_of_what_the_server_repeats() -> None:
    for raw in (
        b"data: wrong key sk-secret\n\n",
        data({"error": {"message": "wrong key sk-secret", "code": "sk-secret"}}),
        b"<html>wrong key sk-secret</html>",
        b'{"detail": "wrong key sk-secret"}',
        b"error: sk-secret\n\n",
    ):
        error = read(raw, secret="sk-secret").error
        assert error is not None
        assert "sk-secret" not in f"{error} {error!r} {vars(error)}"
        assert "***" in str(vars(error))


def test_the_time_of_each_chunk_that_says_something() -> None:
    usage = data({"choices": [], "usage": {"total_tokens": 3}})
    reading = read(data(says("")), ONE, b": ping\n\n", TWO[:9], TWO[9:] + ONE, STOP, usage, DONE)
    assert list(reading.reader.token_ns) == [1, 4, 4]
    assert reading.completion.usage is not None
    assert reading.completion.usage.total_tokens == 3


def test_a_character_split_over_two_reads() -> None:
    raw = 'data: {"choices":[{"delta":{"content":"\U0001f600"}}]}\n\n'.encode()
    for place in range(len(raw)):
        assert read(raw[:place], raw[place:], DONE).text == "\U0001f600"


@pytest.mark.slow
@each_row(
    ("shape", "closing"),
    [
        (b'data: {"unknown":', b',"choices":[{"delta":{"content":"a"}}]}\n\n'),
        (b'data: {"choices":[{"delta":{"content":"a","unknown":', b"}}]}\n\n"),
        (b'data: {"choices":[{"delta":{"reasoning_details":[', b"]}}]}\n\n"),
        (b'data: {"created":NaN,"choices":[{"delta":{"unknown":', b"}}]}\n\n"),
        (b'data: {"error":{"message":', b"}}\n\n"),
        (b'{"choices":[{"message":{"audio":', b"}}]}"),
        (b'{"error":{"message":', b"}}"),
    ],
)
@each_row("brackets", [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_never_escapes_as_a_recursion_error(
    shape: bytes, closing: bytes, brackets: tuple[bytes, bytes]
) -> None:
    opens, closes = brackets
    # Every depth around the one at which Python's stack ends: it differs by the function that gets there first.
    for depth in (1, 50, *range(200, 900, 50), *range(900, 1001, 3), 100_000):
        raw = shape + opens * depth + b"1" + closes * depth + closing
        reading = read(raw + raw, DONE, secret="sk-secret")
        assert reading.error is None or isinstance(reading.error, ChatError)
        if depth <= 50:
            assert not isinstance(reading.error, StreamProtocolError)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-10, 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
structs = [Chunk, ChunkChoice, Delta, ToolCallDelta, FunctionDelta, CustomDelta, Logprobs, TokenLogprob, Usage, XGroq]
names = st.sampled_from(
    sorted({name for struct in structs for name in struct.__struct_encode_fields__} | {"message", "text", "thinking"})
)
chunk_like = st.recursive(
    json_values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def chunks(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a chunk that is right in outline and odd in detail."""
    call = st.dictionaries(names, chunk_like, max_size=3)
    delta = st.dictionaries(names, chunk_like, max_size=4) | st.builds(
        lambda calls: {"tool_calls": calls}, st.lists(call)
    )
    choice = st.fixed_dictionaries(
        {}, optional={"index": chunk_like, "delta": delta, "message": delta, "logprobs": chunk_like}
    )
    made: dict[str, Any] = draw(st.dictionaries(names, chunk_like, max_size=4))
    if draw(st.booleans()):
        made["choices"] = draw(st.lists(choice | chunk_like, max_size=3))
    return made


@given(st.lists(chunks() | st.dictionaries(st.text(max_size=5), json_values, max_size=4), min_size=1, max_size=4))
def test_any_json_object_is_a_chunk_or_an_error_object(objects: list[dict[str, Any]]) -> None:
    reading = read(b"".join(map(data, objects)) + DONE)
    assert reading.error is None or isinstance(reading.error, StreamServerError | StreamTruncatedError)
    assert len(reading.chunks) == len(objects) or reading.error is not None
    for chunk, sent in zip(reading.chunks, objects, strict=False):
        assert chunk.to_dict() == sent
    msgspec.json.encode(reading.completion.to_dict())


@pytest.mark.slow
@given(chunks())
def test_any_json_object_as_the_body(sent: dict[str, Any]) -> None:
    reading = read(msgspec.json.encode(sent), content_type="application/json")
    assert type(reading.error) in {type(None), StreamServerError, InvalidResponseError}
    assert reading.reader.done
    assert (reading.error is None) <= bool(reading.completion.choices)


parts_of_streams = st.sampled_from(
    [ONE, TWO, STOP, DONE, BOM, b"\n", b"\r", b"data:", b"data: ", b"{", b"}", b"<", b"[DONE]", b": x\n\n", b"\xff"]
) | st.sampled_from(
    [b"error: ", b"event: error\n", b"event: ping\n", b"data: nonsense\n\n", data({"error": "x"}), b'{"choices": []}']
)
anything = st.binary(max_size=100) | st.builds(
    b"".join, st.lists(parts_of_streams | st.binary(max_size=4), max_size=12)
)


@given(
    anything, st.lists(st.integers(min_value=0), max_size=12), st.sampled_from(["text/event-stream", ""]), st.booleans()
)
@example(ONE + b"data: nonsense\n", [60, 70], "text/event-stream", False)
@example(BOM + ONE + DONE, [1, 2, 3], "", True)
def test_any_bytes_split_anywhere_have_one_outcome(
    raw: bytes, where: list[int], content_type: str, broken: bool
) -> None:
    whole = read(raw, content_type=content_type, broken=broken)
    assert whole.reader.done or whole.error is not None
    assert read(*cut(raw, where), content_type=content_type, broken=broken).outcome == whole.outcome


texts = st.builds(lambda text: data(says(text)), st.text(max_size=3))
roles = st.just(data({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}))
odd = st.builds(lambda text, more: data(says(text) | more), st.text(max_size=3), st.dictionaries(names, json_values))


@given(st.lists(texts | roles | odd | st.builds(data, chunks()) | parts_of_streams | st.just(BOM + ONE), max_size=12))
@example([ONE, TWO, TWO, STOP, DONE])
@example([ONE, TWO + TWO + TWO, TWO + STOP + DONE])
@example([b"data: {}", b"\n\n", ONE, TWO])
@example([data({"choices": [{"delta": {"content": "a"}}]}), ONE, TWO])
def test_a_reader_that_keeps_no_chunks_reads_the_same(reads: list[bytes]) -> None:
    one, other = StreamDecoder(), StreamDecoder()
    other.builds_text_chunks = False
    for at_ns, read_ in enumerate(reads):
        if one.done or one.error is not None:
            break
        fed = one.feed(read_, at_ns)
        if not other.feed_text(read_, at_ns):
            assert len(other.feed(read_, at_ns)) == len(fed)
    assert other.assembler.completion() == one.assembler.completion()
    assert other.assembler.text_parts == one.assembler.text_parts
    assert other.token_ns == one.token_ns
    assert (other.done, repr(other.error)) == (one.done, repr(one.error))
    one.end(99)
    other.end(99)
    assert (other.done, repr(other.error)) == (one.done, repr(one.error))


def test_text_is_read_the_short_way() -> None:
    reader = StreamDecoder()
    assert not reader.feed_text(ONE, 1)  # the first chunk names the model
    reader.feed(ONE, 1)
    assert reader.feed_text(TWO, 2) == " two"
    assert reader.text_chunk(" two", TWO) == ChunkDecoder().decode(TWO[6:-2])[0]
    assert not reader.feed_text(STOP, 3)
    assert not reader.feed_text(DONE, 3)
    assert not reader.feed_text(TWO[:-1], 3)
    assert reader.assembler.text_parts == ["one", " two"]
    assert list(reader.token_ns) == [1, 2]
