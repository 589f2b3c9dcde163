"""Decodes the data of one stream's events to chunks. Not here: whether they report an error (`error_object.py`).

Most servers send a few fields of their own in every chunk. So a stream's decoder learns their names from the first
chunks that have them. From then on it accepts these fields, and refuses any that are still unknown.
"""

from __future__ import annotations

from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

import msgspec

from chatscope.protocol.decode import REFUSED, chunk_from, chunk_if_regular, is_whole, needs_no_look, sets_our_fields
from chatscope.protocol.loading import load_object
from chatscope.protocol.plain_values import sent_fields
from chatscope.protocol.response import Chunk, ChunkChoice, Delta, ToolCallDelta
from chatscope.protocol.text_template import TextTemplate
from chatscope.protocol.unknown import UnknownNames, are_harmless, learned_chunk, text_chunk, unknown_names
from chatscope.protocol.usage import merge_usage

_decode: Final = msgspec.json.Decoder(Chunk).decode
_NO_NAMES: Final = UnknownNames()
_KINDS: Final = ("content", "reasoning_content", "reasoning_text")
_DELTA_FIELDS: Final = sent_fields(Delta)
_CHOICE_FIELDS: Final = sent_fields(ChunkChoice, leave_out="delta")
_CHUNK_FIELDS: Final = sent_fields(Chunk, leave_out="choices")
_delta_fields: Final = attrgetter(*_DELTA_FIELDS)
_choice_fields: Final = attrgetter(*_CHOICE_FIELDS)
_chunk_fields: Final = attrgetter(*_CHUNK_FIELDS)
_BACKSLASH: Final = ord("\\")
_MOST_USELESS: Final = 4
"""How many consecutive templates may turn out useless."""
_MOST_LESSONS: Final = 8
"""How often the decoder of one stream learns. The bound is for servers that rename their fields all the time."""


class ChunkDecoder:
    """Decodes the chunks of one stream.

    Attributes:
        kind: the attribute of a delta with the text that `decode_text` reads.
        sent: the last chunk of text, decoded; `unknown()` of each part returns its unknown fields. Only its text and
            its padding may be those of an earlier chunk.
    """

    __slots__ = (
        *("_decode_learned", "_decode_text", "_is_harmless", "_last_names", "_lessons", "_names", "_template"),
        *("_text_names", "_useless_templates", "kind", "sent"),
    )

    def __init__(self) -> None:
        self.kind = "content"
        self.sent: Any = None
        self._template: TextTemplate | None = None
        self._useless_templates = 0
        self._lessons = 0
        self._names = _NO_NAMES  # all that were learned
        self._text_names = _NO_NAMES  # those that a chunk of text must have
        self._last_names = _NO_NAMES  # those of the last chunk that was not mere text
        self._is_harmless = True  # whether those say nothing about an error
        self._decode_learned = _learned_decoder(_NO_NAMES).decode
        self._decode_text = _text_decoder(_NO_NAMES, "content").decode

    def decode(self, data: bytes) -> tuple[Chunk, dict[str, Any] | None]:
        """Return the chunk in an event's data, and the decoded object if it must be searched for an error.

        Raises:
            ValueError: the data is not a JSON object.
        """
        has_learned = self._names is not _NO_NAMES
        try:
            chunk = _made_of(self._decode_learned(data), self._names) if has_learned else _decode(data)
        except REFUSED:
            return self._decode_in_full(data)
        if sets_our_fields(data) or not needs_no_look(chunk) or (has_learned and not chunk.choices):
            return self._decode_in_full(data)
        if chunk.usage is not None and not is_whole(chunk.usage):
            return self._decode_in_full(data)
        if has_learned:
            delta = chunk.choices[0].delta
            if delta.reasoning_details is None and (delta.content or delta.reasoning):
                self._learn(unknown_names(chunk))
        chunk.raw = data
        if chunk.x_groq is not None:
            chunk.usage = merge_usage(chunk.x_groq.usage, chunk.usage)
        return chunk, None

    def expect_text_like(self, chunk: Chunk) -> bool:
        """Return whether the next chunk may be like this one: with text of one kind, for `decode_text`."""
        choice = chunk.choices[0]
        delta = choice.delta
        if delta.reasoning_details is not None or choice.logprobs is not None or choice.index or len(chunk.choices) > 1:
            return False
        if delta.extra and any(value is not None for value in delta.extra.values()):
            return False
        if getattr(delta, self.kind) and (self.kind == "content" or not delta.content):
            return True  # the usual case
        kind = next((kind for kind in _KINDS if getattr(delta, kind)), None)
        if kind is None:
            return False
        if kind != self.kind:
            self.kind = kind
            self._set_text_decoder()
        return True

    def decode_text(self, data: bytes) -> str | None:
        """Return the text in an event's data if it adds text to the first choice and does nothing else, or `None`.

        The data may also report usage. For callers that do not need the chunk: this takes a fraction of the time of
        decoding a chunk and adding it to the others.
        """
        template = self._template
        if template is not None and (text := template.text_of(data, template.ends)) is not None:
            self.sent = template.sent
            return text
        try:
            sent = self._decode_text(data)
        except REFUSED:
            return None
        if sent.usage is not None and not is_whole(sent.usage):
            return None
        self.sent = sent
        if self._useless_templates < _MOST_USELESS:
            self._learn_template(data)
        return getattr(sent.choices[0].delta, self.kind)  # type: ignore[no-any-return]  # the decoder has checked it

    def text_of_read(self, data: bytes) -> str | None:
        """Return the same as `decode_text` for the only event in a read, if that is easy to see."""
        template = self._template
        if template is not None and (text := template.text_of(data, template.ends_of_read)) is not None:
            self.sent = template.sent
            return text
        return None

    def text_chunk(self, text: str, data: bytes) -> Chunk:
        """Build the chunk for which `decode_text` returned a text. This takes less time than decoding it."""
        sent, template = self.sent, self._template
        obfuscation = sent.obfuscation
        if template is not None and sent is template.sent:
            if template.padding is not None:
                obfuscation = template.padding
            if template.has_containers:
                sent = self._decode_text(data)
        choice = sent.choices[0]
        delta = Delta(role=choice.delta.role, content=text)
        if self.kind != "content":
            delta.content = choice.delta.content
            setattr(delta, self.kind, text)
        made = ChunkChoice(delta=delta)
        chunk = Chunk(
            id=sent.id,
            object=sent.object,
            created=sent.created,
            model=sent.model,
            system_fingerprint=sent.system_fingerprint,
            service_tier=sent.service_tier,
            usage=sent.usage,
            obfuscation=obfuscation,
            choices=[made],
            raw=data,
        )
        in_chunk, in_choice, in_delta = self._text_names
        if in_chunk:
            chunk.extra = sent.unknown()
        if in_choice:
            made.extra = choice.unknown()
        if in_delta:
            delta.extra = dict.fromkeys(in_delta)
        return chunk

    def _decode_in_full(self, data: bytes) -> tuple[Chunk, dict[str, Any] | None]:
        loaded = load_object(data)
        chunk = None
        # Otherwise the shape may be another, or the server set a field of ours.
        if b'"message"' not in data and not sets_our_fields(data):
            chunk = chunk_if_regular(loaded, data)
        if chunk is None:
            return chunk_from(loaded, data), loaded
        if not chunk.choices:
            return chunk, loaded
        if any(_is_odd(call) for choice in chunk.choices for call in choice.delta.tool_calls or ()):
            return chunk_from(loaded, data), loaded
        self._learn(unknown_names(chunk))
        return chunk, None if self._is_harmless and needs_no_look(chunk) else loaded

    def _set_text_decoder(self) -> None:
        self._decode_text = _text_decoder(self._text_names, self.kind).decode
        self._template = None

    def _learn_template(self, data: bytes) -> None:
        """Learn the bytes around the text. If a server changes them in every chunk, stop trying soon."""
        if self._template is not None and _BACKSLASH in data:
            return  # it may differ only in an escaped character
        was_used = self._template is not None and self._template.was_used
        self._useless_templates = 0 if was_used else self._useless_templates + 1
        self._template = None
        if self._useless_templates < _MOST_USELESS:
            self._template = TextTemplate.of(data, self.sent, self.kind, self._probe)

    def _probe(self, data: bytes) -> Any:
        try:
            return self._decode_text(data)
        except REFUSED:
            return None

    def _learn(self, names: UnknownNames) -> None:
        """Learn the unknown fields of a chunk if they are those of the chunk before it.

        Fields that only one chunk has are not learned: learning takes as long as decoding a hundred chunks.
        """
        if names != self._last_names:
            self._last_names = names
            self._is_harmless = are_harmless(names)
        elif names != self._text_names and self._lessons < _MOST_LESSONS and self._is_harmless:
            together = self._names.union(names)
            if are_harmless(together):
                self._lessons += 1
                self._text_names = names
                self._set_text_decoder()
                if together != self._names:
                    self._names = together
                    self._decode_learned = _learned_decoder(together).decode


def _is_odd(call: ToolCallDelta) -> bool:
    """Return whether a tool call may have its name beside its index, or its arguments under another name."""
    if call.function is None:
        return call.custom is None
    return call.function.arguments is None and "parameters" in call.function.extra


def _made_of(sent: Any, names: UnknownNames) -> Chunk:
    """Return the chunk for its twin that also holds unknown fields."""
    choices = []
    for its in sent.choices or ():
        delta = its.delta
        if delta is None:
            delta = Delta()
        elif names.delta:
            delta = Delta(**dict(zip(_DELTA_FIELDS, _delta_fields(delta), strict=True)), extra=delta.unknown())
        fields = dict(zip(_CHOICE_FIELDS, _choice_fields(its), strict=True))
        choices.append(ChunkChoice(**fields, delta=delta, extra=its.unknown()))
    fields = dict(zip(_CHUNK_FIELDS, _chunk_fields(sent), strict=True))
    return Chunk(**fields, choices=choices, extra=sent.unknown())


@lru_cache(maxsize=64)
def _learned_decoder(names: UnknownNames) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder[Any](learned_chunk(names))


@lru_cache(maxsize=64)
def _text_decoder(names: UnknownNames, kind: str) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder[Any](text_chunk(names, kind))
