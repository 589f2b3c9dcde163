"""TextTemplate: reads a chunk of text by comparing it with the previous one, without decoding it.

From one chunk of text to the next, most servers change only the text; OpenAI also changes the padding in `obfuscation`.
So the bytes around these are compared. If they are equal, the chunks differ only in text and padding.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from chatscope.protocol.plain_values import encode_name
from chatscope.protocol.response import Chunk, Delta

_PROBES: Final = (b"chatscope", b"probe")
_CONTAINERS: Final = (dict, list)
_QUOTE: Final = ord('"')
_BACKSLASH: Final = ord("\\")


class TextTemplate:
    """A chunk of text with a gap for the text and, if it has one, for its padding.

    Attributes:
        sent: the decoded chunk. Except for text and padding, every chunk that fits has the same content.
        was_used: whether any other chunk has fitted.
        has_containers: whether an unknown field in it is an object or a list, which two chunks should not share.
        padding: the padding of the last chunk that fitted; `None` if such chunks have none.
        ends, ends_of_read: the bytes around the gap and its place, of a chunk and of a read that is one event.
    """

    __slots__ = ("_middle", "ends", "ends_of_read", "has_containers", "padding", "sent", "was_used")

    def __init__(self, sent: Any, before: bytes, middle: bytes | None, after: bytes) -> None:
        self.sent = sent
        self.was_used = False
        self.padding: str | None = None
        unknown = [*sent.unknown().values(), *sent.choices[0].unknown().values()]
        self.has_containers = any(isinstance(value, _CONTAINERS) for value in unknown)
        self.ends = _ends(before, after)
        self.ends_of_read = _ends(b"data: " + before, after + b"\n\n")
        self._middle = middle

    @classmethod
    def of(cls, data: bytes, sent: Any, kind: str, decode: Callable[[bytes], Any]) -> TextTemplate | None:
        """Return the template for chunks like this one, or `None` if its text cannot be located.

        Args:
            data: the chunk.
            sent: the same, decoded.
            kind: the attribute of its delta that holds the text.
            decode: decodes a chunk of text; returns `None` if it is something else.
        """
        text = _gap(data, encode_name(Delta, kind), getattr(sent.choices[0].delta, kind))
        padding = None
        if sent.obfuscation is not None:
            padding = _gap(data, encode_name(Chunk, "obfuscation"), sent.obfuscation)
            if padding is None or text is None or padding[0] < text[1]:
                return None
        if text is None:
            return None
        middle = None if padding is None else data[text[1] : padding[0]]
        before, after = data[: text[0]], data[text[1] if padding is None else padding[1] :]
        # The proof that these are the places: something else there is what the chunk then says.
        probe = decode(before + _PROBES[0] + (b"" if middle is None else middle + _PROBES[1]) + after)
        if probe is None or getattr(probe.choices[0].delta, kind).encode() != _PROBES[0]:
            return None
        if middle is not None and probe.obfuscation.encode() != _PROBES[1]:
            return None
        return cls(sent, before, middle, after)

    def text_of(self, data: bytes, ends: tuple[bytes, bytes, slice]) -> str | None:
        """Return the text of a chunk, or of a read that consists of one, if it fits; otherwise `None`.

        Args:
            data: the chunk or the read.
            ends: `ends` or `ends_of_read`.
        """
        before, after, place = ends
        if not (data.startswith(before) and data.endswith(after)):
            return None
        gap = data[place]
        if self._middle is not None:
            gap, middle, padding = gap.partition(self._middle)
            if not middle or (decoded := _plain_text(padding)) is None:
                return None
            self.padding = decoded
        if _BACKSLASH in gap or _QUOTE in gap:  # as `_plain_text`, without a call: this runs for every token
            return None
        try:
            text = gap.decode()
        except UnicodeDecodeError:
            return None
        if not text or not text.isprintable():
            return None
        self.was_used = True
        return text


def _ends(before: bytes, after: bytes) -> tuple[bytes, bytes, slice]:
    return before, after, slice(len(before), -len(after))


def _plain_text(gap: bytes) -> str | None:
    """Return text in JSON's spelling if nothing in it is escaped, otherwise `None`."""
    if _BACKSLASH in gap or _QUOTE in gap:
        return None
    try:
        text = gap.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None  # what is not may be a line break, at which an event ends


def _gap(data: bytes, name: str, value: str) -> tuple[int, int] | None:
    """Return where the value of a field starts and ends, if it is text without escapes."""
    found, text = _start_of(name).search(data), value.encode()
    if found is None or not data.startswith(text + b'"', found.end()):
        return None
    return found.end(), found.end() + len(text)


@lru_cache(maxsize=8)
def _start_of(name: str) -> re.Pattern[bytes]:
    return re.compile(rb'"%b"\s*:\s*"' % name.encode())
