"""Describes what is sent, as data: steps, a plan of steps, and the HTTP response from which a plan is made.

Everything here is a pure value or a pure function: no sockets, no clock, and nothing about chat. `connection` runs a
plan; `rendering` and `faults` build one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import anyio


@dataclass(frozen=True, slots=True)
class Send:
    """Write these bytes as they are."""

    data: bytes
    is_token: bool = field(default=False, compare=False, repr=False)
    """Whether they are a chunk of the CONTENT stage. `PacedServer` records when these are written."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until this many seconds after the previous wait, so that delays on a busy machine do not add up."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Until:
    """Wait for an event that a test sets: timing without a clock."""

    event: anyio.Event


@dataclass(frozen=True, slots=True)
class Stall:
    """Go silent until the client disconnects."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """Write the same bytes every `seconds` until the client disconnects."""

    data: bytes
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection (FIN). Later steps are ignored."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the connection (RST). Later steps are ignored."""


Step: TypeAlias = Send | Wait | Until | Stall | Repeat | Close | Reset


@dataclass(frozen=True, slots=True)
class Plan:
    """The response to one request, step by step. The connection is kept alive after the last step."""

    steps: tuple[Step, ...]


class Stage(Enum):
    """The parts of a response, in the order of sending. A fault strikes *before* the stage that it names."""

    STATUS = auto()
    """The status line: before it, nothing was sent."""
    HEADERS = auto()
    """The header lines: before them, only the status line was sent."""
    ROLE = auto()
    """The first chunk of a choice: before it, the head was sent, but no byte of the body."""
    CONTENT = auto()
    """The tokens, or the body of a response that is not streamed."""
    FINISH = auto()
    """The chunk with the finish_reason."""
    USAGE = auto()
    """The chunk with the usage, if it was requested."""
    DONE = auto()
    """`data: [DONE]`."""
    END = auto()
    """The end of the body: before it, everything was sent, and the response is still open."""
    IDLE = auto()
    """The time after the whole response, in which a client considers the connection reusable."""


Point: TypeAlias = Stage | int
"""The place where a fault strikes: before a stage, or after this many parts of the CONTENT stage (tokens)."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the body that is written at once: one event of a stream is one HTTP chunk."""

    data: bytes
    stage: Stage = Stage.CONTENT


PHRASES = {status.value: status.phrase for status in HTTPStatus}

LAST_CHUNK = b"0\r\n\r\n"


class Framing(Enum):
    """How a client learns where the body ends (RFC 9112, section 6)."""

    CHUNKED = auto()
    LENGTH = auto()
    CLOSE = auto()

    def frame(self, data: bytes) -> bytes:
        """Return `data` as it is sent. An empty chunk would end the body, so it becomes nothing."""
        return b"%x\r\n%b\r\n" % (len(data), data) if self is Framing.CHUNKED and data else data


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response with any steps between its parts.

    Inserted steps do not remove the parts after them, so `content-length` remains the length of the whole body even if
    the connection is closed in the middle.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: tuple[Part | Step, ...] = ()
    framing: Framing = Framing.LENGTH
    reason: str | None = None
    """The reason phrase. By default, the registered one, if there is one."""
    before_status: tuple[Step, ...] = ()
    before_headers: tuple[Step, ...] = ()
    when_idle: tuple[Step, ...] = ()

    @property
    def content(self) -> bytes:
        """The whole body, for mock transports."""
        return b"".join(item.data for item in self.body if isinstance(item, Part))

    def with_headers(self, *headers: tuple[str, str]) -> Response:
        """Return the response with these headers. They replace headers of the same names."""
        names = {name.lower() for name, _ in headers}
        kept = (header for header in self.headers if header[0].lower() not in names)
        return replace(self, headers=(*kept, *headers))

    def with_default_header(self, name: str, value: str) -> Response:
        """Return the response with this header, unless it already has one of this name."""
        if any(known.lower() == name for known, _ in self.headers):
            return self
        return replace(self, headers=(*self.headers, (name, value)))

    def interrupted(self, at: Point, *steps: Step) -> Response:
        """Return the response with `steps` inserted at a point."""
        match at:
            case Stage.STATUS:
                return replace(self, before_status=(*self.before_status, *steps))
            case Stage.HEADERS:
                return replace(self, before_headers=(*self.before_headers, *steps))
            case Stage.IDLE:
                return replace(self, when_idle=(*self.when_idle, *steps))
            case _:
                return self.inserted(at, *steps)

    def inserted(self, at: Point, *items: Part | Step) -> Response:
        """Return the response with `items` inserted into its body at a point."""
        index = self.index(at)
        return replace(self, body=(*self.body[:index], *items, *self.body[index:]))

    def index(self, at: Point) -> int:
        """Return the index of a point in `body`. A point past the last token is directly after the last token."""
        seen = 0
        for index, item in enumerate(self.body):
            if not isinstance(item, Part):
                continue
            if isinstance(at, Stage):
                if item.stage.value >= at.value:
                    return index
            elif item.stage.value > Stage.CONTENT.value:
                return index
            elif item.stage is Stage.CONTENT:
                if seen == at:
                    return index
                seen += 1
                if seen == at:
                    return index + 1
        return len(self.body)

    def plan(self) -> Plan:
        """Return the response as HTTP/1.1 bytes, step by step."""
        status_line, header_lines = self._head()
        if self.before_headers:
            steps: list[Step] = [*self.before_status, Send(status_line), *self.before_headers, Send(header_lines)]
        else:
            steps = [*self.before_status, Send(status_line + header_lines)]
        steps += (
            Send(self.framing.frame(item.data), item.stage is Stage.CONTENT) if isinstance(item, Part) else item
            for item in self.body
        )
        if self.framing is Framing.CHUNKED:
            # One write with the last part: a client that disconnects at `[DONE]` has read a complete response.
            last = steps[-1]
            if isinstance(last, Send):
                steps[-1] = replace(last, data=last.data + LAST_CHUNK)
            else:
                steps.append(Send(LAST_CHUNK))
        steps.extend(self.when_idle)
        if self.framing is Framing.CLOSE:
            steps.append(Close())
        return Plan(tuple(steps))

    def _head(self) -> tuple[bytes, bytes]:
        reason = self.reason
        if reason is None:
            reason = PHRASES.get(self.status, "")
        lines = [f"{name}: {value}\r\n" for name, value in self.headers]
        match self.framing:
            case Framing.CHUNKED:
                lines.append("transfer-encoding: chunked\r\n")
            case Framing.LENGTH:
                lines.append(f"content-length: {len(self.content)}\r\n")
            case Framing.CLOSE:
                lines.append("connection: close\r\n")
        return f"HTTP/1.1 {self.status} {reason}\r\n".encode("latin-1"), f"{''.join(lines)}\r\n".encode("latin-1")
