"""The endpoint's responses as msgspec structs: completions and chunks. Names are the endpoint's own.

Here: only the structs. Not here: decoding them from bytes (`decode.py`), and assembling a completion from chunks
(`assemble.py`), and what all of them share (`open_struct.py`). Every field has a default, because some server omits it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, Literal, TypeAlias, TypeVar

import msgspec

from chatscope.protocol.content_parts import thinking_in
from chatscope.protocol.loading import load_object
from chatscope.protocol.open_struct import OpenStruct
from chatscope.protocol.plain_values import fields_set, overlaid, struct_to_dict, to_dict
from chatscope.protocol.usage import Usage

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault  # the standard one has defaults from Python 3.13 on

    OutputT = TypeVarWithDefault("OutputT", default=Any, covariant=True)  # noqa: PLC0105 - readers see this name

    # For editors: they offer the literals, and a checker takes any other text as well, since servers add values.
    # msgspec, which reads these fields, has no such unions.
    Role = Literal["assistant", "user", "system", "developer", "tool", "function"] | str  # noqa: PYI051 - for editors, see above
    FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"] | str  # noqa: PYI051 - for editors, see above
else:
    OutputT = TypeVar("OutputT", covariant=True)  # noqa: PLC0105 - as above
    Role = FinishReason = str

NOT_PARSED: Final[Any] = None
"""The default of fields for the parsed value: `None`, whatever the type is."""

_Int: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""An integer that every JSON library and every clock can hold."""


class FunctionCall(OpenStruct, kw_only=True):
    """A function that the model wants to be called; `arguments` is JSON text as the model wrote it."""

    name: str = ""
    arguments: str = ""


class CustomCall(OpenStruct, kw_only=True):
    """A custom tool that the model wants to be called, with free text as its input."""

    name: str = ""
    input: str = ""


class ToolCall(OpenStruct, kw_only=True):
    """One tool call of an assistant message. `custom` is set for custom tools only.

    Some servers want the fields in `extra` back (Gemini's thought signatures).
    """

    id: str = ""
    type: str = "function"
    function: FunctionCall = msgspec.field(default_factory=FunctionCall)
    custom: CustomCall | None = None


class FunctionDelta(OpenStruct, kw_only=True):
    """A part of a function call."""

    name: str | None = None
    arguments: str | None = None


class CustomDelta(OpenStruct, kw_only=True):
    """A part of a custom tool call."""

    name: str | None = None
    input: str | None = None


class ToolCallDelta(OpenStruct, kw_only=True):
    """A part of a tool call; `index` identifies the call, if the server sends one."""

    index: _Int | None = None
    id: str | None = None
    type: str | None = None
    function: FunctionDelta | None = None
    custom: CustomDelta | None = None


class TopLogprob(OpenStruct, kw_only=True):
    """One of the likeliest tokens at a position.

    `logprob` is `None` where the server reports no number: JSON has none for minus infinity.
    """

    token: str = ""
    logprob: float | None = None
    bytes: list[_Int] | None = None


class TokenLogprob(TopLogprob, kw_only=True):
    """A token of the response and its log probability."""

    top_logprobs: list[TopLogprob] = msgspec.field(default_factory=list)


class Logprobs(OpenStruct, kw_only=True):
    """Log probabilities of the tokens of a choice."""

    content: list[TokenLogprob] | None = None
    refusal: list[TokenLogprob] | None = None


class _MessageFields(OpenStruct, kw_only=True):
    """The common base of messages and deltas."""

    role: Role | None = None
    content: str | None = None
    content_parts: list[Any] | None = msgspec.field(default=None, name="<content_parts>")
    """The content as it arrived, if it arrived as a list of parts; `content` is the text in it."""
    refusal: str | None = None
    audio: Any = None
    annotations: list[Any] | None = None
    function_call: FunctionDelta | None = None
    reasoning_content: str | None = None  # DeepSeek, older vLLM
    reasoning_text: str | None = msgspec.field(default=None, name="reasoning")  # newer vLLM, OpenRouter
    reasoning_details: list[Any] | None = None  # OpenRouter

    @property
    def reasoning(self) -> str | None:
        """The reasoning as text, wherever the server put it."""
        if self.reasoning_content or self.reasoning_text:
            return self.reasoning_content or self.reasoning_text
        if self.reasoning_details:
            parts = [part for part in self.reasoning_details if isinstance(part, dict)]
            if text := "".join(str(part.get("text") or part.get("summary") or "") for part in parts):
                return text
        return "".join(map(thinking_in, self.content_parts or ())) or None


class Delta(_MessageFields, kw_only=True):
    """The part of a choice's message that one chunk adds."""

    tool_calls: list[ToolCallDelta] | None = None
    is_whole: bool = msgspec.field(default=False, name="<whole>")
    """Whether it arrived as a `message`. After deltas, a message repeats them, and only its new parts count."""


class CompletionMessage(_MessageFields, kw_only=True):
    """An assistant message."""

    tool_calls: list[ToolCall] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the message as it can be sent back in a conversation: only what is set.

        Reasoning keeps the fields and the shape in which it arrived. The client omits it for servers that refuse it
        (`Profile.dropped_from_messages`).
        """
        copied: dict[str, Any] = msgspec.to_builtins(self._shared_dict())
        return copied

    def _shared_dict(self) -> dict[str, Any]:
        """Return the message as `to_dict` does, with the unknown fields themselves instead of copies."""
        built: dict[str, Any] = {"role": self.role or "assistant", "content": self.content}
        if self.content_parts is not None:
            built["content"] = self.content_parts
        built |= fields_set(self, leave_out=frozenset({"role", "content"}))
        if self.tool_calls is not None:
            built["tool_calls"] = [_call_to_dict(call) for call in self.tool_calls]
        built |= self.extra
        return built


class ChunkChoice(OpenStruct, kw_only=True):
    """One choice's part of a chunk."""

    index: _Int = 0
    delta: Delta = msgspec.field(default_factory=Delta)
    finish_reason: FinishReason | None = None
    logprobs: Logprobs | None = None


class Choice(OpenStruct, kw_only=True):
    """One choice of a completion. `finish_reason` is an open string: servers add to the endpoint's values.

    `extra` holds such fields as Azure's `content_filter_results` and OpenRouter's `native_finish_reason`.
    """

    index: _Int = 0
    message: CompletionMessage = msgspec.field(default_factory=CompletionMessage)
    finish_reason: FinishReason | None = None
    logprobs: Logprobs | None = None


class XGroq(OpenStruct, kw_only=True):
    """Groq's own part of a chunk; its streams carry the usage here."""

    usage: Usage | None = None


class _ResponseFields(OpenStruct, kw_only=True):
    """The common base of completions and chunks."""

    id: str = ""
    object: str = ""
    created: _Int = 0
    model: str = ""
    system_fingerprint: str | None = None
    service_tier: str | None = None
    usage: Usage | None = None
    moderation: Any = None


class Chunk(_ResponseFields, kw_only=True):
    """One event of a streamed response.

    `usage` is the usage that the server reported anywhere in the chunk. `extra` holds the top-level fields without a
    name here, and under `usage` those of the usage. `raw` is the JSON text as it arrived.
    """

    choices: list[ChunkChoice] = msgspec.field(default_factory=list)
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

    def to_dict(self) -> dict[str, Any]:
        """Return the chunk as the server sent it, unknown fields included."""
        return load_object(self.raw)


class Completion(_ResponseFields, Generic[OutputT], kw_only=True):
    """A whole response. `request_id` is from its header.

    `extra` holds the top-level fields without a name here, and under `usage` those of the usage (OpenRouter's `cost`).
    """

    choices: list[Choice] = msgspec.field(default_factory=list)
    metadata: Any = None
    request_id: str | None = msgspec.field(default=None, name="<request_id>")
    status: int | None = msgspec.field(default=None, name="<status>")
    """The response's HTTP status."""
    headers: Mapping[str, str] = msgspec.field(default_factory=dict, name="<headers>")
    """The response's headers, names in lower case."""
    parsed: OutputT = msgspec.field(default=NOT_PARSED, name="<parsed>")
    """The first choice's text as a value of the requested type. It is `None` if no type was requested, and if the model
    called tools instead of answering."""

    @property
    def message(self) -> CompletionMessage:
        """The first choice's message; an empty one if there is no choice."""
        return self.choices[0].message if self.choices else CompletionMessage()

    @property
    def text(self) -> str:
        """The first choice's text, or `""`."""
        return self.message.content or ""

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the first choice ended: `stop`, `length`, `tool_calls`, `content_filter`, or a server's own word."""
        return self.choices[0].finish_reason if self.choices else None

    def to_dict(self) -> dict[str, Any]:
        """Return the completion as the endpoint's JSON object, unknown fields included."""
        choices = [struct_to_dict(choice, {"message": choice.message._shared_dict()}) for choice in self.choices]
        built = struct_to_dict(self, {"choices": choices})
        if isinstance(usage := self.extra.get("usage"), dict) and self.usage is not None:
            built["usage"] = overlaid(to_dict(self.usage), usage)
        copied: dict[str, Any] = msgspec.to_builtins(built)
        return copied


def plain_messages(messages: Any) -> Any:
    """Return a conversation in which every message of a model is the dict to send. Other messages are unchanged."""
    # The exact types first: a union of types is made anew each time, and to ask a struct's class takes a search, too.
    if type(messages) is not list and not isinstance(messages, list | tuple):
        return messages
    for item in messages:
        if type(item) is not dict and isinstance(item, CompletionMessage):
            return [item.to_dict() if isinstance(item, CompletionMessage) else item for item in messages]
    return messages


def _call_to_dict(call: ToolCall) -> dict[str, Any]:
    built: dict[str, Any] = to_dict(call)
    # The endpoint refuses a call that carries both kinds.
    del built["function" if call.type == "custom" and call.custom is not None else "custom"]
    return built
