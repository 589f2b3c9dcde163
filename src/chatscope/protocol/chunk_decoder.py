"""The data of one stream's events to chunks. Whether they report an error is decided in `error_object.py`.

Most servers send a few fields of their own, and then in every chunk. So a stream's decoder learns their names from the
first chunk that has them. From then on it accepts them, and refuses whatever is still unknown.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec

from chatscope.protocol.decode import REFUSED, chunk_from, completed, is_whole
from chatscope.protocol.loading import load_object
from chatscope.protocol.response import Chunk, ChunkChoice, Delta, ToolCallDelta
from chatscope.protocol.unknown import UnknownNames, strict_chunk, text_chunk, unknown_names
from chatscope.protocol.usage import merge_usage

_decode: Final = msgspec.json.Decoder(Chunk).decode
_NO_NAMES: Final = UnknownNames()
_KINDS: Final = ("content", "reasoning_content", "reasoning_text")
_MOST_LESSONS: Final = 8
"""How often the decoder of one stream learns: a server that names its fields anew all the time must not gain by it."""

_ODD_OBJECTS: Final = frozenset({"chat.completion", "error"})


class ChunkDecoder:
    """Decode the chunks of one stream.

    Attributes:
        kind: which attribute of a delta holds the text that `decode_text` takes.
    """

    __slots__ = ("_decode_strictly", "_decode_text", "_last_names", "_lessons", "_names", "_text_names", "kind")

    def __init__(self) -> None:
        self.kind = "content"
        self._lessons = 0
        self._names = _NO_NAMES  # all that were learned
        self._text_names = _NO_NAMES  # those that a chunk of text must have
        self._last_names = _NO_NAMES  # those of the last chunk that was not mere text
        self._decode_strictly = _strict_decoder(_NO_NAMES).decode
        self._decode_text = _text_decoder(_NO_NAMES, "content").decode

    def decode(self, data: bytes) -> tuple[Chunk, dict[str, Any] | None]:
        """Return the chunk that an event's data holds, and the decoded object if it has to be searched for an error.

        Raises:
            ValueError: the data is not a JSON object.
        """
        try:
            sent = self._decode_strictly(data)
            chunk = _decode(data)
        except REFUSED:
            return self._decode_in_full(data)
        choices = chunk.choices
        if chunk.object in _ODD_OBJECTS:
            return self._decode_in_full(data)
        if chunk.usage is not None and not is_whole(chunk.usage):
            return self._decode_in_full(data)
        if self._names is not _NO_NAMES:
            if not choices:
                return self._decode_in_full(data)
            _fill(chunk, sent)
            delta = choices[0].delta
            if delta.reasoning_details is None and (delta.content or delta.reasoning):
                self._learn(unknown_names(chunk))
        chunk.raw = data
        if chunk.x_groq is not None:
            chunk.usage = merge_usage(chunk.x_groq.usage, chunk.usage)
        return chunk, None

    def expect_text_like(self, chunk: Chunk) -> bool:
        """Return whether the next chunk may be like this one: one with text of one kind, for `decode_text`."""
        delta = chunk.choices[0].delta
        kind = next((kind for kind in _KINDS if getattr(delta, kind)), None)
        if kind is None or chunk.usage is not None or delta.reasoning_details is not None:
            return False
        if kind != self.kind:
            self.kind = kind
            self._decode_text = _text_decoder(self._text_names, kind).decode
        return True

    def decode_text(self, data: bytes) -> Any:
        """Return what an event's data holds if it adds text to the first choice and does nothing else, or `None`.

        The text is in `choices[0].delta`; `unknown()` of each part returns its unknown fields. For callers that do not
        need the chunk: it takes less than half the time of decoding one and adding it to the others.
        """
        try:
            return self._decode_text(data)
        except REFUSED:
            return None

    def text_chunk(self, sent: Any, data: bytes) -> Chunk:
        """Return the chunk for what `decode_text` returned: built from it, in less time than decoding takes."""
        choice = sent.choices[0]
        delta = choice.delta
        in_chunk, in_choice, in_delta = self._text_names
        made = Delta(role=delta.role, content=delta.content, extra=dict.fromkeys(in_delta) if in_delta else {})
        if self.kind != "content":
            setattr(made, self.kind, getattr(delta, self.kind))
        return Chunk(
            id=sent.id,
            object=sent.object,
            created=sent.created,
            model=sent.model,
            system_fingerprint=sent.system_fingerprint,
            service_tier=sent.service_tier,
            obfuscation=sent.obfuscation,
            choices=[ChunkChoice(delta=made, extra=choice.unknown() if in_choice else {})],
            extra=sent.unknown() if in_chunk else {},
            raw=data,
        )

    def _decode_in_full(self, data: bytes) -> tuple[Chunk, dict[str, Any]]:
        loaded = load_object(data)
        if b'"message"' in data or b'"<' in data:  # the shape may be another, or a field of ours may have been sent
            return chunk_from(loaded, data), loaded
        try:
            chunk = _decode(data)
        except REFUSED:
            return chunk_from(loaded, data), loaded
        if any(_is_flat(call) for choice in chunk.choices for call in choice.delta.tool_calls or ()):
            return chunk_from(loaded, data), loaded
        chunk.raw = data
        completed(chunk, loaded, loaded)
        if chunk.choices:
            self._learn(unknown_names(chunk))
        return chunk, loaded

    def _learn(self, names: UnknownNames) -> None:
        """Learn the unknown fields of a chunk if they are those of the chunk before it.

        What only one chunk brings is not worth it: it takes as long as decoding a hundred chunks in full.
        """
        if names != self._last_names:
            self._last_names = names
        elif names != self._text_names and self._lessons < _MOST_LESSONS:
            together = self._names.union(names)
            if together.can_be_learned():
                self._lessons += 1
                self._text_names = names
                self._decode_text = _text_decoder(names, self.kind).decode
                if together != self._names:
                    self._names = together
                    self._decode_strictly = _strict_decoder(together).decode


def _is_flat(call: ToolCallDelta) -> bool:
    """Return whether a tool call may have its name beside its index."""
    return call.function is None and call.custom is None


def _fill(chunk: Chunk, sent: Any) -> None:
    """Put the unknown fields that a strict twin of a chunk holds into the chunk."""
    chunk.extra = sent.unknown()
    for choice, its in zip(chunk.choices, sent.choices, strict=True):
        choice.extra = its.unknown()
        if its.delta is not None:
            choice.delta.extra = its.delta.unknown()


@lru_cache(maxsize=64)
def _strict_decoder(names: UnknownNames) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder[Any](strict_chunk(names))


@lru_cache(maxsize=64)
def _text_decoder(names: UnknownNames, kind: str) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder[Any](text_chunk(names, kind))
