"""The bytes of one streamed reply in, its chunks out: event stream, chunk decoding and assembly put together.

Sans I/O: whoever reads the connection feeds this, and hands out the chunks. An error that the bytes hold is kept in
`error` until the chunks before it have been handed out.
"""

from __future__ import annotations

from array import array
from typing import Final

from chatscope.errors import ChatError, InvalidResponseError, StreamProtocolError
from chatscope.protocol.assemble import Assembler
from chatscope.protocol.decode import chunk_from, decode_chunk, decode_text
from chatscope.protocol.error_body import BODY_LIMIT, body_text, is_error, stream_server_error
from chatscope.protocol.loading import load_object
from chatscope.protocol.response import Chunk
from chatscope.protocol.sse import ServerSentEvent, SSEDecoder

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""The largest reply that is taken as one JSON body: n=128 choices of 128k tokens with audio stay below it."""

_BEFORE_TEXT: Final = b"\xef\xbb\xbf \t\r\n"
_FIELD_STARTS: Final = b":deir"  # a comment, or data, event, error, id, retry


class StreamDecoder:
    """Read one reply.

    Args:
        content_type: the reply's content type; what the body turns out to be goes before it.
        secret: the key that was sent, blotted out of what the server repeats.

    Attributes:
        assembler: what has arrived.
        done: nothing more needs to be read, whatever the server does with the connection.
        error: what went wrong, to be raised once the chunks before it were handed out.
        token_ns: when each chunk with something written by the model arrived (`time.perf_counter_ns`).
    """

    __slots__ = ("_body", "_expects_events", "_first", "_secret", "_sse", "assembler", "done", "error", "token_ns")

    def __init__(self, content_type: str = "text/event-stream", *, secret: str = "") -> None:
        self.assembler = Assembler()
        self.done = False
        self.error: ChatError | None = None
        self.token_ns: array[int] = array("q")
        self._secret = secret
        self._expects_events = "event-stream" in content_type
        self._sse: SSEDecoder | None = None
        self._body = bytearray()  # what came before it was known to be an event stream
        self._first = b""  # its first byte that is no white space

    def feed(self, data: bytes, at_ns: int) -> list[Chunk]:
        """Take in what was read at `at_ns` and return the chunks that it completes."""
        if self._sse is None:
            data = self._sniff(data)
            if self._sse is None:
                return []
        lone = self._sse.lone_data(data)
        if lone is not None and lone[:1] == b"{":
            chunk = self._chunk(lone, at_ns)
            return [] if chunk is None else [chunk]
        try:
            events = self._sse.feed(data)
        except StreamProtocolError as error:
            self._fail(error)
            return []
        return self._chunks(events, at_ns)

    def feed_text(self, data: bytes, at_ns: int) -> bool:
        """Take in what was read, if it is one chunk with a piece of text and nothing else; return whether it was.

        Where it was not, nothing has happened, and `feed` is to be called.
        """
        lone = None if self._sse is None else self._sse.lone_data(data)
        if lone is None or not (text := decode_text(lone)) or not self.assembler.add_text(text):
            return False
        self.token_ns.append(at_ns)
        return True

    def end(self, at_ns: int, *, broken: bool = False) -> list[Chunk]:
        """Take note of the end of the body, return the last chunks and set `error` or `done`.

        Args:
            at_ns: when it ended.
            broken: the connection broke off rather than ended; half an event is then worth nothing.
        """
        chunks: list[Chunk] = []
        if self._sse is None:
            if self._first and not broken:
                chunks = self._whole_body(at_ns)
        else:
            try:
                events = self._sse.close()
            except StreamProtocolError as error:
                self._fail(error)
            else:
                chunks = [] if broken else self._chunks(events, at_ns)
                if isinstance(self.error, StreamProtocolError):
                    self.error = None  # an event cut in two says nothing but that the stream was cut: decided below
        if self.error is None and not self.done:
            self.error = self.assembler.verdict(done=False, broken=broken)
            self.done = self.error is None
        return chunks

    def _chunks(self, events: list[ServerSentEvent], at_ns: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        for event in events:
            name, data, _ = event
            if name == "ping" or not data or data[:1] == b":":
                continue  # keep-alives, among them comments wrapped as data
            if data[:1] != b"{" and data.strip() == b"[DONE]":
                self.error = self.assembler.verdict(done=True, broken=False)
                self.done = self.error is None
                break
            if name == "error":
                self._fail(stream_server_error(data, secret=self._secret))
                break
            if (chunk := self._chunk(data, at_ns)) is not None:
                chunks.append(chunk)
            if self.error is not None:
                break
        return chunks

    def _chunk(self, data: bytes, at_ns: int) -> Chunk | None:
        """Take the data of one event; where it is no chunk, `error` says so, unless it is blank."""
        try:
            chunk = decode_chunk(data)
            gained = self.assembler.add(chunk)
        except (ValueError, RecursionError):
            if data.strip():
                self._fail(self._no_chunk(data))
            return None
        if gained:
            self.token_ns.append(at_ns)
        if chunk.error is not None or chunk.object == "error":
            self._fail(stream_server_error(data, secret=self._secret))
        return chunk

    def _sniff(self, data: bytes) -> bytes:
        """Find out what the body is; return what the event-stream decoder is to be fed with, if it is one."""
        body = self._body
        body += data
        if not self._first:
            self._first = bytes(body.lstrip(_BEFORE_TEXT)[:1])
        if self._first == b"{":
            if len(body) > MAX_BODY_BYTES:
                self._fail(InvalidResponseError(f"the reply is larger than {MAX_BODY_BYTES} bytes"))
        elif self._first and (self._expects_events or self._first in _FIELD_STARTS) and self._first != b"<":
            self._sse = SSEDecoder(error_field=True)
            self._body = bytearray()
            return bytes(body)
        elif len(body) > BODY_LIMIT:
            self._fail(self._no_stream())
        return b""

    def _whole_body(self, at_ns: int) -> list[Chunk]:
        """Take a body that is no event stream: a whole completion, an error, or neither."""
        if self._first != b"{":
            self._fail(self._no_stream())
            return []
        data = bytes(self._body)
        try:
            loaded = load_object(data)
            if is_error(loaded) or "choices" not in loaded:
                self._fail(stream_server_error(data, secret=self._secret) if is_error(loaded) else self._no_stream())
                return []
            chunk = chunk_from(loaded)
            gained = self.assembler.add(chunk)
        except (ValueError, RecursionError):
            self._fail(self._no_stream())
            return []
        if gained:
            self.token_ns.append(at_ns)
        self.done = True
        return [chunk]

    def _no_stream(self) -> InvalidResponseError:
        return InvalidResponseError(
            "the reply is neither an event stream nor a JSON completion",
            body=body_text(bytes(self._body), self._secret),
        )

    def _no_chunk(self, data: bytes) -> StreamProtocolError:
        return StreamProtocolError(
            "an event of the stream is neither a JSON object nor [DONE]", body=body_text(data, self._secret)
        )

    def _fail(self, error: ChatError) -> None:
        error.partial_text = self.assembler.text
        self.error = error
