"""JSON bytes to the structs of `response.py`, forgiving what real servers get wrong.

The fast path is one call of msgspec's typed decoder. Only what it refuses goes the long way: a field of another type
is converted if that is possible without guessing and left at its default if not; it never costs the reply.
"""

from __future__ import annotations

import math
from types import NoneType
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

import msgspec

from chatscope.protocol.loading import load_object
from chatscope.protocol.response import (
    Choice,
    Chunk,
    Completion,
    CompletionMessage,
    ToolCall,
    unnamed,
    unnamed_of_reply,
)
from chatscope.protocol.usage import Usage

_S = TypeVar("_S", bound=msgspec.Struct)


# Shapes to check with, never handed out: the structs with the same fields, and no others. What is not sent (`extra`)
# has a type that its own struct does not take: no server may set it.


class _ExactUsage(Usage, frozen=True, forbid_unknown_fields=True):
    pass


class _ExactToolCall(ToolCall, forbid_unknown_fields=True):
    extra: None = msgspec.field(default=None, name="<extra>")  # type: ignore[assignment]  # as said above


class _ExactMessage(CompletionMessage, forbid_unknown_fields=True):
    tool_calls: list[_ExactToolCall] | None = None  # type: ignore[assignment]  # as said above
    extra: None = msgspec.field(default=None, name="<extra>")  # type: ignore[assignment]  # as said above


class _ExactChoice(Choice, forbid_unknown_fields=True):
    message: _ExactMessage = msgspec.field(  # pyright: ignore[reportIncompatibleVariableOverride]  # as said above
        default_factory=_ExactMessage
    )
    extra: None = msgspec.field(default=None, name="<extra>")  # type: ignore[assignment]  # as said above


class _ExactCompletion(Completion, forbid_unknown_fields=True):
    choices: list[_ExactChoice] = msgspec.field(default_factory=list)  # type: ignore[assignment]  # as said above
    usage: _ExactUsage | None = None  # pyright: ignore[reportIncompatibleVariableOverride]  # as said above
    request_id: None = msgspec.field(  # pyright: ignore[reportIncompatibleVariableOverride]  # as said above
        default=None, name="<request_id>"
    )
    parsed: None = msgspec.field(default=None, name="<parsed>")
    extra: None = msgspec.field(default=None, name="<extra>")  # type: ignore[assignment]  # as said above


# And what a chunk is that holds one piece of the first choice's text: nothing else that counts, whatever is said of it.


class _TextDelta(msgspec.Struct, gc=False):
    content: str
    role: Literal["assistant"] | None = None
    refusal: None = None
    audio: None = None
    annotations: None = None
    function_call: None = None
    tool_calls: None = None
    reasoning: None = None
    reasoning_content: None = None
    reasoning_details: None = None


class _TextChoice(msgspec.Struct, gc=False):
    delta: _TextDelta
    index: Literal[0] = 0
    finish_reason: None = None
    logprobs: None = None


class _TextChunk(msgspec.Struct, gc=False):
    choices: tuple[_TextChoice]
    object: Literal["chat.completion.chunk", ""] = ""
    usage: None = None
    error: None = None


_chunks: Final = msgspec.json.Decoder(Chunk)
_text_chunks: Final = msgspec.json.Decoder(_TextChunk)
_completions: Final = msgspec.json.Decoder(Completion)
_exact_completions: Final = msgspec.json.Decoder(_ExactCompletion)
_UNFIT: Final = object()


def decode_chunk(data: bytes) -> Chunk:
    """Return the chunk that an event's data holds.

    Raises:
        ValueError: the data is no JSON object.
    """
    try:
        chunk = _chunks.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        chunk = None
    if chunk is None or chunk.object == "chat.completion":  # wrapped as the one event of a stream by some gateways
        chunk = chunk_from(load_object(data))
    chunk.raw = data
    return chunk


def decode_text(data: bytes) -> str:
    """Return the text that an event's data adds to the first choice, if that is all it does, else `""`.

    For who does not hand out chunks: it takes half the time of making one and adding it to the others (`timeit` on the
    event of `benchmarks.harness.wire.token_chunk(1)`).
    """
    try:
        return _text_chunks.decode(data).choices[0].delta.content
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def chunk_from(loaded: dict[str, Any]) -> Chunk:
    """Return a chunk from a decoded object; a whole completion becomes the one chunk that it is worth."""
    for choice in choices_of(loaded):
        choice.setdefault("delta", choice.get("message"))
        _flatten(choice["delta"])
    chunk = _fit_struct(loaded, Chunk)
    chunk.raw = msgspec.json.encode(loaded)
    return chunk


def decode_exact(data: bytes) -> Completion | None:
    """Return the completion that a body holds if every field of it is known and of the right type, else `None`.

    `None` says nothing of the body but that it needs a closer look, by `completion_from`. Decoding twice takes half the
    time of looking once for what has no name here (`timeit` on the body of `benchmarks.harness.wire.plain_reply(100)`).
    """
    try:
        _exact_completions.decode(data)
        completion = _completions.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return completion if completion.choices and completion.object != "error" else None


def completion_from(loaded: dict[str, Any]) -> Completion:
    """Return a completion from a decoded object, unknown fields in its `extra`."""
    try:
        completion = msgspec.convert(loaded, Completion)
    except msgspec.ValidationError:
        for choice in choices_of(loaded):
            _flatten(choice.get("message"))
        completion = _fit_struct(loaded, Completion)
    completion.request_id = completion.parsed = None  # whatever the server calls so
    completion.extra = unnamed_of_reply(loaded, Completion)
    for made, choice in zip(completion.choices, choices_of(loaded), strict=False):
        made.extra = unnamed(choice, Choice)
        if isinstance(message := choice.get("message"), dict):
            made.message.extra = unnamed(message, CompletionMessage)
            calls = message.get("tool_calls")
            for call, sent in zip(
                made.message.tool_calls or (), calls if isinstance(calls, list) else (), strict=False
            ):
                call.extra = unnamed(sent, ToolCall) if isinstance(sent, dict) else {}
    return completion


def choices_of(loaded: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the choices that a decoded reply has, whatever stands in their place."""
    choices = loaded.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _flatten(spoken: object) -> None:
    """Turn content that came as a list of parts (Mistral's reasoning models) into text and reasoning text."""
    if not isinstance(spoken, dict) or not isinstance(spoken.get("content"), list):
        return
    text: list[str] = []
    thinking: list[str] = []
    for part in spoken["content"]:
        if isinstance(part, str):
            text.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            text.append(part["text"])
        elif isinstance(part, dict) and isinstance(part.get("thinking"), list):
            thinking += [p["text"] for p in part["thinking"] if isinstance(p, dict) and isinstance(p.get("text"), str)]
    spoken["content"] = "".join(text)
    if thinking:
        spoken["reasoning_content"] = "".join(thinking)


def _fit_struct(loaded: dict[str, Any], cls: type[_S]) -> _S:
    """Build a struct field by field, leaving out what does not fit."""
    given = {
        field.name: _fit(loaded[field.encode_name], field.type)
        for field in msgspec.structs.fields(cls)
        if loaded.get(field.encode_name) is not None
    }
    return cls(**{name: value for name, value in given.items() if value is not _UNFIT})


def _fit(value: Any, wanted: Any) -> Any:
    """Return the value as the wanted type, or `_UNFIT`."""
    try:
        return msgspec.convert(value, wanted, strict=False)
    except msgspec.ValidationError:
        pass
    if get_origin(wanted) is Annotated:
        fitted = _fit(value, get_args(wanted)[0])
        return fitted if fitted is not _UNFIT and fitted >= 0 else _UNFIT  # counts are all that is annotated
    arms = [arm for arm in get_args(wanted) if arm is not NoneType]
    if get_origin(wanted) is list:
        if not isinstance(value, list):
            return _UNFIT
        items = [_fit(item, arms[0]) for item in value]
        return [item for item in items if item is not _UNFIT]
    if arms:
        return _fit(value, arms[0])
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        return _fit_struct(value, wanted) if isinstance(value, dict) else _UNFIT
    if isinstance(value, bool):
        return _UNFIT  # `"finish_reason": false` is no reason
    if wanted is int and isinstance(value, float) and math.isfinite(value):
        return int(value)  # `created`, from a clock that counts fractions
    if wanted is str and isinstance(value, int | float):
        return str(value)
    if wanted is str and isinstance(value, dict):
        return msgspec.json.encode(value).decode()  # tool arguments as an object instead of its JSON text
    return _UNFIT
