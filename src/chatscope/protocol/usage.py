"""Token counts as servers report them, and how they are added and merged. Not here: where responses have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import msgspec

MAX_COUNT: Final = 2**53
"""The largest accepted count. Floats hold every integer up to it, so prices can be computed."""

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
"""A count. A negative or absurd one means that the server did not report one."""


class PromptTokensDetails(msgspec.Struct, kw_only=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """The prompt tokens by kind."""

    cached_tokens: Count = 0
    cache_write_tokens: Count = 0
    audio_tokens: Count = 0
    image_tokens: Count = 0
    text_tokens: Count = 0


class CompletionTokensDetails(msgspec.Struct, kw_only=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """The completion tokens by kind."""

    reasoning_tokens: Count = 0
    audio_tokens: Count = 0
    accepted_prediction_tokens: Count = 0
    rejected_prediction_tokens: Count = 0
    text_tokens: Count = 0


class Usage(msgspec.Struct, kw_only=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """The tokens that a request used, as the server counted them."""

    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    total_tokens: Count = 0
    """The sum of both, if the server does not report a total."""
    prompt_tokens_details: PromptTokensDetails | None = None
    completion_tokens_details: CompletionTokensDetails | None = None

    def __post_init__(self) -> None:
        if not self.total_tokens:
            msgspec.structs.force_setattr(self, "total_tokens", self.prompt_tokens + self.completion_tokens)

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that were read from the server's cache."""
        return self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else 0

    @property
    def reasoning_tokens(self) -> int:
        """Completion tokens that were spent on reasoning."""
        return self.completion_tokens_details.reasoning_tokens if self.completion_tokens_details else 0


_Details = TypeVar("_Details", PromptTokensDetails, CompletionTokensDetails)


def add_usage(*usages: Usage | None) -> Usage | None:
    """Return the total usage of several requests; `None` if one of them is unknown, or there are none.

    The details are likewise those of all requests, or `None`: unknown does not mean 0.
    """
    reported = [usage for usage in usages if usage is not None]
    if not reported or len(reported) < len(usages):
        return None
    if len(reported) == 1:
        return reported[0]
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in reported),
        completion_tokens=sum(usage.completion_tokens for usage in reported),
        total_tokens=sum(usage.total_tokens for usage in reported),
        prompt_tokens_details=_add_details(PromptTokensDetails, [usage.prompt_tokens_details for usage in reported]),
        completion_tokens_details=_add_details(
            CompletionTokensDetails, [usage.completion_tokens_details for usage in reported]
        ),
    )


def merge_usage(earlier: Usage | None, later: Usage | None) -> Usage | None:
    """Merge two reports about the same request.

    A later count replaces an earlier one, since reports are cumulative. A zero replaces nothing: some servers report
    the prompt first and the completion last, and fill the rest with zeros.
    """
    if earlier is None or later is None or earlier == later:
        return later if earlier is None else earlier
    if (
        later.prompt_tokens
        and later.completion_tokens
        and later.total_tokens
        and _replaces(later.prompt_tokens_details, earlier.prompt_tokens_details)
        and _replaces(later.completion_tokens_details, earlier.completion_tokens_details)
    ):
        return later  # nothing to keep of the earlier one: servers that report usage in every chunk
    merged: Usage = _merge_counts(earlier, later)
    parts = merged.prompt_tokens + merged.completion_tokens
    if merged.total_tokens < parts and merged != later:
        merged = msgspec.structs.replace(merged, total_tokens=parts)  # each report had only one half
    return merged


def _replaces(later: _Details | None, earlier: _Details | None) -> bool:
    """Return whether later details say all that earlier ones do."""
    if earlier is None or earlier == later:
        return True
    if later is None:
        return False
    counts = zip(msgspec.structs.astuple(later), msgspec.structs.astuple(earlier), strict=True)
    return not [old for new, old in counts if old and not new]


def _merge_counts(earlier: Any, later: Any) -> Any:
    """Return counts of one kind merged: a usage, or its details."""
    merged: dict[str, Any] = {}
    for name in later.__struct_fields__:
        old, new = getattr(earlier, name), getattr(later, name)
        is_nested = isinstance(old, PromptTokensDetails | CompletionTokensDetails) and new is not None
        merged[name] = _merge_counts(old, new) if is_nested else new or old
    return type(later)(**merged)


def _add_details(cls: type[_Details], parts: Sequence[_Details | None]) -> _Details | None:
    reported = [part for part in parts if part is not None]
    if len(reported) < len(parts):
        return None
    return cls(**{name: sum(getattr(part, name) for part in reported) for name in cls.__struct_fields__})
