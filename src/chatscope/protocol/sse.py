"""The event-stream decoder: from bytes to server-sent events, for any read boundaries.

The grammar is exactly that of the WHATWG HTML standard, sections 9.2.5 and 9.2.6. Not here: what the events mean to a
chat client.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from chatscope.errors import StreamProtocolError

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
"""The longest line and the largest event. A response's audio arrives as base64 in one event, a few MiB at most. Beyond
this limit, the server is broken or hostile."""

_CR: Final = 13
_LF: Final = 10
_BOM: Final = b"\xef\xbb\xbf"


class ServerSentEvent(NamedTuple):
    """One dispatched event: its name, its data with line feeds between lines, and the last event id."""

    event: str
    data: bytes
    id: str


_event: Final[Callable[[tuple[str, bytes, str]], ServerSentEvent]] = partial(tuple.__new__, ServerSentEvent)
"""Makes an event in half the time of its constructor."""


class SSEDecoder:
    """Decodes one event stream.

    Args:
        error_field: read a line `error: ...` as an event named `error` with that data. The standard ignores such a
            line, but llama.cpp reports failures with it.
        max_event_bytes: the longest line and the largest event that are accepted.

    Attributes:
        is_fresh: whether no earlier bytes affect the next ones.
    """

    __slots__ = (
        "_data",
        "_error_field",
        "_event",
        "_held",
        "_id",
        "_max",
        "_overflow",
        "_size",
        "_skip_lf",
        "_start",
        "_tail",
        "is_fresh",
    )

    def __init__(self, *, error_field: bool = False, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._error_field = error_field
        self._max = max_event_bytes
        self._tail: list[bytes] = []  # the parts of a line whose end has not arrived: joined once, not at every read
        self._held = 0  # bytes in _tail
        self._data: list[bytes] = []
        self._size = 0  # bytes of the lines in _data
        self._event = ""
        self._id = ""
        self._skip_lf = False
        self._start: bytes | None = b""  # what may be the beginning of a byte order mark
        self._overflow = False
        self.is_fresh = False

    def lone_data(self, data: bytes) -> bytes | None:
        """Return the data of a read that is exactly one event: one `data: ` line of a `message`.

        Nearly every read of a chat stream is one. Nothing changes: if this returns `None`, call `feed` or `split`.
        """
        if (
            self.is_fresh
            and data[:6] == b"data: "
            and data.find(b"\n") == len(data) - 2 <= self._max
            and data[-1] == _LF
            and _CR not in data  # as a number: nine times as fast as `b"\r"` (timeit "13 in b'x' * 300")
        ):
            return data[6:-2]
        return None

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Process the bytes of a read and return the events that they complete, in order.

        Raises:
            StreamProtocolError: a line or an event is longer than allowed. Events that were whole before it are
                returned first; the error comes with the next call.
        """
        last_id = self._id
        parts, events = self.split(data)
        return [_event(("message", part, last_id)) for part in parts] + events

    def split(self, data: bytes) -> tuple[list[bytes], list[ServerSentEvent]]:
        """Do the same as `feed`, but build no events for the first ones that are one `data: ` line of a `message` each.

        Nearly all events of a chat stream are like that. Of these, the data is returned; then the events after them.
        """
        if self._overflow:
            raise self._too_long()
        if self._start is not None or self._skip_lf or _CR in data:
            data = self._with_line_feeds(data)
        parts: list[bytes] = []
        events: list[ServerSentEvent] = []
        if b"\n" not in data:
            if data:
                self._tail.append(data)
                self._held += len(data)
        else:
            if self._tail:
                self._tail.append(data)
                data = b"".join(self._tail)
                self._tail.clear()
            self._held = 0
            parts, end = self._plain_parts(data)
            if end < len(data):
                *lines, rest = data[end:].split(b"\n")
                events = self._lines(lines)
                if rest:
                    self._tail.append(rest)
                    self._held = len(rest)
        if self._held > self._max:
            self._overflow = True
        if self._overflow and not (parts or events):
            raise self._too_long()
        pending = self._held or self._data or self._event or self._skip_lf or self._overflow
        self.is_fresh = not pending and self._start is None
        return parts, events

    def pending(self, max_bytes: int) -> ServerSentEvent | None:
        """Return the event that has started, as it would be if its blank line arrived now.

        `None` means that it has no data, or more than `max_bytes`: examining it at every read takes time.
        """
        if self.is_fresh or self._held + self._size > max_bytes:
            return None
        lines = list(self._data)
        last = b"".join(self._tail)
        if last[:5] == b"data:":
            lines.append(last[5:].removeprefix(b" "))
        return ServerSentEvent(self._event or "message", b"\n".join(lines), self._id) if lines else None

    @property
    def first_pending_line(self) -> bytes:
        """The first data line of the event that has started, if it is complete and the event has no name."""
        return self._data[0] if self._data and not self._event else b""

    def close(self) -> list[ServerSentEvent]:
        """Return the unterminated last event, if there is one.

        The standard drops it. Several servers end a stream without the final blank line, and a chat client must not
        lose a `[DONE]` or a usage chunk to that.

        Raises:
            StreamProtocolError: as `feed`.
        """
        if self._overflow:
            raise self._too_long()
        lines = [b""]
        if last := (self._start or b"") + b"".join(self._tail):
            lines.insert(0, last)
        self._start = None
        self._tail.clear()
        events = self._lines(lines)
        if self._overflow:
            raise self._too_long()
        return events

    def _plain_parts(self, data: bytes) -> tuple[list[bytes], int]:
        """Return the data of the events at the start of data, and where they end, if each of them is one `data: ` line.

        In nearly every chat stream, a read of several events is like that. This takes a third of the time of `_lines`.
        """
        if self._data or self._event or data[:6] != b"data: " or len(data) > self._max:
            return [], 0
        end = data.rfind(b"\n\n")
        parts = data[6:end].split(b"\n\ndata: ")
        if end < 0 or data.count(b"\n", 0, end) != 2 * (len(parts) - 1):
            return [], 0
        return parts, end + 2

    def _lines(self, lines: list[bytes]) -> list[ServerSentEvent]:
        """Interpret whole lines without their endings."""
        events: list[ServerSentEvent] = []
        data = self._data
        for line in lines:
            if line[:6] == b"data: ":
                data.append(line[6:])
                self._size += len(line)
            elif not line:
                if data:
                    events.append(
                        ServerSentEvent(
                            self._event or "message", data[0] if len(data) == 1 else b"\n".join(data), self._id
                        )
                    )
                    data.clear()
                    self._size = 0
                self._event = ""
            elif len(line) > self._max:
                self._overflow = True
                break
            else:
                self._field(line)
            if self._size > self._max:
                self._overflow = True
                break
        return events

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            self._data.append(value)
            self._size += len(line)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"error" and self._error_field:
            self._event = "error"
            self._data.append(value)
            self._size += len(line)

    def _with_line_feeds(self, data: bytes) -> bytes:
        """Return data without a byte order mark, and with a line feed at the end of every line."""
        if self._start is not None:
            data = self._without_bom(data)
        if self._skip_lf and data:
            self._skip_lf = False
            if data.startswith(b"\n"):
                data = data[1:]
        if _CR in data:
            # A line ends at its CR; an LF that follows, even in the next read, belongs to the same ending.
            self._skip_lf = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data

    def _without_bom(self, data: bytes) -> bytes:
        """Drop one byte order mark at the very start, even if it arrives in parts."""
        start = (self._start or b"") + data
        if len(start) < len(_BOM) and _BOM.startswith(start):
            self._start = start
            return b""
        self._start = None
        return start.removeprefix(_BOM)

    def _too_long(self) -> StreamProtocolError:
        return StreamProtocolError(f"an event of the stream is longer than {self._max} bytes")
