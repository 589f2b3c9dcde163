"""What the endpoint sends back, as msgspec structs: completions, chunks, usage. Names are the endpoint's own.

Only shapes live here; `decode.py` makes them from bytes, `assemble.py` makes a completion from chunks. A struct has
a default for every field, because some server leaves out each of them. None can be part of a reference cycle, so the
garbage collector is told to leave them alone (`gc=False`): a busy client makes thousands of them a second.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from chatscope.protocol.loading import load_object
from chatscope.protocol.usage import Usage


class FunctionCall(msgspec.Struct, kw_only=True, gc=False):
    """A function that the model wants called; `arguments` is JSON text as the model wrote it."""

    name: str = ""
    arguments: str = ""


class CustomCall(msgspec.Struct, kw_only=True, gc=False):
    """A custom tool that the model wants called, with free text as its input."""

    name: str = ""
    input: str = ""


class ToolCall(msgspec.Struct, kw_only=True, gc=False):
    """One tool call of an assistant message. `custom` is set for custom tools only."""

    id: str = ""
    type: str = "function"
    function: FunctionCall = msgspec.field(default_factory=FunctionCall)
    custom: CustomCall | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict, name="<extra>")
    """The fields that have no name here: some servers want them sent back (Gemini's thought signatures)."""


class FunctionDelta(msgspec.Struct, kw_only=True, gc=False):
    """A piece of a function call."""

    name: str | None = None
    arguments: str | None = None


class CustomDelta(msgspec.Struct, kw_only=True, gc=False):
    """A piece of a custom tool call."""

    name: str | None = None
    input: str | None = None


class ToolCallDelta(msgspec.Struct, kw_only=True, gc=False):
    """A piece of a tool call; `index` says of which one, where the server tells."""

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: FunctionDelta | None = None
    custom: CustomDelta | None = None


class TopLogprob(msgspec.Struct, kw_only=True, gc=False):
    """One of the likeliest tokens at a position."""

    token: str = ""
    logprob: float = 0.0
    bytes: list[int] | None = None


class TokenLogprob(TopLogprob, kw_only=True):
    """A token of the reply and its log probability."""

    top_logprobs: list[TopLogprob] = []


class Logprobs(msgspec.Struct, kw_only=True, gc=False):
    """Log probabilities of the tokens of a choice."""

    content: list[TokenLogprob] | None = None
    refusal: list[TokenLogprob] | None = None


class _Spoken(msgspec.Struct, kw_only=True, gc=False):
    """What a whole message and a piece of one have in common."""

    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    audio: Any = None
    annotations: list[Any] | None = None
    function_call: FunctionDelta | None = None
    reasoning_content: str | None = None  # DeepSeek, older vLLM
    reasoning_text: str | None = msgspec.field(default=None, name="reasoning")  # newer vLLM, OpenRouter
    reasoning_details: list[Any] | None = None  # OpenRouter

    @property
    def reasoning(self) -> str | None:
        """The reasoning text, under whichever of its names the server sent it."""
        if self.reasoning_content or self.reasoning_text:
            return self.reasoning_content or self.reasoning_text
        if self.reasoning_details:
            parts = [part for part in self.reasoning_details if isinstance(part, dict)]
            return "".join(str(part.get("text") or part.get("summary") or "") for part in parts) or None
        return None


class Delta(_Spoken, kw_only=True):
    """What one chunk adds to a choice's message."""

    tool_calls: list[ToolCallDelta] | None = None


class CompletionMessage(_Spoken, kw_only=True):
    """An assistant message. `extra` holds the fields that have no name here."""

    tool_calls: list[ToolCall] | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict, name="<extra>")

    def to_dict(self) -> dict[str, Any]:
        """Return the message as it can be sent back in a conversation: only what is set."""
        names = dict(zip(self.__struct_fields__, self.__struct_encode_fields__, strict=True))
        del names["extra"]
        present = {names[name]: getattr(self, name) for name in names if getattr(self, name) is not None}
        built: dict[str, Any] = msgspec.to_builtins(present)
        for call in built.get("tool_calls", ()):
            # The endpoint refuses a call that carries both kinds.
            del call["function" if call["type"] == "custom" and call["custom"] else "custom"]
            call.update(call.pop("<extra>"))
        return {"role": "assistant", "content": None} | built | self.extra


class ChunkChoice(msgspec.Struct, kw_only=True, gc=False):
    """One choice's part of a chunk."""

    index: int = 0
    delta: Delta = msgspec.field(default_factory=Delta)
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class Choice(msgspec.Struct, kw_only=True, gc=False):
    """One choice of a completion. `finish_reason` is an open string: servers add to the endpoint's values."""

    index: int = 0
    message: CompletionMessage = msgspec.field(default_factory=CompletionMessage)
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict, name="<extra>")
    """The fields that have no name here: Azure's `content_filter_results`, OpenRouter's `native_finish_reason`."""


class XGroq(msgspec.Struct, kw_only=True, gc=False):
    """Groq's own part of a chunk; its streams carry the usage here."""

    usage: Usage | None = None


class _Response(msgspec.Struct, kw_only=True, gc=False):
    """What completions and chunks have in common."""

    id: str = ""
    object: str = ""
    created: int = 0
    model: str = ""
    system_fingerprint: str | None = None
    service_tier: str | None = None
    usage: Usage | None = None
    moderation: Any = None


class Chunk(_Response, kw_only=True):
    """One event of a streamed reply. `raw` is its JSON text as it came."""

    choices: list[ChunkChoice] = []
    obfuscation: str | None = None
    x_groq: XGroq | None = None
    error: Any = None
    raw: bytes = msgspec.field(default=b"", name="<raw>")

    @property
    def text(self) -> str:
        """The text that the first choice gains, or `""`."""
        for choice in self.choices:
            if choice.index == 0:
                return choice.delta.content or ""
        return ""

    @property
    def extra(self) -> dict[str, Any]:
        """The chunk's top-level fields that have no name here."""
        return unnamed(self.to_dict(), Chunk)

    def to_dict(self) -> dict[str, Any]:
        """Return the chunk as the server sent it, unknown fields included."""
        return load_object(self.raw)


class Completion(_Response, kw_only=True):
    """A whole reply. `extra` holds the top-level fields that have no name here, `request_id` the reply's header.

    `parsed` is the text as a value of the type that was asked for, if one was.
    """

    choices: list[Choice] = []
    metadata: Any = None
    request_id: str | None = msgspec.field(default=None, name="<request_id>")
    parsed: Any = msgspec.field(default=None, name="<parsed>")
    extra: dict[str, Any] = msgspec.field(default_factory=dict, name="<extra>")

    @property
    def message(self) -> CompletionMessage:
        """The first choice's message; an empty one if there is no choice."""
        return self.choices[0].message if self.choices else CompletionMessage()

    @property
    def text(self) -> str:
        """The first choice's text, or `""`."""
        return self.message.content or ""

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended."""
        return self.choices[0].finish_reason if self.choices else None

    def to_dict(self) -> dict[str, Any]:
        """Return the completion as the endpoint's JSON object, unknown fields included."""
        names = dict(zip(self.__struct_fields__, self.__struct_encode_fields__, strict=True))
        sent = {name: getattr(self, attribute) for attribute, name in names.items() if not name.startswith("<")}
        built: dict[str, Any] = msgspec.to_builtins(sent)
        for choice, made in zip(self.choices, built["choices"], strict=True):
            made["message"] = choice.message.to_dict()
            made.update(made.pop("<extra>"))
        whole = built | self.extra
        if built.get("usage") and "usage" in self.extra:
            whole["usage"] = built["usage"] | self.extra["usage"]
        return whole


def unnamed_of_reply(loaded: dict[str, Any], cls: type[msgspec.Struct]) -> dict[str, Any]:
    """Return `unnamed` of a reply, and under `usage` that of its usage: OpenRouter says there what it cost."""
    extra = unnamed(loaded, cls)
    usage = loaded.get("usage")
    if isinstance(usage, dict) and (more := unnamed(usage, Usage)):
        extra["usage"] = more
    return extra


def unnamed(loaded: dict[str, Any], cls: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the entries of a JSON object for which a struct has no field."""
    named = _names_of(cls)
    if loaded.keys() <= named:
        return {}
    return {name: value for name, value in loaded.items() if name not in named}


@cache
def _names_of(cls: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(cls.__struct_encode_fields__)
