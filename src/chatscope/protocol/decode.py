"""JSON bytes to the structs of `response.py`, forgiving what real servers get wrong.

The fast path is msgspec's typed decoder. It is taken for data that holds nothing unknown. Anything else is decoded to
plain objects first: then nothing that the server sent is lost, and errors can be looked for (`error_object.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

from chatscope.protocol.coerce import fit_struct, normalized
from chatscope.protocol.response import Choice, Chunk, ChunkChoice, Completion
from chatscope.protocol.unknown import fill_extra, strict
from chatscope.protocol.usage import Usage
from chatscope.protocol.usage_reports import usage_in

_S = TypeVar("_S", Chunk, Completion)

_completions: Final = msgspec.json.Decoder(Completion)
_strict_completions: Final = msgspec.json.Decoder(strict(Completion))

REFUSED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_NOTHING: Final = Choice()
_NO_FINISH_REASON: Final = frozenset({"", "null", "none", "0"})
"""What some servers send instead of null, in lower case."""


def decode_exact(data: bytes) -> Completion | None:
    """Return the completion that a body holds if every field of it is known and of the right type, otherwise `None`.

    `None` says only that the body needs a closer look. Decoding twice takes half the time of looking once for unknown
    fields (`timeit` on the body of `benchmarks.harness.wire.plain_reply(100)`).
    """
    try:
        _strict_completions.decode(data)
        completion = _completions.decode(data)
    except REFUSED:
        return None
    number_choices(completion.choices)
    has_choices = any(choice != _NOTHING for choice in completion.choices)
    return completion if has_choices and completion.object != "error" else None


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
        made = msgspec.convert(normal, cls)
    except msgspec.ValidationError:
        made = fit_struct(normal, cls)
    return completed(made, normal, loaded)


def completed(made: _S, normal: dict[str, Any], loaded: dict[str, Any]) -> _S:
    """Fill in what the typed decoder does not see."""
    fill_extra(made, normal)
    if made.usage is None or not is_whole(made.usage) or "usage" in made.extra:
        made.usage = usage_in(loaded)
    for choice in made.choices:
        if isinstance(reason := choice.extra.get("finish_reason"), dict):
            choice.finish_reason = str(reason.get("type") or "")  # SGLang's own
        if choice.finish_reason is not None and choice.finish_reason.strip().lower() in _NO_FINISH_REASON:
            choice.finish_reason = None
    return made


def number_choices(choices: Sequence[Choice | ChunkChoice]) -> None:
    """Give choices of one response without indexes of their own their places as indexes."""
    if len({choice.index for choice in choices}) < len(choices):
        for place, choice in enumerate(choices):
            choice.index = place


def is_whole(usage: Usage) -> bool:
    """Return whether a usage needs no other place or name to be looked at for what it lacks."""
    return bool(usage.prompt_tokens and usage.completion_tokens)
