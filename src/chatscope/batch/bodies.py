"""The body of a recorded response: a completion as JSON, with the fields of `Completion.to_dict`.

Most completions are converted to structs that are encoded as they are, in a third of the time. They have the same
fields as the public ones, but for what is not part of the JSON. Those that a message writes only if they are set have
a default here; all others are always written.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec

from chatscope import Completion, Usage

_NothingUnknown: TypeAlias = Annotated[dict[str, Any], msgspec.Meta(max_length=0)]
"""Unknown fields: `to_dict` alone knows where they belong."""


class _KnownBody(msgspec.Struct, omit_defaults=True, gc=False, kw_only=True):
    extra: _NothingUnknown = msgspec.field(default_factory=dict)


class TopLogprobBody(_KnownBody, kw_only=True):
    """A `TopLogprob`."""

    token: str
    logprob: float | None
    bytes: list[int] | None


class TokenLogprobBody(TopLogprobBody, kw_only=True):
    """A `TokenLogprob`."""

    top_logprobs: list[TopLogprobBody]


class LogprobsBody(_KnownBody, kw_only=True):
    """The `Logprobs` of a choice."""

    content: list[TokenLogprobBody] | None
    refusal: list[TokenLogprobBody] | None


class MessageBody(_KnownBody, kw_only=True):
    """A `CompletionMessage` of text. Any other is left to `to_dict`: one of tool calls, for instance."""

    role: Annotated[str, msgspec.Meta(min_length=1)]
    content: str | None
    content_parts: None = None
    refusal: str | None = None
    audio: Any = None
    annotations: list[Any] | None = None
    function_call: None = None
    reasoning_content: str | None = None
    reasoning_text: str | None = msgspec.field(default=None, name="reasoning")
    reasoning_details: list[Any] | None = None
    tool_calls: None = None


class ChoiceBody(_KnownBody, kw_only=True):
    """A `Choice`."""

    index: int
    message: MessageBody
    finish_reason: str | None
    logprobs: LogprobsBody | None


class CompletionBody(_KnownBody, kw_only=True):
    """A `Completion`."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str | None
    service_tier: str | None
    usage: Usage | None
    moderation: Any
    choices: list[ChoiceBody]
    metadata: Any


def body_of(completion: Completion) -> object:
    """Return a completion as an object that msgspec encodes as the endpoint's JSON."""
    try:
        return msgspec.convert(completion, CompletionBody, from_attributes=True)
    except msgspec.ValidationError:
        return completion.to_dict()
