"""BodyStart: detects what the body of a streamed response is. It may be an event stream, a JSON value, or neither.

Not here: reading events (`sse.py`), and the meaning of a JSON value (`stream_decoder.py`).
"""

from __future__ import annotations

from typing import Final

from chatscope.errors import InvalidResponseError
from chatscope.protocol.error_body import BODY_LIMIT, body_text, first_words
from chatscope.protocol.loading import is_whole_json

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""The largest response that is accepted as one JSON body: n=128 choices of 128k tokens with audio stay below it."""

BEFORE_TEXT: Final = b"\xef\xbb\xbf \t\r\n"
"""What may precede the first character of a body: a byte order mark and white space."""
_FIELD_STARTS: Final = frozenset({b":", b"d", b"e", b"i", b"r"})  # a comment, or data, event, error, id, retry
_JSON_STARTS: Final = frozenset({b"{", b"["})


class BodyStart:
    """The bytes of a body, as long as they are not known to be an event stream.

    Args:
        content_type: the response's content type. The actual content of the body takes precedence.
    """

    __slots__ = ("_data", "_expects_events", "_first")

    def __init__(self, content_type: str) -> None:
        self._expects_events = "event-stream" in content_type
        self._data = bytearray()
        self._first = b""  # the first byte that is not white space

    @property
    def data(self) -> bytes:
        """The bytes so far."""
        return bytes(self._data)

    @property
    def is_blank(self) -> bool:
        """Whether there is only white space so far."""
        return not self._first

    @property
    def is_json(self) -> bool:
        """Whether it starts like a JSON object or list."""
        return self._first in _JSON_STARTS

    def feed(self, data: bytes) -> bytes | None:
        """Add data. If all of it so far is an event stream, return it; it is not kept then."""
        body = self._data
        body += data
        if not self._first:
            self._first = bytes(body.lstrip(BEFORE_TEXT)[:1])
        first = self._first
        if not first or first == b"<" or self.is_json or not (self._expects_events or first in _FIELD_STARTS):
            return None
        self._data = bytearray()
        return bytes(body)

    def may_be_whole(self) -> bool:
        """Return whether it is a whole JSON value. A large one is not examined: at every read, that takes time."""
        return len(self._data) <= BODY_LIMIT and is_whole_json(self.data)

    def excess(self, secret: str) -> InvalidResponseError | None:
        """Return the error if it is already longer than any body of its kind."""
        if self.is_json:
            is_too_long = len(self._data) > MAX_BODY_BYTES
            message = f"the response is larger than {MAX_BODY_BYTES} bytes"
            return InvalidResponseError(message) if is_too_long else None
        return self.refusal(secret) if len(self._data) > BODY_LIMIT else None

    def refusal(self, secret: str, *, is_object: bool = False) -> InvalidResponseError:
        """Return the error for a body that is no response.

        Args:
            secret: the key that was sent; it is redacted.
            is_object: whether the body is a JSON object.
        """
        body = self.data
        what = "a JSON object without choices" if is_object else "neither an event stream nor a JSON completion"
        excerpt = "" if is_object else first_words(body, secret)
        message = f"the response is {what}: {excerpt}" if excerpt else f"the response is {what}"
        return InvalidResponseError(message, body=body_text(body, secret))
