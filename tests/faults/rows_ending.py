"""Rows: the ends of a response. The table in docs/servers.md, and each way of breaking off at each stage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.faults.rows import (
    Row,
    Via,
    completes,
    ends_within,
    events,
    every_way,
    fails,
    instead,
    last_words,
    on_one_loop,
    on_two_loops,
    wire,
)
from tests.support.defaults import BRIEF, TEXT

from chatscope import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    StreamProtocolError,
    StreamServerError,
    StreamTruncatedError,
)
from chatscope.simulator import Answer, Close, ErrorShape, Fault, Reply, Reset, Stage, Stall, error, faults
from chatscope.simulator.plan import Point, Step


def faulty(*made: Fault, text: str = TEXT) -> Reply:
    """Return the usual response with faults."""
    return Reply(text, faults=made)


TABLE = every_way(
    completes("[DONE] after a finish_reason", faulty()),
    completes("[DONE] without a finish_reason", faulty(last_words(faults.DONE, at=Stage.FINISH))),
    completes("a finish_reason and a clean end", faulty(faults.no_done())),
    completes("a clean end within [DONE]", faulty(ends_within(Stage.DONE))),
    fails("neither [DONE] nor finish_reason", faulty(faults.end(1)), StreamTruncatedError, text="Hello"),
    fails("neither, after the last token", faulty(faults.end(Stage.FINISH)), StreamTruncatedError, text=TEXT),
    fails("a clean end within an event", faulty(ends_within(1)), StreamTruncatedError, text="Hello"),
    fails("a clean end before the first token", faulty(faults.end(0)), StreamTruncatedError, attempts=2),
    fails("no event at all", faulty(faults.zero_bytes()), StreamTruncatedError, attempts=2),
    fails("nothing but comments", events(": ping"), StreamTruncatedError, attempts=2),
    fails("nothing but white space", events(" "), StreamTruncatedError, attempts=2),
    fails("nothing but [DONE]", faulty(faults.only_done()), StreamTruncatedError, attempts=2),
    fails("no content: 204", wire(b"HTTP/1.1 204 No Content\r\n\r\n"), StreamTruncatedError, attempts=2),
    fails("data that is no JSON", faulty(faults.malformed(1)), StreamProtocolError, text="Hello"),
    fails("data that is no JSON, at first", faulty(faults.malformed(Stage.ROLE)), StreamProtocolError),
    fails("data that is no JSON, at last", faulty(faults.malformed(Stage.DONE)), StreamProtocolError, text=TEXT),
    completes("data that is no JSON, after [DONE]", faulty(faults.insert(faults.MALFORMED, Stage.END))),
    *(
        fails(f"data that is no object: {data[:10]}", events(data), StreamProtocolError)
        for data in ("[]", "7", "gone", "[DONE", "[" * 5000 + "]" * 5000)
    ),
)

Cut = Callable[[Step], Fault]
"""A stage: makes the fault that takes a step there."""


def at(point: Point) -> Cut:
    """Return the stage before a part of the response."""
    return lambda step: Fault("cut", lambda response: response.interrupted(point, step))


def broken_off(where: str, cut: Cut, text: str, *, attempts: int = 1, phase: str = "idle") -> list[Row]:
    """Return the rows in which a stream ends too early: closed, reset, and silent for ever."""
    told: dict[str, Any] = {"text": text, "attempts": attempts}
    return [
        fails(f"closed {where}", faulty(cut(Close())), StreamTruncatedError, **told),
        fails(f"reset {where}", faulty(cut(Reset())), StreamTruncatedError, **told),
        *on_two_loops(
            fails(f"silent {where}", faulty(cut(Stall())), APITimeoutError, **told, phase=phase, timeouts=BRIEF)
        ),
    ]


def broken_off_at_the_end(where: str, cut: Cut) -> list[Row]:
    """Return the rows in which a stream has a finish_reason: what breaks off is cut, what is silent has ended."""
    return [
        *broken_off(where, cut, TEXT)[:2],
        *on_two_loops(completes(f"silent {where}", faulty(cut(Stall())), timeouts=BRIEF)),
    ]


def unharmed(where: str, cut: Cut) -> list[Row]:
    """Return the rows in which what happens to the connection concerns the response no more."""
    return [
        completes(f"{how} {where}", faulty(cut(step)))
        for how, step in (("closed", Close()), ("reset", Reset()), ("silent", Stall()))
    ]


BREAKING_OFF = [
    *broken_off("before the first byte of the body", at(Stage.ROLE), "", attempts=2, phase="first_token"),
    *broken_off("before the first token", at(0), "", attempts=2, phase="first_token"),
    *broken_off("after a token", at(1), "Hello"),
    *broken_off("within a chunk", partial(instead, faults.cut_chunk(1)), "Hello"),
    *broken_off("within a character", partial(instead, faults.cut_character(2)), "Hello,"),
    *broken_off("before the finish chunk", at(Stage.FINISH), TEXT),
    *broken_off_at_the_end("after the finish chunk", at(Stage.USAGE)),
    *broken_off_at_the_end("before [DONE]", at(Stage.DONE)),
    *broken_off_at_the_end("within [DONE]", partial(instead, faults.cut_chunk(Stage.DONE))),
    *unharmed("after [DONE]", at(Stage.END)),
    *unharmed("after the whole response", at(Stage.IDLE)),
]

STREAMED = [
    *BREAKING_OFF,
    *(row.by(Via.STREAM) for row in BREAKING_OFF if row.timeouts is not BRIEF),
]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
TEXT_EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
FINISH_EVENT = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n'
ERROR_EVENT = b'data: {"error":{"message":"no","code":400}}\n'
WHOLE = b'{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":null}]}'

PLAIN = [
    row
    for how, step in (("closed", Close()), ("reset", Reset()))
    for where, cut in (
        ("after the request", at(Stage.STATUS)),
        ("after the status line", at(Stage.HEADERS)),
        ("before the body", at(Stage.CONTENT)),
        ("within the body", partial(instead, faults.cut_chunk(Stage.CONTENT))),
    )
    for row in (
        fails(f"plain, {how} {where}", faulty(cut(step)), APIConnectionError, attempts=2, via=Via.PLAIN_TASK),
        fails(f"plain, {how} {where}, complete", faulty(cut(step)), APIConnectionError, attempts=2, via=Via.COMPLETE),
    )
] + [
    fails(
        "plain, silent before the body",
        faulty(faults.stall(Stage.CONTENT)),
        APITimeoutError,
        attempts=2,
        phase="first_token",
        via=Via.PLAIN_TASK,
        timeouts=BRIEF,
    ),
    fails(
        "plain, silent within the body",
        faulty(instead(faults.cut_chunk(Stage.CONTENT), Stall())),
        APITimeoutError,
        attempts=2,
        phase="first_token",
        via=Via.COMPLETE,
        timeouts=BRIEF,
    ),
    completes("plain, silent after the body", faulty(faults.stall(Stage.END)), via=Via.PLAIN_TASK),
    completes(
        "plain, silent after a body without an end", wire(HEAD, WHOLE, Stall()), "a", via=Via.COMPLETE, timeouts=BRIEF
    ),
    fails(
        "plain, silent within a stream that was not requested",
        wire(HEAD, TEXT_EVENT, Stall()),
        APITimeoutError,
        text="a",
        attempts=2,
        phase="first_token",
        via=Via.COMPLETE,
        timeouts=BRIEF,
    ),
    completes("plain, silent after [DONE]", wire(HEAD, TEXT_EVENT, faults.DONE, Stall()), "a", via=Via.COMPLETE),
    fails(
        "plain, silent after an error without an end",
        wire(HEAD.replace(b"200 OK", b"400 No"), b'{"error":{"message":"no","code":"c"}}', Stall()),
        BadRequestError,
        400,
        via=Via.COMPLETE,
        timeouts=BRIEF,
        says="HTTP 400: no",
    ),
]

KEPT = [
    completes("a kept connection closed meanwhile", [faulty(faults.close(Stage.IDLE)), faulty()], before=1),
    completes("a kept connection reset meanwhile", [faulty(faults.reset(Stage.IDLE)), faulty()], before=1),
    completes(
        "a kept connection closed at the next request", [faulty(), wire(Close()), faulty()], attempts=2, before=1
    ),
    completes("a kept connection reset at the next request", [faulty(), wire(Reset()), faulty()], attempts=2, before=1),
    completes(
        "a kept connection closed within the next head",
        [faulty(), wire(b"HTTP/1.1 200", Close()), faulty()],
        attempts=2,
        before=1,
    ),
]

BREAKING_ONCE: dict[str, Answer] = {
    "closed after the request": faulty(faults.close(Stage.STATUS)),
    "reset within the head": faulty(faults.reset(Stage.HEADERS)),
    "closed before the first token": faulty(faults.close(0)),
}

REFUSING_ONCE: dict[str, Answer] = {
    "503": error(503),
    "429": error(429),
    "429 with a time to wait": error(429, retry_after=0.01),
    "zero bytes": faulty(faults.zero_bytes()),
    "nothing but [DONE]": faulty(faults.only_done()),
    "a server error inside the stream": faulty(faults.stream_error(0)),
    "a rate limit inside the stream": faulty(faults.stream_error(0, ErrorShape.INT_CODE, status=429)),
}


def recovers(failing: dict[str, Answer]) -> list[Row]:
    """Return the rows in which the first request fails and the second succeeds."""
    return [completes(f"{name}, then well", [first, faulty()], attempts=2) for name, first in failing.items()]


RECOVERY = [
    *recovers(BREAKING_ONCE),
    fails("text is not asked for again", [faulty(faults.close(1)), faulty()], StreamTruncatedError, text="Hello"),
]

RECOVERY_BY_WORDS = [
    *recovers(REFUSING_ONCE),
    fails("nor after a server error", [faulty(faults.stream_error(1)), faulty()], StreamServerError, 500, text="Hello"),
]

NO_BLANK_LINE = every_way(
    completes(
        "silent after [DONE] without a blank line",
        wire(HEAD + TEXT_EVENT + b"data: [DONE]\n", Stall()),
        "a",
        timeouts=BRIEF,
    ),
    completes(
        "silent after a finish_reason without one", wire(HEAD + TEXT_EVENT + FINISH_EVENT, Stall()), "a", timeouts=BRIEF
    ),
    fails(
        "silent after an error without one",
        wire(HEAD + TEXT_EVENT + ERROR_EVENT, Stall()),
        StreamServerError,
        400,
        text="a",
        timeouts=BRIEF,
    ),
)

ROWS = [
    *on_two_loops(*NO_BLANK_LINE),
    *on_one_loop(*TABLE, *RECOVERY_BY_WORDS),
    *STREAMED,
    *PLAIN,
    *KEPT,
    *RECOVERY,
]
