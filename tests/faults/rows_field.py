"""Rows: what real servers send on a stream (docs/servers.md). Most of it must just work."""

from __future__ import annotations

import json
from typing import Any

from tests.faults.rows import Row, Via, completes, events, every_way, fails, on_one_loop, wire
from tests.faults.rows_ending import faulty
from tests.support.defaults import TEXT

from chatscope import (
    InvalidResponseError,
    StreamProtocolError,
    StreamServerError,
    StreamTruncatedError,
)
from chatscope.simulator import (
    Carrier,
    Close,
    ErrorShape,
    Fault,
    Framing,
    Part,
    Reply,
    Response,
    Stage,
    ToolCall,
    UsageIn,
    faults,
    html,
    respond,
)


def chunk(delta: Any = None, finish: str | None = None, **more: Any) -> str:
    """Return a chunk's JSON text, as plain as servers send it."""
    choice: dict[str, Any] = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    return json.dumps({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice], **more})


def says(text: str) -> str:
    """Return a chunk that adds a text."""
    return chunk({"content": text})


def whole(text: str, **more: Any) -> dict[str, Any]:
    """Return a completion that was not streamed."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], **more}


STOP = chunk(finish="stop")
DONE = "[DONE]"
HELLO = says("Hello")
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}

FILLERS = (
    faults.KEEP_ALIVE,
    b": OPENROUTER PROCESSING\n\n",
    faults.WRAPPED_COMMENT,
    faults.PING,
    faults.RETRY_ONLY,
    faults.EMPTY_DATA,
    b"\n\n\r\n\r\n",
    b"field\nwait: 3\n\n",
    b'event: status\ndata: {"message": "queued"}\n\nevent: log\ndata: on it\n\n',
    b"data: ping - 2026-01-01T00:00:00Z\n\ndata: None\n\n",
)
"""What servers keep a connection alive with, and other events that say nothing."""

KEPT_ALIVE = every_way(
    *(
        completes(f"fillers of every kind {where}", faulty(faults.insert(b"".join(FILLERS), at, times=3)))
        for where, at in (("at first", Stage.ROLE), ("between tokens", 1), ("at last", Stage.DONE))
    ),
)

SEPARATED = "a\u2028b\u2029c\u0085d\x0be"
"""What other grammars, and Python's own `splitlines`, end a line at."""

SPELLING = every_way(
    completes("CR LF", faulty(faults.crlf())),
    completes("CR alone", faulty(Fault("cr", lambda made: _replaced(made, b"\n", b"\r")))),
    completes("a byte order mark", faulty(faults.bom())),
    completes("no blank line after the last event", faulty(faults.unterminated())),
    completes("no blank line after a last finish chunk", faulty(faults.no_done(), faults.unterminated())),
    completes("a byte at a time", faulty(faults.rechunk(1))),
    completes("a byte at a time, CR LF and a byte order mark", faulty(faults.bom(), faults.crlf(), faults.rechunk(1))),
    completes("all at once", faulty(faults.rechunk(100_000))),
    completes("no space after the colon", faulty(Fault("tight", lambda made: _replaced(made, b"data: ", b"data:")))),
    completes("data in two lines", events('{"choices":\ndata: [{"delta": {"content": "Hello"}}]}', DONE), "Hello"),
    completes("separators of other standards", Reply(SEPARATED), SEPARATED),
    completes("an emoji cut at every byte", Reply("\U0001f600 ok", faults=(faults.rechunk(1),)), "\U0001f600 ok"),
    completes(
        "bytes that are no UTF-8", events(b'{"choices": [{"delta": {"content": "caf\xe9"}}]}', DONE), "caf\ufffd"
    ),
    completes("half of a surrogate pair", events(r'{"choices": [{"delta": {"content": "\ud83d"}}]}', DONE), "\ufffd"),
    completes("a raw control character", events('{"choices": [{"delta": {"content": "a\tb"}}]}', DONE), "a\tb"),
    completes("NaN", events('{"choices": [{"delta": {"content": "Hello"}, "logprob": NaN}]}', DONE), "Hello"),
    completes("duplicate keys", events(HELLO, '{"choices": [], "usage": null, "usage": null}', STOP, DONE), "Hello"),
)


def _replaced(made: Response, old: bytes, new: bytes) -> Response:
    body = tuple(
        Part(item.data.replace(old, new), item.stage) if isinstance(item, Part) else item for item in made.body
    )
    return Response(made.status, made.headers, body, made.framing)


CHUNKS = [
    completes("a first chunk without choices", events(chunk(choices=[], id="", model=""), HELLO, STOP, DONE), "Hello"),
    completes("a choice without delta", events(HELLO, '{"choices": [{"index": 0}]}', STOP, DONE), "Hello"),
    completes("a delta that is null", events(HELLO, '{"choices": [{"delta": null}]}', STOP, DONE), "Hello"),
    completes("choices that are null", events(HELLO, '{"choices": null}', STOP, DONE), "Hello"),
    completes("chunks without anything", events("{}", HELLO, "{}", STOP, DONE), "Hello"),
    completes("created: 0, id: ''", events(chunk({"content": "Hello"}, created=0, id=""), DONE), "Hello"),
    completes("created in fractions", events(chunk({"content": "Hello"}, created=1.5), DONE), "Hello"),
    completes("numbers as text", events(chunk({"content": "Hello"}, created="7"), DONE), "Hello"),
    completes("finish_reason: null on a complete response", events(HELLO, DONE), "Hello"),
    completes("a finish_reason that nobody knows", events(HELLO, chunk(finish="eos_token")), "Hello"),
    completes("a finish_reason twice", events(HELLO, STOP, STOP, DONE), "Hello"),
    completes("text after the finish_reason", events(HELLO, STOP, says("!"), DONE), "Hello!"),
    completes(
        "another id on each chunk",
        events(chunk({"content": "Hel"}, id="1"), chunk({"content": "lo"}, id="2"), DONE),
        "Hello",
    ),
    completes("content as parts", events(chunk({"content": [{"type": "text", "text": "Hello"}]}), STOP, DONE), "Hello"),
    completes(
        "content that is null", events(chunk({"content": None, "role": "assistant"}), HELLO, STOP, DONE), "Hello"
    ),
    completes(
        "two choices, one without an end",
        events(HELLO, '{"choices": [{"index": 1, "delta": {"content": "x"}}]}', STOP, DONE),
        "Hello",
    ),
    completes("nothing said and a finish_reason", events(STOP, DONE), ""),
    completes("a refusal", Reply(refusal="I will not."), ""),
    completes("reasoning, then text", Reply(TEXT, reasoning="Well ...")),
    completes("reasoning by its other name", Reply(TEXT, reasoning="Well ...", reasoning_field="reasoning")),
    completes("a tool call", Reply(tool_calls=(ToolCall("look", {"at": "it"}),)), ""),
    completes("fields that nobody knows in a chunk", events(chunk({"content": "Hello", "x": 1}, y={}), DONE), "Hello"),
]

TOOL_CALLS: dict[str, list[Any]] = {
    "without index": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
    "all with index 0": [{"index": 0, "id": str(n), "function": {"name": "f", "arguments": "{}"}} for n in (1, 2)],
    "without id": [{"index": 0, "function": {"name": "f"}}, {"index": 0, "function": {"arguments": "{}"}}],
    "with arguments before the name": [
        {"index": 0, "function": {"arguments": "{"}},
        {"index": 0, "function": {"name": "f", "arguments": "}"}},
    ],
    "with a name repeated": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": a}} for a in ("{", "}")],
    "in JSON text": ['[{"id": "1", "function": {"name": "f", "arguments": "{}"}}]'],
    "with arguments as an object": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": {"a": 1}}}],
}

TOOLS = [
    completes(
        f"tool calls {name}",
        events(*(chunk({"tool_calls": [call] if isinstance(call, dict) else call}) for call in calls), STOP, DONE),
        "",
    )
    for name, calls in TOOL_CALLS.items()
]

USAGES = [
    *(
        completes(
            f"usage {usage_in.value}",
            Reply(TEXT, usage_in=usage_in),
            tokens=None if usage_in is UsageIn.NOWHERE else 12,
        )
        for usage_in in UsageIn
    ),
    completes("usage with an empty choice", events(HELLO, STOP, chunk({}, usage=USAGE), DONE), "Hello", tokens=7),
    completes(
        "a chunk without choices after the usage",
        events(HELLO, STOP, chunk(choices=[], usage=USAGE), chunk(choices=[]), DONE),
        "Hello",
        tokens=7,
    ),
    completes("usage after [DONE]", events(HELLO, STOP, DONE, chunk(choices=[], usage=USAGE)), "Hello"),
]

OTHER_BODIES = [
    completes("a whole completion, though a stream was asked", Reply(TEXT, stream=False)),
    completes(
        "a whole completion as text/plain", respond(200, json.dumps(whole("Hello")).encode(), "text/plain"), "Hello"
    ),
    completes(
        "a whole completion called an event stream",
        respond(200, json.dumps(whole("Hello")).encode(), "text/event-stream"),
        "Hello",
    ),
    completes("a whole completion as the one event", events(json.dumps(whole("Hello")), DONE), "Hello"),
    completes("blank lines before a whole completion", Reply(TEXT, stream=False, faults=(faults.blank_lines(),))),
    completes("plain, blank lines before it", Reply(TEXT, faults=(faults.blank_lines(),)), via=Via.PLAIN_TASK),
    completes(
        "plain, a byte order mark",
        respond(200, b"\xef\xbb\xbf" + json.dumps(whole("Hello")).encode()),
        "Hello",
        via=Via.COMPLETE,
    ),
    completes(
        "plain, as text/plain",
        respond(200, json.dumps(whole("Hello")).encode(), "text/plain"),
        "Hello",
        via=Via.COMPLETE,
    ),
    completes(
        "plain, without a content type",
        Response(200, (), (Part(json.dumps(whole("Hello")).encode()),)),
        "Hello",
        via=Via.COMPLETE,
    ),
    completes("a stream, though none was asked", Reply(TEXT, stream=True), via=Via.COMPLETE),
    completes("a stream, though the task asked for none", Reply(TEXT, stream=True), via=Via.PLAIN_TASK),
    completes("a stream called text/plain", faulty(faults.header("content-type", "text/plain"))),
    completes("a stream called JSON", faulty(faults.header("content-type", "application/json"))),
    completes(
        "a stream that the end of the connection ends",
        Response(200, (), (Part(f"data: {HELLO}\n\ndata: [DONE]\n\n".encode()),), Framing.CLOSE),
        "Hello",
    ),
    completes("201 instead of 200", Response(201, (), (Part(f"data: {HELLO}\n\ndata: [DONE]\n\n".encode()),)), "Hello"),
    fails("a page for people", html(), InvalidResponseError, 200),
    fails(
        "a page called an event stream", respond(200, html().content, "text/event-stream"), InvalidResponseError, 200
    ),
    fails("plain, a page for people", html(), InvalidResponseError, 200, via=Via.COMPLETE),
    fails("JSON that is no completion", respond(200, b'{"status": "ok"}'), InvalidResponseError, 200),
    fails(
        "plain, JSON that is no completion",
        respond(200, b'{"status": "ok"}'),
        InvalidResponseError,
        200,
        via=Via.COMPLETE,
    ),
    fails("half of a whole completion", respond(200, b'{"choices": [{"mess'), InvalidResponseError, 200),
    fails(
        "plain, half of a completion", respond(200, b'{"choices": [{"mess'), InvalidResponseError, 200, via=Via.COMPLETE
    ),
    fails("plain, nothing", respond(200), InvalidResponseError, 200, via=Via.COMPLETE),
    fails("plain, JSON null", respond(200, b"null"), InvalidResponseError, 200, via=Via.COMPLETE),
    fails("text that is neither", respond(200, b"OK", "text/plain"), InvalidResponseError, 200),
]

RETRIED = {429, 500, 503}


def reported(name: str, at: Stage | int, status: int | None, fault: Fault) -> Row:
    """Return the row of an error object inside a stream."""
    text = {Stage.ROLE: "", 0: "", 1: "Hello"}.get(at, TEXT)
    attempts = 2 if not text and status in RETRIED else 1
    return fails(name, faulty(fault), StreamServerError, status, text=text, attempts=attempts, says="Out of luck.")


SHAPED: list[tuple[ErrorShape, int | None]] = [
    (ErrorShape.NESTED, 500),  # by its type, server_error
    (ErrorShape.INT_CODE, 503),
    (ErrorShape.FLAT, 503),
    (ErrorShape.STRING, None),
    (ErrorShape.NULL_CHOICES, 503),
    (ErrorShape.IN_CHUNK, 503),
]

REPORTED = every_way(
    *(
        reported(
            f"an error like {shape.value} {where}{', then [DONE]' if done else ''}",
            at,
            status,
            faults.stream_error(at, shape, status=503, message="Out of luck.", done=done),
        )
        for shape, status in SHAPED
        for where, at in (("at first", Stage.ROLE), ("after a token", 1), ("after the finish chunk", Stage.USAGE))
        for done in ((False, True) if shape is ErrorShape.IN_CHUNK else (at == 1,))
    ),
    *(
        reported(
            f"an error in {name} {where}",
            at,
            500,
            faults.stream_error(at, carrier=carrier, message="Out of luck."),
        )
        for name, carrier in (("an error field", Carrier.FIELD), ("an error event", Carrier.EVENT))
        for where, at in (("at first", Stage.ROLE), ("after a token", 1))
    ),
)

REPORTED_OTHERWISE = [
    fails(
        f"a stream's error with code {code}",
        events(HELLO, json.dumps({"error": {"message": "no", "code": code}})),
        StreamServerError,
        status,
        text="Hello",
    )
    for code, status in ((400, 400), ("429", 429), ("context_length_exceeded", 400), (7, None), (None, None))
] + [
    *(
        fails(f"{name}, in a 200", events(HELLO, json.dumps(sent), DONE), StreamServerError, status, text="Hello")
        for name, status, sent in (
            ("an error in the choice", 502, {"choices": [{"delta": {}, "error": {"message": "no", "code": 502}}]}),
            ("a code and a message", None, {"code": 10014, "message": "no", "choices": []}),
            ("error_code and error_msg", None, {"error_code": 336003, "error_msg": "no"}),
            ("base_resp", 402, {"choices": None, "base_resp": {"status_code": 1008, "status_msg": "no"}}),
            ("a list of errors", None, {"errors": [{"code": 3040, "message": "no"}], "success": False}),
        )
    ),
    fails("a finish_reason of error", events(HELLO, chunk(finish="error"), DONE), StreamServerError, 500, text="Hello"),
    fails("no choice, and [DONE]", events('{"choices": []}', DONE), StreamTruncatedError, attempts=2),
    fails(
        "no blank lines between the events",
        events(f"{HELLO}\ndata: {STOP}\ndata: {DONE}"),
        StreamProtocolError,
        says="not separated by blank lines",
        attempts=1,
    ),
    completes("an empty error beside the response", events(chunk({"content": "Hello"}, error={}), STOP, DONE), "Hello"),
    completes("data: null and keep-alives", events("null", HELLO, "keep-alive", STOP, DONE), "Hello"),
    fails(
        "an error event that is no JSON",
        events(HELLO, "Out of luck.\nevent: error"),
        StreamServerError,
        text="Hello",
        says="Out of luck.",
    ),
    fails("an error as a body, though a stream was asked", respond(200, b'{"error": "no"}'), StreamServerError),
    fails(
        "a broken chunk after a token, in one read",
        wire(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\ndata: %b\n\n\r\nzz\r\n"
            % (len(HELLO) + 8, HELLO.encode()),
            Close(),
        ),
        InvalidResponseError,
        200,
        text="Hello",
    ),
]

ROWS = on_one_loop(*KEPT_ALIVE, *SPELLING, *CHUNKS, *TOOLS, *USAGES, *OTHER_BODIES, *REPORTED, *REPORTED_OTHERWISE)
