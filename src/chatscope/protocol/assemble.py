"""Assembles chunks to a completion. The one place that decides what the end of a stream means.

Here: only chunks, in the order of their arrival. Not here: bytes (`stream_decoder.py`).
"""

from __future__ import annotations

from typing import Any, Final

from chatscope.errors import StreamTruncatedError
from chatscope.protocol.choice import GrowingChoice
from chatscope.protocol.coerce import choices_of
from chatscope.protocol.decode import number_choices
from chatscope.protocol.loading import load_object
from chatscope.protocol.response import Chunk, ChunkChoice, Completion
from chatscope.protocol.shared_text import shared
from chatscope.protocol.stream_usage import StreamUsage
from chatscope.protocol.usage import Usage, merge_usage

_NOTHING: Final = ChunkChoice()


def _holds_no_choice(chunk: Chunk) -> bool:
    """Return whether a chunk's choices are empty, such as `[{}]`. A choice with only an index is not empty."""
    return bool(chunk.raw) and not choices_of(load_object(chunk.raw))


class Assembler:
    """Assembles the chunks of one streamed response.

    Attributes:
        text_parts: the first choice's text as it arrived: an append-only log in which readers keep their own position.
        chunks: how many have arrived.
        finished: whether a finish_reason was seen.
    """

    __slots__ = (
        "_choices",
        "_extra",
        "_head",
        "_last_text",
        "_unfinished",
        "_usage",
        "chunks",
        "finished",
        "text_parts",
    )

    def __init__(self) -> None:
        self.chunks = 0
        self.finished = False
        self.text_parts: list[str] = []
        self._last_text: Any = None  # what was added last by `add_text`; its unknown fields are read when needed
        self._unfinished = 0  # choices seen that have not finished
        self._choices: dict[int, GrowingChoice] = {}
        self._head = Completion(object="chat.completion")
        self._usage = StreamUsage()
        self._extra: dict[str, Any] = {}

    @property
    def text(self) -> str:
        """The first choice's text so far."""
        return "".join(self.text_parts)

    @property
    def usage(self) -> Usage | None:
        """The usage so far, if the server has reported any."""
        return self._usage.total()

    @property
    def all_choices_finished(self) -> bool:
        """Whether a choice was seen, and every choice that was seen has finished.

        Output after a finish_reason reopens its choice.
        """
        return self._unfinished == 0 and bool(self._choices)

    @property
    def choice_count(self) -> int:
        """How many choices were seen."""
        return len(self._choices)

    @property
    def takes_text(self) -> bool:
        """Whether `add_text` may be called: choice 0 has started and not finished, and the model is named.

        With several choices it is false, because most chunks are then about another choice.
        """
        return bool(self._head.model) and len(self._choices) == 1 and 0 in self._choices and self._choices[0].takes_text

    def add(self, chunk: Chunk) -> bool:
        """Add a chunk; return whether it has output of the model."""
        if self._last_text is not None:
            self._read_last_text()
        gained = False
        if len(chunk.choices) > 1:
            number_choices(chunk.choices)
        for part in chunk.choices:
            choice = self._choices.get(part.index)
            if choice is None:
                if part == _NOTHING and _holds_no_choice(chunk):
                    continue
                choice = self._choices[part.index] = GrowingChoice(self.text_parts if part.index == 0 else [])
                self._unfinished += 1
            was_open = choice.is_open
            gained |= choice.add(part)
            self._unfinished += choice.is_open - was_open
            if part.finish_reason:
                self.finished = True
        if chunk.usage is not None:
            self._usage.add(chunk)
        if not gained or not self._head.model or chunk.extra or chunk.x_groq or chunk.moderation:
            self._add_head(chunk)
        self.chunks += 1
        return gained

    def would_finish(self, chunk: Chunk, choices: int) -> bool:
        """Return whether this chunk would finish every choice, and there are at least `choices` of them."""
        is_open = {index: choice.is_open for index, choice in self._choices.items()}
        for part in chunk.choices:
            is_open[part.index] = not part.finish_reason and is_open.get(part.index, True)
        return len(is_open) >= choices and not any(is_open.values())

    def add_text(self, text: str, sent: Any = None, kind: str = "content") -> None:
        """Add a chunk with a part of the first choice's text, and perhaps usage. Requires `takes_text`.

        Args:
            text: the text, not empty.
            sent: the chunk with its usage and its unknown fields (`ChunkDecoder.sent`), which replace those of earlier
                chunks.
            kind: the attribute of the delta that held it.
        """
        if kind == "content":
            self.text_parts.append(text)
        else:
            self._choices[0].add_text(kind, text)
        self.chunks += 1
        self._last_text = sent
        if sent is not None and sent.usage is not None:
            self._usage.merged = merge_usage(self._usage.merged, sent.usage)

    def add_epilogue(self, chunk: Chunk) -> None:
        """Add a chunk that arrived after an error. Its usage and unknown fields count, its text does not."""
        self._read_last_text()
        self._usage.add(chunk)
        self._add_head(chunk)

    def close(self) -> None:
        """Close the response: no chunk follows. Without a choice 0, the first choice's text becomes `text_parts`.

        This cannot be done earlier, because any further chunk may start choice 0.
        """
        if self._choices and 0 not in self._choices:
            first = self._choices[min(self._choices)]
            if first.text_parts is not self.text_parts:
                self.text_parts += first.text_parts
                first.text_parts = self.text_parts

    def completion(self, request_id: str | None = None) -> Completion:
        """Return a completion with everything that has arrived so far."""
        self._read_last_text()
        head = self._head
        return Completion(
            id=head.id,
            object=shared(head.object),  # the same in thousands of completions
            created=head.created,
            model=shared(head.model),
            system_fingerprint=head.system_fingerprint,
            service_tier=head.service_tier,
            moderation=head.moderation,
            usage=self.usage,
            choices=[self._choices[index].choice(index) for index in sorted(self._choices)],
            extra=dict(self._extra),
            request_id=request_id,
        )

    def verdict(self, *, done: bool, broken: bool) -> StreamTruncatedError | None:
        """Decide what the end of the stream means. `None` means that the response is complete.

        Args:
            done: whether `[DONE]` was seen.
            broken: whether the connection broke instead of ending.
        """
        if broken:
            return self._truncated("the connection broke off within the stream")
        if self._choices and (done or self.finished):
            return None  # `transformers serve` never sends [DONE], Ollama no finish_reason
        if self._choices:
            return self._truncated("the stream stopped without a finish_reason and without [DONE]")
        if self.chunks:
            return self._truncated("the stream ended without a choice: it holds no answer")
        return self._truncated(
            "the stream held nothing but [DONE]" if done else "the stream ended before its first event"
        )

    def _read_last_text(self) -> None:
        sent, self._last_text = self._last_text, None
        if sent is not None:
            self._extra.update(sent.unknown())
            self._choices[0].add_extra(sent.choices[0].unknown())

    def _add_head(self, chunk: Chunk) -> None:
        """Record the fields that concern the whole response.

        Chunks with text repeat them. To keep these cheap, the fields are read only from chunks without text, from
        chunks with unknown fields, and from all chunks until the model is named (Azure's first chunk does not name it).
        """
        head = self._head
        head.id = head.id or chunk.id
        head.model = head.model or chunk.model
        head.created = head.created or chunk.created
        head.system_fingerprint = chunk.system_fingerprint or head.system_fingerprint
        head.service_tier = chunk.service_tier or head.service_tier
        head.moderation = chunk.moderation or head.moderation
        extra = self._extra
        extra.update(chunk.extra)
        if chunk.x_groq is not None and chunk.x_groq.extra:
            earlier = extra.get("x_groq")
            extra["x_groq"] = (earlier if isinstance(earlier, dict) else {}) | chunk.x_groq.extra

    def _truncated(self, message: str) -> StreamTruncatedError:
        return StreamTruncatedError(message, partial_text=self.text)
