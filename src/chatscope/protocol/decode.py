"""Decodes JSON bytes to the structs of `response.py`, and tolerates the mistakes of real servers.

The fast path is msgspec's typed decoder, which refuses unknown fields. Data that it refuses is decoded to plain objects
first, so that nothing the server sent is lost, and errors can be found (`error_object.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

from chatscope.protocol.coerce import fit_struct, normalized
from chatscope.protocol.response import Choice, Chunk, ChunkChoice, Completion
from chatscope.protocol.unknown import fill_extra, with_extra
from chatscope.protocol.usage import Usage
from chatscope.protocol.usage_reports import usage_in

_S = TypeVar("_S", Chunk, Completion)

_completions: Final = msgspec.json.Decoder(Completion)

_ODD_OBJECTS: Final = frozenset({"chat.completion", "error"})

REFUSED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_NOTHING: Final = Choice()
_NO_FINISH_REASON: Final = frozenset(
    {"", "0", "null", "none", "nil", "undefined", "false", "unspecified", "finish_reason_unspecified"}
    | {"not_finished", "unfinished", "in_progress", "running"}  # TensorRT-LLM
)
"""Texts that some servers send instead of null, in lower case."""

_PLAIN_REASONS: Final = frozenset({None, "stop", "length", "tool_calls", "content_filter", "function_call"})
"""The finish reasons that never mean an error. Others must be examined."""

_OUR_NAME: Final = re.compile(rb'>"\s*:')
"""The end of a name like `<extra>`, which no server may set."""

_GREATER: Final = ord(">")


def decode_exact(data: bytes) -> Completion | None:
    """Return the completion in a body if every field is known and has the right type, otherwise `None`.

    `None` only means that the body must be examined further.
    """
    try:
        completion = _completions.decode(data)
    except REFUSED:
        return None
    choices = completion.choices
    if completion.object == "error" or completion.parsed is not None or sets_our_fields(data):
        return None
    has_choices = False
    for choice in choices:
        if choice.finish_reason not in _PLAIN_REASONS:
            return None
        has_choices = has_choices or choice != _NOTHING
    if len(choices) > 1:
        number_choices(choices)
    return completion if has_choices else None


def sets_our_fields(data: bytes) -> bool:
    """Return whether JSON has a name like `<extra>`, whose value the typed decoder would mistake for this package's."""
    # A byte as a number first: to look for two takes many times as long, and most responses have none.
    return _GREATER in data and _OUR_NAME.search(data) is not None


def needs_no_look(chunk: Chunk) -> bool:
    """Return whether a chunk certainly reports no error, so that `find_error` is not needed."""
    if chunk.error is not None or chunk.object in _ODD_OBJECTS:
        return False
    for choice in chunk.choices:  # noqa: SIM110 - a generator would take longer than the rest
        if choice.finish_reason not in _PLAIN_REASONS:
            return False
    return True


def chunk_from(loaded: dict[str, Any], raw: bytes) -> Chunk:
    """Return a chunk from a decoded object; a whole completion becomes one chunk that holds all of it."""
    chunk = _made(loaded, Chunk)
    chunk.raw = raw
    return chunk


def completion_from(loaded: dict[str, Any]) -> Completion:
    """Return a completion from a decoded object."""
    completion = _made(loaded, Completion)
    completion.request_id = completion.parsed = completion.status = None  # whatever the server itself called so
    completion.headers = {}
    number_choices(completion.choices)
    return completion


def _made(loaded: dict[str, Any], cls: type[_S]) -> _S:
    normal = normalized(loaded, "delta" if cls is Chunk else "message")
    try:
        made = msgspec.convert(with_extra(normal, cls), cls)
    except msgspec.ValidationError:
        made = fit_struct(normal, cls)
        fill_extra(made, normal)
    return completed(made, loaded)


def chunk_if_regular(loaded: dict[str, Any], raw: bytes) -> Chunk | None:
    """Return a chunk from a decoded object if it has the endpoint's shape, except for unknown fields; else `None`."""
    try:
        chunk = msgspec.convert(with_extra(loaded, Chunk), Chunk)
    except msgspec.ValidationError:
        return None
    chunk.raw = raw
    return completed(chunk, loaded)


def completed(made: _S, loaded: dict[str, Any]) -> _S:
    """Fill in values that the server put elsewhere than the endpoint would."""
    if made.usage is None or not is_whole(made.usage) or "usage" in made.extra:
        made.usage = usage_in(loaded)
    for choice in made.choices:
        if isinstance(reason := choice.extra.get("finish_reason"), dict):
            choice.finish_reason = str(reason.get("type") or "")  # SGLang's own
        if choice.finish_reason is not None and choice.finish_reason.strip().lower() in _NO_FINISH_REASON:
            choice.finish_reason = None
    return made


def number_choices(choices: Sequence[Choice | ChunkChoice]) -> None:
    """Use the positions of a response's choices as their indexes if they have none."""
    if len({choice.index for choice in choices}) < len(choices):
        for place, choice in enumerate(choices):
            choice.index = place


def is_whole(usage: Usage) -> bool:
    """Return whether a usage is complete, so that no other place or name must be searched."""
    return bool(usage.prompt_tokens and usage.completion_tokens)
