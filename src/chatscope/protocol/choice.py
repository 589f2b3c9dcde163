"""One choice of a streamed response as it grows. Not here: which choice a chunk belongs to (`assemble.py`)."""

from __future__ import annotations

from typing import Any, Final

from chatscope.protocol.content_parts import text_in
from chatscope.protocol.merge import GrowingValue, is_sent_whole
from chatscope.protocol.response import (
    Choice,
    ChunkChoice,
    CompletionMessage,
    Delta,
    FunctionDelta,
    Logprobs,
    TokenLogprob,
    ToolCallDelta,
)
from chatscope.protocol.tool_calls import GrowingCall, ToolCalls

_TEXTS: Final = ("reasoning_content", "reasoning_text", "refusal")
_MERGED: Final = ("audio", "annotations", "reasoning_details")
_REASONING: Final = frozenset({"reasoning_content", "reasoning_text"})


class GrowingChoice:
    """One choice as it grows.

    Attributes:
        text_parts: its text, in the parts in which it arrived.
        is_open: whether it has not finished, or has continued after its finish_reason.
        finish_reason: the latest one.
    """

    __slots__ = (
        "_calls",
        "_content",
        "_extra",
        "_function_call",
        "_is_in_messages",
        "_logprobs",
        "_merged",
        "_message_extra",
        "_role",
        "_texts",
        "finish_reason",
        "is_open",
        "text_parts",
    )

    def __init__(self, text_parts: list[str]) -> None:
        self.text_parts = text_parts
        self.is_open = True
        self.finish_reason: str | None = None
        self._is_in_messages = False
        self._role: str | None = None
        self._content: _ContentParts | None = None  # only if the server sends the content as a list of parts
        self._texts: dict[str, list[str]] = {}
        self._merged: dict[str, GrowingValue] = {}
        self._calls = ToolCalls()
        self._function_call: GrowingCall | None = None
        self._logprobs: _GrowingLogprobs | None = None
        self._extra: dict[str, Any] = {}
        self._message_extra: dict[str, GrowingValue] = {}

    @property
    def takes_text(self) -> bool:
        """Whether text can be added to `text_parts` directly."""
        return self.is_open and self._content is None

    def add(self, part: ChunkChoice) -> bool:
        """Add a chunk's content for this choice; return whether it has output of the model."""
        delta = part.delta
        gained = False
        if delta.is_whole:
            self._drop_repeats(part)
        if delta.content:
            self.text_parts.append(delta.content)
            gained = True
        if delta.content_parts is not None or self._content is not None:
            gained |= self._add_content(delta)
        if delta.tool_calls:
            delta.tool_calls = self._calls.without_repeats(delta.tool_calls)
            self._calls.add(delta.tool_calls)
            gained |= bool(delta.tool_calls)
        if delta.reasoning_content or delta.reasoning_text or delta.reasoning_details or delta.refusal:
            self._add_texts(delta)
            gained = True
        if delta.audio is not None or delta.annotations is not None or delta.reasoning_details is not None:
            self._add_merged(delta)
            gained |= delta.audio is not None or delta.annotations is not None
        if delta.function_call is not None:
            self._function_call = self._function_call or GrowingCall(None)
            self._function_call.add(ToolCallDelta(function=delta.function_call))
            gained = True
        self._role = self._role or delta.role
        for name, value in delta.extra.items():
            if name not in self._message_extra or (value is not None and is_sent_whole(name)):
                self._message_extra[name] = GrowingValue()
            self._message_extra[name].add(value)
        if part.logprobs is not None:
            self._logprobs = self._logprobs or _GrowingLogprobs()
            self._logprobs.add(part.logprobs)
        if part.extra:
            self.add_extra(part.extra)
        if part.finish_reason:
            self.finish_reason = part.finish_reason
            self.is_open = False
        elif gained:
            self.is_open = True
        return gained

    def add_text(self, name: str, text: str) -> None:
        """Add text other than the content: reasoning or a refusal, by its attribute."""
        if (parts := self._texts.get(name)) is not None:
            parts.append(text)
        else:
            self._texts[name] = [text]

    def add_extra(self, extra: dict[str, Any]) -> None:
        """Add unknown fields of the choice itself.

        A list is appended, because it concerns the tokens of its chunk (vLLM's `token_ids`). But a list that starts
        with all earlier items is a repetition of the whole list, as with citations; numbers are excepted, because they
        may repeat by chance. Any other value concerns the state of the choice, and replaces the earlier value.
        """
        for name, value in extra.items():
            earlier = self._extra.get(name)
            if not isinstance(value, list):
                self._extra[name] = value
            elif not isinstance(earlier, list) or _repeats(value, earlier):
                self._extra[name] = list(value)
            else:
                earlier += value

    def choice(self, index: int) -> Choice:
        """Return the choice so far."""
        call = self._function_call
        fields: dict[str, Any] = {name: value.value() for name, value in self._merged.items()}
        fields |= {name: "".join(texts) for name, texts in self._texts.items()}
        message = CompletionMessage(
            role=self._role or "assistant",
            content="".join(self.text_parts) if self.text_parts else None,
            content_parts=None if self._content is None else self._content.parts(self.text_parts),
            tool_calls=[growing.call() for growing in self._calls] or None,
            function_call=None
            if call is None
            else FunctionDelta(name=call.name, arguments="".join(call.arguments), extra=call.call().function.extra),
            extra={name: value.value() for name, value in self._message_extra.items()},
            **fields,
        )
        return Choice(
            index=index,
            message=message,
            finish_reason=self.finish_reason,
            logprobs=None if self._logprobs is None else self._logprobs.logprobs(),
            extra={name: list(value) if isinstance(value, list) else value for name, value in self._extra.items()},
        )

    @property
    def _has_output(self) -> bool:
        return bool(
            self.text_parts or self._texts or self._merged or self._content or self._calls or self._function_call
        )

    def _drop_repeats(self, part: ChunkChoice) -> None:
        """Remove from a whole message what deltas have sent before.

        Some servers end a stream with a whole message. In a stream of only messages, they replace deltas.
        """
        if self._is_in_messages or not self._has_output:
            self._is_in_messages = True
            return
        delta = part.delta
        delta.content = _rest(delta.content, self.text_parts)
        if self.text_parts or self._content is not None:
            delta.content_parts = None
        has_reasoning = bool(self._texts.keys() & _REASONING) or "reasoning_details" in self._merged
        for name in _TEXTS:
            is_elsewhere = name in _REASONING and has_reasoning and name not in self._texts
            setattr(delta, name, None if is_elsewhere else _rest(getattr(delta, name), self._texts.get(name, [])))
        for name in _MERGED:
            if name in self._merged or (name == "reasoning_details" and has_reasoning):
                setattr(delta, name, None)
        delta.tool_calls = (delta.tool_calls or [])[len(self._calls) :]
        if self._function_call is not None:
            delta.function_call = None
        delta.extra = {name: value for name, value in delta.extra.items() if name not in self._message_extra}
        if self._logprobs is not None:
            part.logprobs = None

    def _add_texts(self, delta: Delta) -> None:
        for name in _TEXTS:
            if text := getattr(delta, name):
                self.add_text(name, text)

    def _add_merged(self, delta: Delta) -> None:
        for name in _MERGED:
            if (value := getattr(delta, name)) is not None:
                self._merged.setdefault(name, GrowingValue()).add(value)

    def _add_content(self, delta: Delta) -> bool:
        if self._content is None:
            self._content = _ContentParts(len(self.text_parts) - bool(delta.content))
        return self._content.add(delta)


def _rest(text: str | None, parts: list[str]) -> str | None:
    """Return the text that a whole text adds to the parts that have arrived. A contradicting text adds nothing."""
    if not text or not parts:
        return text
    return text.removeprefix(before) or None if text.startswith(before := "".join(parts)) else None


def _repeats(items: list[Any], earlier: list[Any]) -> bool:
    """Return whether a list starts with all items of an earlier one. Numbers do not count, as they repeat by chance."""
    if len(items) < len(earlier) or (items and isinstance(items[0], int | float)):
        return False
    return items[: len(earlier)] == earlier


class _ContentParts:
    """Content that a server sends as a list of parts, at least in some chunks (Mistral's reasoning models).

    Consecutive thinking parts are joined, and so are consecutive texts. Other parts are kept unchanged.

    Args:
        before: how many text parts had arrived before as plain strings.
    """

    __slots__ = ("_before", "_parts")

    def __init__(self, before: int) -> None:
        self._before = before
        self._parts: list[tuple[str | None, list[Any]]] = []

    def add(self, delta: Delta) -> bool:
        """Add the content of a delta; return whether it was not empty."""
        parts = delta.content_parts
        if parts is None:
            parts = [delta.content] if delta.content else []
        for sent in parts:
            part = {"type": "text", "text": sent} if isinstance(sent, str) else sent
            kind = part.get("type") if isinstance(part, dict) else None
            if kind in ("text", "thinking") and self._parts and self._parts[-1][0] == kind:
                self._parts[-1][1].append(part)
            else:
                self._parts.append((kind, [part]))
        return bool(parts)

    def parts(self, text_parts: list[str]) -> list[Any]:
        """Return the parts so far."""
        before = "".join(text_parts[: self._before])
        parts: list[Any] = [{"type": "text", "text": before}] if before else []
        return parts + [_joined(kind, run) for kind, run in self._parts]


def _joined(kind: str | None, run: list[Any]) -> Any:
    if len(run) == 1:
        return run[0]
    whole: dict[str, Any] = {}
    for part in run:
        whole.update(part)
    if kind == "text":
        return whole | {"text": "".join(map(text_in, run))}
    thinking = [part.get("thinking") for part in run]
    if all(isinstance(text, str) for text in thinking):
        return whole | {"thinking": "".join(thinking)}
    inner: list[Any] = [item for items in thinking for item in (items if isinstance(items, list) else [items])]
    if all(isinstance(item, dict) and item.get("type") == "text" for item in inner):
        inner = [_joined("text", inner)] if inner else []
    return whole | {"thinking": inner}


class _GrowingLogprobs:
    """The log probabilities of a choice as they arrive."""

    __slots__ = ("_content", "_extra", "_refusal")

    def __init__(self) -> None:
        self._content: list[TokenLogprob] | None = None
        self._refusal: list[TokenLogprob] | None = None
        self._extra: dict[str, Any] = {}

    def add(self, new: Logprobs) -> None:
        if new.content is not None:
            self._content = self._content or []
            self._content += new.content
        if new.refusal is not None:
            self._refusal = self._refusal or []
            self._refusal += new.refusal
        self._extra.update(new.extra)

    def logprobs(self) -> Logprobs:
        return Logprobs(
            content=None if self._content is None else list(self._content),
            refusal=None if self._refusal is None else list(self._refusal),
            extra=dict(self._extra),
        )
