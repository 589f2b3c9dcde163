"""StreamState: the one place that decides the state of a streamed response, and when it is over.

Sans-I/O: its input is reads, ends, failures and times; its output is chunks and the state. All readers use it: a
`ChatStream`, a task, and the pump that runs outside of any task. Not here: reading (`stream_reader`), and the meaning
of bytes (`protocol.stream_decoder`).

A stream is over

- at `[DONE]`, whatever the server does with the connection;
- at the end of the body;
- when all requested choices, and all others that appeared, have finished, and then no byte has arrived for
  `FINISH_GRACE` seconds. Any byte restarts that time, but comments only for `KEEP_ALIVE_SECONDS` after the last chunk.
  A choice that continues reopens the stream. An event counts as if its blank line had arrived, because it may never;
- when it failed. After an error that the server sent, reading continues for `ERROR_TAIL_SECONDS`: usage may follow.
"""

from __future__ import annotations

from typing import Final

from chatscope._limits.timeouts import FINISH_GRACE
from chatscope.errors import APIConnectionError, APITimeoutError, ChatError, StreamServerError
from chatscope.protocol.response import Chunk
from chatscope.protocol.stream_decoder import StreamDecoder

KEEP_ALIVE_SECONDS: Final = 30.0
"""How long comments keep a finished stream open, in seconds. Gateways send one every 10 to 15 s while they wait."""

ERROR_TAIL_SECONDS: Final = 1.0
"""Seconds for which reading continues after an error from the server. Usage and [DONE] follow within milliseconds."""

ERROR_TAIL_BYTES: Final = 64 * 1024
"""How many bytes are read after such an error. A usage chunk is below 1 KiB."""


class StreamState:
    """The state of one attempt's stream.

    Args:
        decoder: turns bytes into chunks.
        choices: how many choices were requested.

    Attributes:
        decoder: holds what has arrived.
        is_open: more output is expected, so no grace period is running. Stored, because it is read for every chunk.
        is_over: nothing more is read.
    """

    __slots__ = ("_choices", "_ends_at", "_tail_bytes", "decoder", "is_open", "is_over")

    def __init__(self, decoder: StreamDecoder, choices: int = 1) -> None:
        self.decoder = decoder
        self.is_open = True
        self.is_over = False
        self._choices = choices
        self._tail_bytes = 0
        self._ends_at: float | None = None  # only a chunk postpones it

    @property
    def error(self) -> ChatError | None:
        """The error that the stream failed with, to be raised after the chunks before it."""
        return self.decoder.error

    @property
    def has_output(self) -> bool:
        """Whether the model has written anything."""
        return bool(self.decoder.token_ns)

    @property
    def is_finished(self) -> bool:
        """Whether every choice has finished, so that silence ends the stream."""
        assembler = self.decoder.assembler
        if assembler.all_choices_finished and assembler.choice_count >= self._choices:
            return True
        return self.decoder.may_have_ended(self._choices)

    def patience(self, now: float) -> float | None:
        """Return how many seconds the next read may take before the stream is over; `None` means no limit here.

        Args:
            now: the event loop's time.
        """
        has_failed = self.decoder.error is not None
        if not has_failed and not self.is_finished:
            return None
        if self._ends_at is None:
            self._ends_at = now + (ERROR_TAIL_SECONDS if has_failed else KEEP_ALIVE_SECONDS)
        return max(0.0, min(FINISH_GRACE, self._ends_at - now))

    def feed(self, data: bytes, at_ns: int) -> list[Chunk]:
        """Process data that was read at `at_ns`, and return the chunks that it completes."""
        decoder = self.decoder
        if self.is_open and (text := decoder.feed_text(data, at_ns)) is not None:
            return [decoder.text_chunk(text, data)]  # while the stream is open, text alone does not change its state
        error = decoder.error
        if error is not None:
            self._tail_bytes += len(data)
        chunks = decoder.feed(data, at_ns)
        if error is not None:
            decoder.error = error  # the first error is the outcome
        elif chunks:
            self._ends_at = None
        if decoder.done or (decoder.error is not None and not self._reads_tail()):
            self._end()
        else:
            self.is_open = decoder.error is None and not self.is_finished
        return chunks

    def end(self, at_ns: int, broken: APIConnectionError | None = None) -> list[Chunk]:
        """Record the end of the body, or of the wait for it, and return the last chunks.

        Args:
            at_ns: when it ended.
            broken: the error, if the connection broke instead of ending.
        """
        decoder = self.decoder
        error = decoder.error
        chunks = [] if decoder.done else decoder.end(at_ns, broken=broken is not None)
        if error is not None:
            decoder.error = error  # the first error is the outcome
        elif broken is not None and decoder.error is not None:
            decoder.error.__cause__ = broken.__cause__
        self._end()
        return chunks

    def on_failure(self, error: ChatError, at_ns: int) -> list[Chunk]:
        """Record that reading failed, and return the last chunks.

        If the server has sent an error, that remains the outcome. Silence ends a finished stream.

        Raises:
            ChatError: `error`, unless it only means that the stream ended or broke.
        """
        if self.decoder.error is not None:
            return self.end(at_ns)
        if isinstance(error, APITimeoutError):
            if self.is_open:
                raise error
            return self.end(at_ns)
        if isinstance(error, APIConnectionError):
            return self.end(at_ns, error)
        raise error

    def give_up(self) -> None:
        """Record that nothing more will be read."""
        self._end()

    def _reads_tail(self) -> bool:
        return isinstance(self.decoder.error, StreamServerError) and self._tail_bytes < ERROR_TAIL_BYTES

    def _end(self) -> None:
        if not self.is_over:
            self.is_over = True
            self.is_open = False
            self.decoder.assembler.close()
