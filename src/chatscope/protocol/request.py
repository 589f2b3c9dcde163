"""The content of a request: the endpoint's parameters, their checks, and the JSON body.

Only values that are certainly invalid are refused here, before anything is sent. Whatever only the server can judge is
sent unchanged.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from chatscope._validation import check_messages, check_number
from chatscope.protocol.messages import SentMessage

_NUMBERS: Final = frozenset(
    {"frequency_penalty", "max_completion_tokens", "max_tokens", "n", "presence_penalty", "seed", "temperature"}
    | {"top_logprobs", "top_p"}
)

_REJECTS_MAX_TOKENS: Final = re.compile(r"(?:.*/)?(?:[^:]*:)?(?:o\d|gpt-(?:[5-9]|\d\d))")
"""o1, o3-mini, gpt-5, ..., also after the prefix of a router or a fine-tune: they accept only max_completion_tokens."""


def max_tokens_name(model: str) -> str:
    """Return the name under which a model accepts its token limit."""
    return "max_completion_tokens" if _REJECTS_MAX_TOKENS.match(model) else "max_tokens"


def encode_body(
    model: str,
    messages: Sequence[SentMessage],
    parameters: Mapping[str, Any],
    *,
    stream: bool,
    extra: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the JSON body of a request.

    Raises:
        ValueError: an argument is invalid, or cannot be sent as JSON; the error names it.
    """
    check_messages(model, messages)
    for name, value in parameters.items():
        if name in _NUMBERS and type(value) is not int and value is not None:
            check_number(value, name)
    body = {"model": model, "messages": messages, **parameters}
    if stream:
        body["stream"] = True
    if extra is not None:
        if not isinstance(extra, Mapping):
            raise ValueError(f"extra_body must be a mapping, not {type(extra).__name__}")
        body.update(extra)
    try:
        encoded = _encoder.encode(body)
    except (TypeError, ValueError, RecursionError):
        for name, value in body.items():
            try:
                msgspec.json.encode(value, enc_hook=_plain)
            except (TypeError, ValueError, RecursionError) as error:
                raise ValueError(f"{name} cannot be sent as JSON: {error}") from error
        raise
    # Only now, because a value that could be encoded is not endless.
    if "logit_bias" in parameters:
        _check_finite(parameters["logit_bias"], "logit_bias")
    if extra:
        _check_finite(extra, "extra_body")
    return encoded


def _check_finite(value: object, name: str) -> None:
    """Refuse numbers that JSON does not have. They would be sent as null."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            waiting += item.values()
        elif isinstance(item, list | tuple):
            waiting += item
        elif isinstance(item, float) and not math.isfinite(item):
            raise ValueError(f"{name} must hold finite numbers, not {item!r}")


def _plain(value: object) -> object:
    """Return values that msgspec can encode for mappings and sequences other than dicts and lists."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"a {type(value).__name__} has no JSON form")


_encoder: Final = msgspec.json.Encoder(enc_hook=_plain)


def conversation(
    prompt: str,
    messages: Sequence[SentMessage] | None = None,
    context: Mapping[str, Any] | None = None,
    system: str | None = None,
) -> Sequence[SentMessage]:
    """Return the messages for a prompt or a conversation, with a context and a system message.

    Raises:
        ValueError: neither or both of prompt and messages are given, or one has a wrong type; the error names it.
    """
    if messages is not None and prompt:
        raise ValueError("prompt and messages exclude each other")
    if messages is None and (not prompt or not isinstance(prompt, str)):
        raise ValueError("prompt must be a text that is not empty, where there are no messages")
    spoken = [{"role": "user", "content": prompt}] if messages is None else messages
    if system is not None:
        if not isinstance(system, str) or not system:
            raise ValueError("system must be a text that is not empty")
        spoken = [{"role": "system", "content": system}, *spoken]
    if not context:
        return spoken
    if not isinstance(context, Mapping):
        raise ValueError(f"context must be a mapping, not {type(context).__name__}")  # noqa: TRY004 - bad input is a ValueError throughout
    lines = "\n".join(f"{key}: {value}" for key, value in context.items())
    facts = {"role": "system", "content": f"Context:\n{lines}"}
    return [facts, *spoken] if system is None else [spoken[0], facts, *spoken[1:]]
