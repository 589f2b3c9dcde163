"""Rows: responses that are too much or too slow. No end, no measure, a bomb, a byte at a time."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

from tests.faults.rows import Row, Via, completes, fails, on_one_loop, on_two_loops, wire
from tests.faults.rows_ending import faulty
from tests.support.defaults import TEXT

from chatscope import (
    APITimeoutError,
    BadRequestError,
    InvalidResponseError,
    StreamProtocolError,
    StreamTruncatedError,
    Timeouts,
)
from chatscope.simulator import Framing, Part, Plan, Repeat, Reply, Response, Send, Stage, Wait, faults
from chatscope.simulator.plan import Step

KIB, MIB = 1024, 1024 * 1024

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"

SOON = 0.3
"""Seconds: a deadline that passes while the server keeps talking, whatever a busy machine does meanwhile."""

FIRST_TOKEN = Timeouts(first_token=SOON, read=30)
IDLE = Timeouts(idle=SOON, read=30)
TOTAL = Timeouts(total=SOON, read=30)


def spoken_on(name: str, at: Stage | int, text: str, sends: bytes, *, seconds: float = 0.005) -> Iterator[Row]:
    """Yield the rows in which a server keeps the connection busy without ever saying anything more."""
    script = faulty(faults.endless(sends, at, seconds=seconds))
    if not text:
        yield fails(
            f"{name}, first_token", script, APITimeoutError, attempts=2, phase="first_token", timeouts=FIRST_TOKEN
        )
    else:
        yield fails(f"{name}, idle", script, APITimeoutError, text=text, phase="idle", timeouts=IDLE)
    yield fails(f"{name}, total", script, APITimeoutError, text=text, phase="total", timeouts=TOTAL)


KEEP_ALIVE = [
    *spoken_on("endless comments at first", Stage.ROLE, "", faults.KEEP_ALIVE),
    *spoken_on("endless comments after a token", 1, "Hello", faults.KEEP_ALIVE),
    *spoken_on("endless comments as data", 0, "", faults.WRAPPED_COMMENT),
    *spoken_on("endless pings", 1, "Hello", faults.PING),
    *spoken_on("endless blank lines", 1, "Hello", b"\n"),
    *spoken_on("a flood of comments", 1, "Hello", faults.KEEP_ALIVE * 100, seconds=0.0),
    fails(
        "endless comments, by the task's own deadline",
        faulty(faults.endless(at=1, seconds=0.005)),
        APITimeoutError,
        text="Hello",
        phase="total",
        deadline=SOON,
    ),
    completes("comments that end", faulty(faults.insert(faults.KEEP_ALIVE, 1, times=2000))),
    completes("endless comments after [DONE]", faulty(faults.endless(at=Stage.END, seconds=0.005))),
    fails(
        "plain, endless white space",
        faulty(faults.endless(b"\n", Stage.CONTENT, seconds=0.005)),
        APITimeoutError,
        attempts=2,
        phase="first_token",
        via=Via.COMPLETE,
        timeouts=FIRST_TOKEN,
    ),
]


def without_end(name: str, *parts: bytes | Step, memory: int = 8 * MIB) -> Row:
    """Return a row in which HTTP itself has no end."""
    return fails(name, wire(*parts), InvalidResponseError, memory=memory, says="not valid HTTP")


ENDLESS_HEADS = [
    fails("endless headers", faulty(faults.endless_headers()), InvalidResponseError, memory=8 * MIB),
    without_end("endless small headers", HEAD, Repeat(b"a: b\r\n" * 100)),
    without_end("an endless header", HEAD + b"x: ", Repeat(b"x" * 16 * KIB)),
    without_end("an endless name of a header", HEAD, Repeat(b"x" * 16 * KIB)),
    without_end("an endless status line", b"HTTP/1.1 200 ", Repeat(b"x" * 16 * KIB)),
    without_end("endless interim responses", Repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)),
    without_end("endless blank lines before the head", Repeat(b"\r\n" * 1000)),
]

ENDLESS_LINES = [
    fails("an endless line", faulty(faults.endless_line(1)), StreamProtocolError, text="Hello", memory=80 * MIB),
    fails("an endless first line", faulty(faults.endless_line(Stage.ROLE)), StreamProtocolError, memory=80 * MIB),
    fails(
        "an endless event",
        faulty(faults.endless(b"data: %b\n" % (b"x" * 16 * KIB), 1)),
        StreamProtocolError,
        text="Hello",
        memory=80 * MIB,
    ),
    fails(
        "an endless comment",
        faulty(faults.insert(b": ", 1), faults.endless(b"x" * 16 * KIB, 2)),
        StreamProtocolError,
        text="Hello",
        memory=80 * MIB,
    ),
    fails(
        "a line of 256 MiB",
        Plan(
            (
                Send(HEAD + b"\r\n"),
                Send(Framing.CHUNKED.frame(b"data: ")),
                *[Send(Framing.CHUNKED.frame(b"x" * 64 * KIB))] * (256 * MIB // (64 * KIB)),
                Send(Framing.CHUNKED.frame(b"\n\n") + b"0\r\n\r\n"),
            )
        ),
        StreamProtocolError,
        memory=80 * MIB,
    ),
    fails(
        "an endless body that is no stream",
        Response(200, (("content-type", "text/plain"),), (Repeat(b"x" * 16 * KIB),), Framing.CLOSE),
        InvalidResponseError,
        200,
        memory=8 * MIB,
    ),
]

ENDLESS_FRAMING = [
    fails(name, wire(*parts), InvalidResponseError, 200, memory=8 * MIB, says="not valid HTTP")
    for name, parts in {
        "endless trailers": (HEAD + b"\r\n0\r\n", Repeat(b"x: " + b"x" * 16 * KIB + b"\r\n")),
        "an endless trailer": (HEAD + b"\r\n0\r\nx: ", Repeat(b"x" * 16 * KIB)),
        "an endless chunk extension": (HEAD + b"\r\n5;", Repeat(b"x" * 16 * KIB)),
        "an endless size of a chunk": (HEAD + b"\r\n", Repeat(b"0" * 16 * KIB)),
    }.items()
]

GZIP = (("content-encoding", "gzip"), ("content-type", "text/event-stream"))


def inflating(begins: bytes, repeated: bytes) -> bytes:
    """Return some 256 KiB of gzip that begin so and go on with that, inflating to 256 MiB; nobody reads to the end."""
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    start = packer.compress(begins) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(repeated * (MIB // len(repeated))) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + block * 256  # after a full flush, a block may be repeated: it refers to nothing before it


def bomb(begins: bytes, repeated: bytes, *, status: int = 200) -> Response:
    """Return a body of some 256 KiB that inflates to 256 MiB."""
    return Response(status, GZIP, (Part(inflating(begins, repeated)),))


BOMBS = [
    fails("a bomb in a line", bomb(b"data: ", b"x"), StreamProtocolError, memory=96 * MIB),
    fails(
        "a bomb of comments",
        bomb(b"", b": " + b"x" * 1022),
        StreamProtocolError,
        memory=96 * MIB,
    ),
    fails(
        "a bomb of comment lines",
        bomb(b"", b": " + b"x" * 16 * KIB + b"\n"),
        InvalidResponseError,
        200,
        memory=32 * MIB,
        says="inflates to more than",
        transport={"max_decoded_bytes": 16 * MIB},
    ),
    fails(
        "plain, a bomb",
        bomb(b'{"x": "', b"x"),
        InvalidResponseError,
        200,
        memory=32 * MIB,
        via=Via.COMPLETE,
        transport={"max_decoded_bytes": 16 * MIB},
    ),
    fails("a bomb as an error", bomb(b"", b"luck", status=400), BadRequestError, 400, memory=32 * MIB),
    fails(
        "a bomb in a bomb",
        Response(
            200,
            (("content-encoding", "gzip, gzip"), ("content-type", "text/event-stream")),
            (Part(gzip.compress(inflating(b"data: ", b"x"))),),
        ),
        StreamProtocolError,
        memory=96 * MIB,
    ),
    fails(
        "more codings than anybody uses",
        Response(200, (("content-encoding", ", ".join(["gzip"] * 50)),), (Part(b"x"),)),
        InvalidResponseError,
        200,
    ),
]

HELLO = b'data: {"choices": [{"delta": {"content": "Hello"}}]}\n\n'
STREAM_BYTES = HELLO + b"data: [DONE]\n\n"

ENCODED = [
    completes("a stream in gzip", Response(200, GZIP, (Part(gzip.compress(STREAM_BYTES)),)), "Hello"),
    completes("a stream in a coding that is not true", faulty(faults.header("content-encoding", "identity"))),
    completes("a stream in a coding that nobody knows", faulty(faults.header("content-encoding", "exotic"))),
    fails(
        "a stream in gzip that is none", faulty(faults.header("content-encoding", "gzip")), InvalidResponseError, 200
    ),
    fails(
        "a stream in gzip, cut off in good order",
        Response(200, GZIP, (Part(gzip.compress(STREAM_BYTES)[:30]),)),
        StreamTruncatedError,
        attempts=2,
    ),
    completes(
        "a stream in gzip without its checksum", Response(200, GZIP, (Part(gzip.compress(STREAM_BYTES)[:-8]),)), "Hello"
    ),
    completes(
        "a stream in gzip twice, in two headers",
        Response(200, (GZIP[0], *GZIP), (Part(gzip.compress(gzip.compress(STREAM_BYTES))),)),
        "Hello",
    ),
]


def a_byte_at_a_time(data: bytes, seconds: float) -> tuple[Step, ...]:
    """Return the steps that send data slowly."""
    return tuple(step for byte in data for step in (Wait(seconds), Send(bytes([byte]))))


SLOW = [
    completes("a byte every half millisecond", faulty(faults.drip(0.0005))),
    fails(
        "a byte at a time, first_token",
        faulty(faults.drip(0.02)),
        APITimeoutError,
        attempts=2,
        phase="first_token",
        timeouts=FIRST_TOKEN,
    ),
    fails(
        "a byte at a time, idle",
        wire(HEAD + b"\r\n" + Framing.CHUNKED.frame(HELLO), Repeat(b"1\r\nx\r\n", 0.02)),
        APITimeoutError,
        text="Hello",
        phase="idle",
        timeouts=IDLE,
    ),
    fails(
        "a byte of the head at a time",
        Plan(a_byte_at_a_time(HEAD + b"x: " + b"y" * 1000, 0.02)),
        APITimeoutError,
        phase="total",
        timeouts=TOTAL,
    ),
    fails(
        "a byte of the head at a time, first_token",
        Plan(a_byte_at_a_time(HEAD + b"x: " + b"y" * 1000, 0.02)),
        APITimeoutError,
        attempts=2,
        phase="first_token",
        timeouts=FIRST_TOKEN,
    ),
    fails(
        "a model that never begins",
        Reply(TEXT, first_token=3600),
        APITimeoutError,
        attempts=2,
        phase="first_token",
        timeouts=FIRST_TOKEN,
    ),
    fails(
        "a model that never goes on",
        Reply(TEXT, between_tokens=3600),
        APITimeoutError,
        text="Hello",
        phase="idle",
        timeouts=IDLE,
    ),
]

ROWS = [
    *on_two_loops(*KEEP_ALIVE, *SLOW),
    *ENDLESS_LINES,
    *on_one_loop(*ENDLESS_HEADS, *ENDLESS_FRAMING, *BOMBS, *ENCODED),
]
