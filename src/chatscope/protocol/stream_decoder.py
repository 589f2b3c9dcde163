"""Decodes the bytes of one streamed response to chunks: event stream, chunk decoding and assembly combined.

Sans-I/O: the caller reads the connection, feeds the bytes and delivers the chunks. An error in the bytes is kept in
`error` until the chunks before it have been delivered.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import repeat
from typing import Final

from chatscope.errors import ChatError, StreamProtocolError
from chatscope.protocol.assemble import Assembler
from chatscope.protocol.body_start import BodyStart
from chatscope.protocol.chunk_decoder import ChunkDecoder
from chatscope.protocol.coerce import choices_of
from chatscope.protocol.decode import chunk_from
from chatscope.protocol.error_body import BODY_LIMIT, stream_server_error
from chatscope.protocol.error_fields import is_notice
from chatscope.protocol.error_object import find_error
from chatscope.protocol.event_data import (
    event_error,
    is_done,
    is_error_event,
    is_keep_alive,
    is_nothing,
    not_a_chunk,
    unwrapped,
)
from chatscope.protocol.loading import dump, load, load_object
from chatscope.protocol.redaction import redact
from chatscope.protocol.response import Chunk
from chatscope.protocol.sse import SSEDecoder

_UNBUILT: Final = Chunk()


class StreamDecoder:
    """Decodes one streamed response.

    After a `StreamServerError` the caller may continue feeding until `done`: usage that the server reports after its
    error still counts. No more chunks are returned then.

    Args:
        content_type: the response's content type. The actual content of the body takes precedence.
        secret: the key that was sent; it is redacted wherever the server repeats it.

    Attributes:
        assembler: holds what has arrived.
        done: whether the response has ended, well or with `error`. Nothing more needs to be read, whatever the server
            does with the connection.
        error: the error, to be raised once the chunks before it have been delivered.
        token_ns: when each chunk with output of the model arrived (`time.perf_counter_ns`).
        builds_text_chunks: whether chunks of text and nothing else are built. An empty chunk stands for each otherwise,
            for callers that do not need the chunks.
    """

    __slots__ = (
        *("_chunk_decoder", "_expects_text", "_secret", "_sse", "_start"),
        *("assembler", "builds_text_chunks", "done", "error", "token_ns"),
    )

    def __init__(self, content_type: str = "text/event-stream", *, secret: str = "") -> None:
        self.assembler = Assembler()
        self.done = False
        self.error: ChatError | None = None
        self.token_ns: array[int] = array("q")
        self.builds_text_chunks = True
        self._chunk_decoder = ChunkDecoder()
        self._expects_text = False  # the next chunk is likely to add text and nothing else
        self._secret = secret
        self._start = BodyStart(content_type)
        self._sse: SSEDecoder | None = None  # once the body is known to be an event stream

    def feed(self, data: bytes, at_ns: int) -> list[Chunk]:
        """Process data that was read at `at_ns`, and return the chunks that it completes."""
        if self._sse is None:
            if (start := self._start.feed(data)) is None:
                self.error = self._start.excess(self._secret)
                return []
            data = start
            self._sse = SSEDecoder(error_field=True)
        try:
            parts, events = self._sse.split(data)
        except StreamProtocolError as error:
            self._fail(error)
            return []
        chunks = self._chunks(zip(repeat("message"), parts, repeat("")), at_ns)
        if events:
            chunks += self._chunks(events, at_ns)
        if not (self._sse.is_fresh or self.done) and is_done(self._sse.first_pending_line):
            self._end_with(self.assembler.verdict(done=True, broken=False))  # its blank line may never come
        return chunks

    def feed_text(self, data: bytes, at_ns: int) -> str | None:
        """Process a read if it is exactly one chunk that adds text and nothing else, and return the text.

        If it is not, return `None`. Nothing has changed then, and `feed` must be called.
        """
        if not self._expects_text or self._sse is None or not self._sse.is_fresh:
            return None
        decoder = self._chunk_decoder
        text = decoder.text_of_read(data)
        if text is None and (lone := self._sse.lone_data(data)) is not None:
            text = decoder.decode_text(lone)
        if text is None:
            return None
        self.assembler.add_text(text, decoder.sent, decoder.kind)
        self.token_ns.append(at_ns)
        return text

    def text_chunk(self, text: str, data: bytes) -> Chunk:
        """Return the chunk in a read for which `feed_text` has just returned the text."""
        return self._chunk_decoder.text_chunk(text, data[6:-2]) if self.builds_text_chunks else _UNBUILT

    def may_have_ended(self, choices: int) -> bool:
        """Return whether the stream would be over if the incomplete event were complete: its blank line may never come.

        Args:
            choices: how many choices were requested.
        """
        sse = self._sse
        if sse is None:
            return self._start.may_be_whole()
        if sse.is_fresh or (event := sse.pending(BODY_LIMIT)) is None:
            return False
        if is_error_event(event.event):
            return True
        data = event.data.strip()
        if not data.endswith((b"}", b"]")):
            return False
        last = data.rpartition(b"\n")[2]  # of several events without blank lines
        return any(self._ends_with(sent, choices) for sent in {data, last})

    def _ends_with(self, data: bytes, choices: int) -> bool:
        """Return whether a stream ends with data: `[DONE]`, an error, a whole response, or the last finish_reason."""
        if is_done(data):
            return True
        try:
            loaded = load(data)
            if find_error(loaded) is not None:
                return True
            return isinstance(loaded, dict) and self.assembler.would_finish(chunk_from(loaded, data), choices)
        except (ValueError, RecursionError):
            return False

    @property
    def reads_events(self) -> bool:
        """Whether the body has turned out to be an event stream."""
        return self._sse is not None

    def end(self, at_ns: int, *, broken: bool = False) -> list[Chunk]:
        """End the body, return the last chunks and set `error` or `done`.

        Args:
            at_ns: when it ended.
            broken: whether the connection broke instead of ending. An incomplete event is then dropped.
        """
        chunks: list[Chunk] = []
        if self._sse is None:
            if not (self._start.is_blank or broken):
                chunks = self._whole_body(at_ns)
        elif not self.done:
            chunks = self._last_chunks(self._sse, at_ns, broken=broken)
        if self.error is None and not self.done:
            self.error = self.assembler.verdict(done=False, broken=broken)
        self.done = True
        return chunks

    def _last_chunks(self, sse: SSEDecoder, at_ns: int, *, broken: bool) -> list[Chunk]:
        had_failed = self.error is not None
        try:
            events = sse.close()
        except StreamProtocolError as error:
            self._fail(error)
            return []
        chunks = [] if broken else self._chunks(events, at_ns)
        if not had_failed and isinstance(self.error, StreamProtocolError) and self.error.should_retry is None:
            self.error = None  # an event that is cut off only means a truncated stream, as the verdict will say
        return chunks

    def _chunks(self, events: Iterable[tuple[str, bytes, str]], at_ns: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        decoder, assembler, builds_text_chunks = self._chunk_decoder, self.assembler, self.builds_text_chunks
        for name, sent, _ in events:
            if self.done:
                break
            if self._expects_text and name == "message":
                if (text := decoder.decode_text(sent)) is not None:
                    assembler.add_text(text, decoder.sent, decoder.kind)
                    self.token_ns.append(at_ns)
                    chunks.append(decoder.text_chunk(text, sent) if builds_text_chunks else _UNBUILT)
                    continue
                self._expects_text = False
            if not sent or sent[:1] == b":" or (name != "message" and is_keep_alive(name.encode())):
                continue
            data = sent
            if data[:1] != b"{":
                data = unwrapped(data)
                if is_done(data):
                    self._end_with(self.assembler.verdict(done=True, broken=False))
                    break
                if is_nothing(data):
                    continue
            if self.error is not None:
                self._epilogue(data)
            elif is_error_event(name):
                self._fail(stream_server_error(event_error(data), data, secret=self._secret))
                self._epilogue(data)
            elif data[:1] != b"{" and is_notice(name):
                continue
            elif (chunk := self._chunk(data, at_ns, name)) is not None:
                chunks.append(chunk)
        return chunks

    def _chunk(self, data: bytes, at_ns: int, event: str = "message") -> Chunk | None:
        """Process the data of one event. If it is not a chunk, set `error`."""
        try:
            chunk, loaded = self._chunk_decoder.decode(data)
            report = None if loaded is None else find_error(loaded, event=event)
            if report is not None:
                chunk = self._without_key(chunk, data)
            gained = self.assembler.add(chunk)
        except (ValueError, RecursionError):
            if data.strip():
                self._fail(not_a_chunk(data, self._secret))
            return None
        if gained:
            self.token_ns.append(at_ns)
            self._expects_text = self.assembler.takes_text and self._chunk_decoder.expect_text_like(chunk)
        if report is not None:
            self._fail(stream_server_error(report, data, secret=self._secret))
        return chunk

    def _epilogue(self, data: bytes) -> None:
        """Process an event after an error, because it may report usage."""
        try:
            chunk, _ = self._chunk_decoder.decode(data)
            self.assembler.add_epilogue(self._without_key(chunk, data))
        except (ValueError, RecursionError):
            pass  # the first error is the one to report

    def _without_key(self, chunk: Chunk, data: bytes) -> Chunk:
        """Redact the key in a chunk that arrived with an error or after it, since errors repeat keys."""
        loaded = load_object(data)
        redacted = redact(loaded, self._secret)
        return chunk if redacted == loaded else chunk_from(redacted, dump(redacted).encode())

    def _whole_body(self, at_ns: int) -> list[Chunk]:
        """Process a body that is not an event stream: a whole completion, an error, or neither."""
        data = self._start.data
        loaded: object = None
        chunk: Chunk | None = None
        gained = False
        try:
            if self._start.is_json:
                loaded = load(data)
            report = find_error(loaded)
            if isinstance(loaded, dict) and choices_of(loaded):
                chunk = chunk_from(loaded, data)
                if report is not None:
                    chunk = self._without_key(chunk, data)
                gained = self.assembler.add(chunk)
        except (ValueError, RecursionError):
            chunk, report = None, None
        if gained:
            self.token_ns.append(at_ns)
        if report is not None:
            self._fail(stream_server_error(report, data, secret=self._secret))
        elif chunk is None:
            self._fail(self._start.refusal(self._secret, is_object=isinstance(loaded, dict)))
        else:
            is_chunk = chunk.object == "chat.completion.chunk"  # the first of several; the rest is lost
            self._end_with(self.assembler.verdict(done=not is_chunk, broken=False))
        return [] if chunk is None else [chunk]

    def _end_with(self, error: ChatError | None) -> None:
        self.done = True
        if self.error is None:
            self.error = error

    def _fail(self, error: ChatError) -> None:
        error.partial_text = self.assembler.text
        self.error = error
        self._expects_text = False
