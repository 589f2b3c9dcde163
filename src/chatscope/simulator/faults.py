"""The faults: named changes to an otherwise correct response.

Each function returns a `Fault`. Faults compose: each is applied to the result of the one before. A fault strikes at a
`Point`: before a `Stage`, or after a number of tokens. Faults see bytes and stages, not what the model says. Changes
that need the reply itself (usage in odd places, JSON instead of a stream) are fields of `Reply`. Every shape here was
seen on a real server or proxy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec

from chatscope.simulator.errors import ErrorShape, error_object
from chatscope.simulator.plan import Close, Part, Point, Repeat, Reset, Response, Send, Stage, Stall, Step, Until, Wait

if TYPE_CHECKING:
    import anyio

KEEP_ALIVE = b": keep-alive\n\n"
WRAPPED_COMMENT = b"data: : OPENROUTER PROCESSING\n\n"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
RETRY_ONLY = b"retry: 3000\n\n"
EMPTY_DATA = b"data:\n\n"
MALFORMED = b'data: {"id": "chatcmpl-simulated", "choices": [{"index": 0, "delta": {"content": "cut\n\n'
DONE = b"data: [DONE]\n\n"

FILLER = 16 * 1024
"""Bytes in each write of an endless header or line. They fit a socket buffer, so a disconnection is noticed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A named change to a response."""

    name: str
    change: Callable[[Response], Response] = field(repr=False)

    def __call__(self, response: Response) -> Response:
        """Return the response with this fault in it."""
        return self.change(response)


# -- the connection ends or goes silent --------------------------------------------------------------------------------


def _interruption(name: str, at: Point, step: Step) -> Fault:
    return Fault(name, lambda response: response.interrupted(at, step))


def close(at: Point = 1) -> Fault:
    """Close the connection in the middle of the body."""
    return _interruption("close", at, Close())


def reset(at: Point = 1) -> Fault:
    """Reset the connection (RST)."""
    return _interruption("reset", at, Reset())


def stall(at: Point = 1) -> Fault:
    """Go silent, still connected, until the client disconnects."""
    return _interruption("stall", at, Stall())


def pause(at: Point, seconds: float) -> Fault:
    """Go silent for `seconds`, then continue."""
    return _interruption("pause", at, Wait(seconds))


def hold(at: Point, event: anyio.Event) -> Fault:
    """Go silent until a test sets `event`, then continue."""
    return _interruption("hold", at, Until(event))


def end(at: Point = 1) -> Fault:
    """End the body properly, although the stream is not complete."""
    return Fault("end", lambda response: replace(response, body=response.body[: response.index(at)]))


def cut_chunk(at: Point = 1) -> Fault:
    """Close the connection in the middle of the next part: inside an HTTP chunk, or short of the content-length."""

    def change(response: Response) -> Response:
        index = response.index(at)
        part = next((item for item in response.body[index:] if isinstance(item, Part)), Part(DONE))
        half = response.framing.frame(part.data)[: len(part.data) // 2]
        return response.inserted(at, Send(half), Close())

    return Fault("cut-chunk", change)


def cut_character(at: Point = 1) -> Fault:
    """Close the connection in the middle of the next character that is encoded in several bytes.

    Raises:
        ValueError: When applied: the rest of the body is ASCII.
    """

    def change(response: Response) -> Response:
        for index, item in enumerate(response.body[response.index(at) :], start=response.index(at)):
            if isinstance(item, Part) and not item.data.isascii():
                first = next(place for place, byte in enumerate(item.data) if byte > 0x7F)
                half = Send(response.framing.frame(item.data[: first + 1]))
                return replace(response, body=(*response.body[:index], half, Close(), *response.body[index:]))
        raise ValueError(f"no character of several bytes to cut after {at}")

    return Fault("cut-character", change)


# -- the stream contains something else --------------------------------------------------------------------------------


def insert(data: bytes, at: Point = Stage.ROLE, *, times: int = 1, seconds: float = 0.0) -> Fault:
    """Insert bytes (comments, pings, anything) into the body, `times` times, `seconds` apart, then continue."""
    items = ((Wait(seconds), Part(data)) if seconds else (Part(data),)) * times
    return Fault("insert", lambda response: response.inserted(at, *items))


def endless(data: bytes = KEEP_ALIVE, at: Point = 1, *, seconds: float = 0.0) -> Fault:
    """Send the same bytes every `seconds` until the client disconnects."""
    return Fault("endless", lambda response: response.inserted(at, Repeat(response.framing.frame(data), seconds)))


def endless_headers() -> Fault:
    """Never end the headers."""
    return _interruption("endless-headers", Stage.HEADERS, Repeat(b"x-filler: " + b"x" * FILLER + b"\r\n"))


def endless_line(at: Point = 1) -> Fault:
    """Begin a `data:` line and never end it."""

    def change(response: Response) -> Response:
        return response.inserted(at, Part(b"data: "), Repeat(response.framing.frame(b"x" * FILLER)))

    return Fault("endless-line", change)


def malformed(at: Point = 1) -> Fault:
    """Insert an event that is not JSON, then continue."""
    return Fault("malformed", insert(MALFORMED, at).change)


class Carrier(Enum):
    """The fields of an event that carry an error."""

    DATA = b"data: %b\n\n"
    FIELD = b"error: %b\n\n"
    EVENT = b"event: error\ndata: %b\n\n"


def stream_error(
    at: Point = 1,
    shape: ErrorShape = ErrorShape.NESTED,
    *,
    carrier: Carrier = Carrier.DATA,
    status: int = 500,
    message: str = "The simulated server failed in mid-stream.",
    kind: str | None = None,
    code: str | None = None,
    done: bool = False,
) -> Fault:
    """End the stream with an error object inside HTTP 200, followed by `[DONE]` if `done`."""
    body = error_object(shape, status, message, kind=kind, code=code)
    event = Part(carrier.value % msgspec.json.encode(body))
    tail = (event, Part(DONE, Stage.DONE)) if done else (event,)
    return Fault("stream-error", lambda response: replace(response, body=(*response.body[: response.index(at)], *tail)))


# -- the whole body is different ---------------------------------------------------------------------------------------


def _each_part(name: str, change: Callable[[Part], Part | None]) -> Fault:
    def change_all(response: Response) -> Response:
        items = (change(item) if isinstance(item, Part) else item for item in response.body)
        return replace(response, body=tuple(item for item in items if item is not None))

    return Fault(name, change_all)


def zero_bytes() -> Fault:
    """Answer 200 with an empty body."""
    return Fault("zero-bytes", lambda response: replace(response, body=()))


def only_done() -> Fault:
    """Send `[DONE]` and nothing before it."""
    return Fault("only-done", lambda response: replace(response, body=(Part(DONE, Stage.DONE),)))


def no_done() -> Fault:
    """Leave out `[DONE]`."""
    return _each_part("no-done", lambda part: None if part.stage is Stage.DONE else part)


def unterminated() -> Fault:
    """Leave out the line break and the blank line after the last event."""

    def change(response: Response) -> Response:
        match response.body:
            case (*others, Part() as last):
                return replace(response, body=(*others, replace(last, data=last.data.rstrip(b"\n"))))
            case _:
                return response

    return Fault("unterminated", change)


def crlf() -> Fault:
    """End every line with CR LF."""
    return _each_part("crlf", lambda part: replace(part, data=part.data.replace(b"\n", b"\r\n")))


def bom() -> Fault:
    """Begin the body with a byte order mark."""
    return Fault("bom", lambda response: response.inserted(Stage.ROLE, Part(b"\xef\xbb\xbf", Stage.ROLE)))


def blank_lines(count: int = 5) -> Fault:
    """Begin the body with blank lines."""
    return Fault("blank-lines", insert(b"\n" * count).change)


def header(name: str, value: str) -> Fault:
    """Set a header: another content-type, a `retry-after`, a false content-encoding."""
    return Fault("header", lambda response: response.with_headers((name, value)))


def rechunk(size: int) -> Fault:
    """Cut the body every `size` bytes, wherever that falls, and write each part on its own. Waits are dropped."""

    def change(response: Response) -> Response:
        data = response.content
        return replace(response, body=tuple(Part(data[at : at + size]) for at in range(0, len(data), size)))

    return Fault("rechunk", change)


def drip(seconds: float, size: int = 1) -> Fault:
    """Send the body in parts of `size` bytes, one every `seconds`."""

    def change(response: Response) -> Response:
        parts = rechunk(size)(response).body
        return replace(response, body=tuple(item for part in parts for item in (Wait(seconds), part)))

    return Fault("drip", change)


def rewrite(change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Fault:
    """Change each JSON object of the body (chunk or completion). An object for which `None` is returned is dropped."""

    def change_part(part: Part) -> Part | None:
        prefix = b"data: " if part.data.startswith(b"data: ") else b""
        suffix = b"\n\n" if prefix else b""
        try:
            value = msgspec.json.decode(part.data.removeprefix(prefix))
        except msgspec.DecodeError:
            return part
        changed = change(value)
        return None if changed is None else replace(part, data=prefix + msgspec.json.encode(changed) + suffix)

    return _each_part("rewrite", change_part)
