"""Token counts as a server reports them. Where they are found in a response is not decided here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeAlias, TypeVar

import msgspec

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
"""How many there are: a server that sends fewer than none has not told."""


class PromptTokensDetails(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """Where the prompt tokens went."""

    cached_tokens: _Count = 0
    cache_write_tokens: _Count = 0
    audio_tokens: _Count = 0
    image_tokens: _Count = 0
    text_tokens: _Count = 0


class CompletionTokensDetails(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """Where the completion tokens went."""

    reasoning_tokens: _Count = 0
    audio_tokens: _Count = 0
    accepted_prediction_tokens: _Count = 0
    rejected_prediction_tokens: _Count = 0
    text_tokens: _Count = 0


class Usage(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """Tokens used by a request, as the server counted them."""

    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0
    total_tokens: _Count = 0
    prompt_tokens_details: PromptTokensDetails | None = None
    completion_tokens_details: CompletionTokensDetails | None = None

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that were read from the server's cache."""
        return self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else 0

    @property
    def reasoning_tokens(self) -> int:
        """Completion tokens that were spent on reasoning."""
        return self.completion_tokens_details.reasoning_tokens if self.completion_tokens_details else 0


_D = TypeVar("_D", PromptTokensDetails, CompletionTokensDetails)


def add_usage(*usages: Usage | None) -> Usage | None:
    """Return the sum of what several requests used; `None` if one of them is unknown, or there are none.

    The details are likewise those of all requests, or `None`: what is unknown is not 0.
    """
    known = [usage for usage in usages if usage is not None]
    if not known or len(known) < len(usages):
        return None
    if len(known) == 1:
        return known[0]
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in known),
        completion_tokens=sum(usage.completion_tokens for usage in known),
        total_tokens=sum(usage.total_tokens for usage in known),
        prompt_tokens_details=_add_details(PromptTokensDetails, [usage.prompt_tokens_details for usage in known]),
        completion_tokens_details=_add_details(
            CompletionTokensDetails, [usage.completion_tokens_details for usage in known]
        ),
    )


def _add_details(cls: type[_D], parts: Sequence[_D | None]) -> _D | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return cls(**{name: sum(getattr(part, name) for part in known) for name in cls.__struct_fields__})
