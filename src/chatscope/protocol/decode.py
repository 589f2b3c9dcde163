"""JSON bytes to the structs of `response.py`, forgiving what real servers get wrong.

The fast path is msgspec's typed decoder. It is taken for data that holds nothing unknown. Anything else is decoded to
plain objects first: then nothing that the server sent is lost, and errors can be looked for (`error_object.py`).
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from chatscope.protocol.coerce import fit_struct, normalized, usage_in
from chatscope.protocol.error_codes import failed_status
from chatscope.protocol.loading import load_object
from chatscope.protocol.response import Choice, Chunk, ChunkChoice, Completion
from chatscope.protocol.unknown import STRICT_CHUNK, STRICT_COMPLETION, fill_extra, text_chunk
from chatscope.protocol.usage import merge_usage

_S = TypeVar("_S", Chunk, Completion)

_chunks: Final = msgspec.json.Decoder(Chunk)
_strict_chunks: Final = msgspec.json.Decoder(STRICT_CHUNK)
_text_chunks: Final = msgspec.json.Decoder[Any](text_chunk())
_completions: Final = msgspec.json.Decoder(Completion)
_strict_completions: Final = msgspec.json.Decoder(STRICT_COMPLETION)

_REFUSED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_NO_FINISH_REASON: Final = frozenset({"", "null"})
"""What some servers send instead of null."""


def decode_chunk(data: bytes) -> tuple[Chunk, dict[str, Any] | None]:
    """Return the chunk that an event's data holds, and the decoded object if it has to be searched for an error.

    Raises:
        ValueError: the data is not a JSON object.
    """
    try:
        _strict_chunks.decode(data)
        chunk = _chunks.decode(data)
    except _REFUSED:
        pass
    else:
        if chunk.object not in {"chat.completion", "error"} and _reasons_are_plain(chunk.choices):
            chunk.raw = data
            if chunk.x_groq is not None:
                chunk.usage = merge_usage(chunk.usage, chunk.x_groq.usage)
            return chunk, None
    loaded = load_object(data)
    if b'"message"' in data or b'"<' in data:  # the shape may be another, or a field of ours may have been sent
        return chunk_from(loaded, data), loaded
    try:
        chunk = _chunks.decode(data)
    except _REFUSED:
        return chunk_from(loaded, data), loaded
    chunk.raw = data
    return _completed(chunk, loaded, loaded), loaded


def decode_text(data: bytes) -> str:
    """Return the text that an event's data adds to the first choice, if it does nothing else; otherwise `""`.

    For callers that do not need the chunks: it takes less than half the time of decoding one and adding it to the
    others (`timeit` on the event of `benchmarks.harness.wire.token_chunk(1)`).
    """
    try:
        text: str = _text_chunks.decode(data).choices[0].delta.content
    except _REFUSED:
        return ""
    return text


def decode_exact(data: bytes) -> Completion | None:
    """Return the completion that a body holds if every field of it is known and of the right type, otherwise `None`.

    `None` says only that the body needs a closer look. Decoding twice takes half the time of looking once for unknown
    fields (`timeit` on the body of `benchmarks.harness.wire.plain_reply(100)`).
    """
    try:
        _strict_completions.decode(data)
        completion = _completions.decode(data)
    except _REFUSED:
        return None
    is_plain = completion.choices and completion.object != "error" and _reasons_are_plain(completion.choices)
    return completion if is_plain else None


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
    return completion


def _made(loaded: dict[str, Any], cls: type[_S]) -> _S:
    normal = normalized(loaded, "delta" if cls is Chunk else "message")
    try:
        made = msgspec.convert(normal, cls)
    except msgspec.ValidationError:
        made = fit_struct(normal, cls)
    return _completed(made, normal, loaded)


def _completed(made: _S, normal: dict[str, Any], loaded: dict[str, Any]) -> _S:
    """Fill in what the typed decoder does not see."""
    fill_extra(made, normal)
    if made.usage is None or not (made.usage.prompt_tokens and made.usage.completion_tokens):
        made.usage = usage_in(loaded)
    for choice in made.choices:
        if choice.finish_reason in _NO_FINISH_REASON:
            choice.finish_reason = None
    return made


def _reasons_are_plain(choices: list[ChunkChoice] | list[Choice]) -> bool:
    """Return whether each finish_reason is one that can be taken as it is."""
    for choice in choices:
        reason = choice.finish_reason
        if reason is not None and (reason in _NO_FINISH_REASON or failed_status(reason) is not None):
            return False
    return True
