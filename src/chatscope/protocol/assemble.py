"""Chunks to a completion, and the one place that decides what the end of a stream means.

Reading bytes is `reader.py`'s business; here are only chunks, in the order in which they came.
"""

from __future__ import annotations

from typing import Any

from chatscope.errors import StreamTruncatedError
from chatscope.protocol.decode import choices_of
from chatscope.protocol.response import (
    Choice,
    Chunk,
    ChunkChoice,
    Completion,
    CompletionMessage,
    Delta,
    FunctionDelta,
    Logprobs,
    ToolCallDelta,
    unnamed,
    unnamed_of_reply,
)
from chatscope.protocol.tool_calls import CallSoFar, add_piece, joined_name
from chatscope.protocol.usage import Usage


class Assembler:
    """Gather the chunks of one streamed reply.

    Attributes:
        text_parts: the first choice's text as it came, an append-only log: readers keep their own place in it.
        chunks: how many came.
        finished: whether a finish_reason was seen.
    """

    __slots__ = (
        "_choices",
        "_extra",
        "_head",
        "_takes_text",
        "_unfinished",
        "_usage",
        "chunks",
        "finished",
        "text_parts",
    )

    def __init__(self) -> None:
        self.chunks = 0
        self.finished = False
        self._takes_text = False  # choice 0 has begun, has not finished, and the model is named
        self._unfinished = 0  # choices seen that have not finished
        self._choices: dict[int, _ChoiceSoFar] = {}
        self._head = Completion(object="chat.completion")
        self._usage: Usage | None = None
        self._extra: dict[str, Any] = {}
        self.text_parts: list[str] = []

    @property
    def text(self) -> str:
        """The first choice's text so far."""
        return "".join(self.text_parts)

    @property
    def usage(self) -> Usage | None:
        """The usage, where the server has told it; cumulative reports replace each other."""
        return self._usage

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

    def add(self, chunk: Chunk) -> bool:
        """Add a chunk; tell whether it carried something that the model wrote."""
        gained = False
        for part in chunk.choices:
            choice = self._choices.get(part.index)
            if choice is None:
                choice = self._choices[part.index] = _ChoiceSoFar(self.text_parts if part.index == 0 else [])
                self._unfinished += 1
            was_open = choice.is_open
            gained |= choice.add(part)
            self._unfinished += choice.is_open - was_open
            if not choice.is_open:
                self.finished = True
        if chunk.usage is not None:
            self._usage = chunk.usage
        if not gained or not self._head.model or chunk.choices[0].delta.tool_calls:
            self._read_in_full(chunk)
        self.chunks += 1
        self._takes_text = bool(self._head.model) and 0 in self._choices and self._choices[0].is_open
        return gained

    def add_text(self, text: str) -> bool:
        """Add a chunk that holds a piece of the first choice's text and nothing else; tell whether that is enough.

        It is, once an earlier chunk has opened the choice and named the model.
        """
        if not self._takes_text:
            return False
        self.text_parts.append(text)
        self.chunks += 1
        return True

    def close(self) -> None:
        """No chunk follows. Where no choice has the index 0, the first one's text becomes `text_parts` here.

        Not before: as long as chunks come, one of them may bring the choice 0.
        """
        if self._choices and 0 not in self._choices:
            first = self._choices[min(self._choices)]
            if first.text_parts is not self.text_parts:
                self.text_parts += first.text_parts
                first.text_parts = self.text_parts

    def _read_in_full(self, chunk: Chunk) -> None:
        """Take what is said once per reply rather than once per token.

        Text chunks repeat it; reading those without text, and all until the model is named (Azure's first chunk does
        not), keeps the rest cheap.
        """
        head = self._head
        head.id = head.id or chunk.id
        head.model = head.model or chunk.model
        head.created = head.created or chunk.created
        head.system_fingerprint = chunk.system_fingerprint or head.system_fingerprint
        head.service_tier = chunk.service_tier or head.service_tier
        head.moderation = chunk.moderation or head.moderation
        if self._usage is None and chunk.x_groq is not None:
            self._usage = chunk.x_groq.usage
        loaded = chunk.to_dict()
        self._extra.update(unnamed_of_reply(loaded, Chunk))
        for part, raw in zip(chunk.choices, choices_of(loaded), strict=False):
            choice = self._choices[part.index]
            choice.extra.update(unnamed(raw, ChunkChoice))
            if isinstance(raw.get("delta"), dict):
                choice.add_unnamed(raw["delta"])

    def completion(self, request_id: str | None = None) -> Completion:
        """Return what has arrived so far as a completion of its own."""
        head = self._head
        return Completion(
            id=head.id,
            object=head.object,
            created=head.created,
            model=head.model,
            system_fingerprint=head.system_fingerprint,
            service_tier=head.service_tier,
            moderation=head.moderation,
            usage=self._usage,
            choices=[self._choices[index].choice(index) for index in sorted(self._choices)],
            extra=dict(self._extra),
            request_id=request_id,
        )

    def verdict(self, *, done: bool, broken: bool) -> StreamTruncatedError | None:
        """Decide what the end of the stream means; `None` says that the reply is complete.

        Args:
            done: `[DONE]` was seen.
            broken: the connection broke off rather than ended.
        """
        if done:
            return None if self.chunks else self._truncated("the stream held nothing but [DONE]")
        if broken:
            return self._truncated("the connection broke off within the stream")
        if self.finished:
            return None  # `transformers serve` never sends [DONE]
        if self.chunks:
            return self._truncated("the stream stopped without a finish_reason and without [DONE]")
        return self._truncated("the stream ended before its first event")

    def _truncated(self, message: str) -> StreamTruncatedError:
        return StreamTruncatedError(message, partial_text=self.text)


class _ChoiceSoFar:
    """One choice as it grows."""

    __slots__ = (
        "_calls",
        "_extra",
        "_function_call",
        "_logprobs",
        "_spoken",
        "_strings",
        "extra",
        "finish_reason",
        "is_open",
        "text_parts",
        "touched",
    )

    def __init__(self, text_parts: list[str]) -> None:
        self.text_parts = text_parts
        self.extra: dict[str, Any] = {}
        self.touched: list[int] = []  # the places of the calls that the last delta with calls added to
        self.finish_reason: str | None = None
        self.is_open = True
        self._calls: list[CallSoFar] = []
        self._spoken: dict[str, Any] = {}  # role, audio, annotations, reasoning_details: merged values
        self._strings: dict[str, list[str]] = {}  # refusal and reasoning: pieces, joined when asked for
        self._function_call: FunctionDelta | None = None
        self._logprobs: Logprobs | None = None
        self._extra: dict[str, Any] = {}

    def add(self, part: ChunkChoice) -> bool:
        delta = part.delta
        gained = False
        if delta.content:
            self.text_parts.append(delta.content)
            gained = True
        if delta.tool_calls:
            self.touched = [add_piece(self._calls, piece) for piece in delta.tool_calls]
            gained = True
        if delta.reasoning_content or delta.reasoning_text or delta.reasoning_details or delta.refusal:
            self._add_string("reasoning_content", delta.reasoning_content)
            self._add_string("reasoning_text", delta.reasoning_text)
            self._add_string("refusal", delta.refusal)
            if delta.reasoning_details:
                self._spoken["reasoning_details"] = merge(
                    self._spoken.get("reasoning_details"), delta.reasoning_details
                )
            gained = True
        if delta.audio is not None or delta.annotations is not None or delta.function_call is not None:
            gained |= self._add_rare(delta)
        if delta.role and "role" not in self._spoken:
            self._spoken["role"] = delta.role
        if part.logprobs is not None:
            self._add_logprobs(part.logprobs)
        if part.finish_reason and part.finish_reason != "null":
            self.finish_reason = part.finish_reason
            self.is_open = False
        elif gained:
            self.is_open = True
        return gained

    def add_unnamed(self, delta: dict[str, Any]) -> None:
        """Keep what the last delta, as it was sent, has no name for: of the message, and of its tool calls."""
        for name, value in unnamed(delta, Delta).items():
            self._extra[name] = merge(self._extra.get(name), value)
        pieces = delta.get("tool_calls")
        for place, piece in zip(self.touched, pieces if isinstance(pieces, list) else (), strict=False):
            if isinstance(piece, dict):
                self._calls[place].extra.update(unnamed(piece, ToolCallDelta))

    def choice(self, index: int) -> Choice:
        message = CompletionMessage(
            role=self._spoken.get("role", "assistant"),
            content="".join(self.text_parts) if self.text_parts else None,
            tool_calls=[call.call() for call in self._calls] or None,
            function_call=self._function_call,
            audio=self._spoken.get("audio"),
            annotations=self._spoken.get("annotations"),
            reasoning_details=self._spoken.get("reasoning_details"),
            extra=dict(self._extra),
            **{name: "".join(pieces) for name, pieces in self._strings.items()},
        )
        return Choice(
            index=index,
            message=message,
            finish_reason=self.finish_reason,
            logprobs=self._logprobs,
            extra=dict(self.extra),
        )

    def _add_string(self, name: str, piece: str | None) -> None:
        if piece:
            self._strings.setdefault(name, []).append(piece)

    def _add_rare(self, delta: Delta) -> bool:
        for name in ("audio", "annotations"):
            if (value := getattr(delta, name)) is not None:
                self._spoken[name] = merge(self._spoken.get(name), value)
        if (call := delta.function_call) is not None:
            so_far = self._function_call or FunctionDelta()
            self._function_call = FunctionDelta(
                name=joined_name(so_far.name or "", call.name),
                arguments=(so_far.arguments or "") + (call.arguments or ""),
            )
        return True

    def _add_logprobs(self, new: Logprobs) -> None:
        so_far = self._logprobs = self._logprobs or Logprobs()
        if new.content is not None:
            so_far.content = [*(so_far.content or ()), *new.content]
        if new.refusal is not None:
            so_far.refusal = [*(so_far.refusal or ()), *new.refusal]


def merge(so_far: Any, new: Any) -> Any:
    """Merge a streamed JSON value into what came before it.

    Text and lists are continued, objects merged field by field; list items with an `index` are merged with the item
    of that index and type. Names, ids and whatever else cannot be continued is replaced.
    """
    if so_far is None or new is None:
        return new if so_far is None else so_far
    if isinstance(so_far, str) and isinstance(new, str):
        return so_far + new
    if isinstance(so_far, dict) and isinstance(new, dict):
        out = dict(so_far)
        for name, value in new.items():
            out[name] = value if name in _REPLACED and value is not None else merge(out.get(name), value)
        return out
    if isinstance(so_far, list) and isinstance(new, list):
        items = list(so_far)
        for item in new:
            last = items[-1] if items else None
            if isinstance(item, dict) and isinstance(last, dict) and "index" in item and _same(last, item):
                items[-1] = merge(last, item)
            else:
                items.append(item)
        return items
    return new


_REPLACED = frozenset({"id", "type", "index", "format", "signature"})


def _same(last: dict[str, Any], item: dict[str, Any]) -> bool:
    return last.get("index") == item["index"] and last.get("type") == item.get("type")
