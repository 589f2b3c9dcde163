"""The price of one model, and the arithmetic from a usage to US dollars.

Not here: the choice of the price for a request (`table.py`, `resolve.py`). Nothing here knows a model's name.
"""

from __future__ import annotations

import math

import msgspec

from chatscope.protocol.usage import CompletionTokensDetails, PromptTokensDetails, Usage

_NO_PROMPT_DETAILS = PromptTokensDetails()
_NO_COMPLETION_DETAILS = CompletionTokensDetails()


class Price(msgspec.Struct, kw_only=True, frozen=True, gc=False, forbid_unknown_fields=True, array_like=True):
    """A model's price in USD per million tokens, and in USD per request for `per_request`.

    If a price is `None`, its tokens cost the same as others of their direction: cached tokens cost `input`, reasoning
    tokens `output`.

    Attributes:
        input: Prompt tokens.
        output: Completion tokens.
        cached_input: Prompt tokens that the server read from its cache.
        cache_write: Prompt tokens that the server wrote to its cache.
        audio_input: Prompt tokens for audio.
        audio_output: Completion tokens for audio.
        reasoning: Completion tokens for reasoning.
        per_request: A fee for each request, whatever its tokens.

    Raises:
        TypeError: a price is not a number.
        ValueError: a price is negative, infinite or NaN.
    """

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None
    audio_input: float | None = None
    audio_output: float | None = None
    reasoning: float | None = None
    per_request: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is None and name not in {"input", "output", "per_request"}:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"price {name!r} must be a number (USD), not {type(value).__name__}")
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"price {name!r} must be finite and at least 0 (USD), not {value}")

    def cost(self, usage: Usage) -> float | None:
        """Return the cost of a usage in US dollars.

        The cost is `None` if the usage does not determine it: if parts exceed their whole, or if a prompt has both
        audio and cached tokens with separate prices, because no server reports how many tokens are both.
        """
        read = usage.prompt_tokens_details or _NO_PROMPT_DETAILS
        written = usage.completion_tokens_details or _NO_COMPLETION_DETAILS
        if read == _NO_PROMPT_DETAILS and written == _NO_COMPLETION_DETAILS:  # most usages, in half the time
            if usage.prompt_tokens < 0 or usage.completion_tokens < 0:
                return None
            dollars = usage.prompt_tokens * self.input + usage.completion_tokens * self.output
            return dollars / 1_000_000 + self.per_request
        completion_tokens = usage.completion_tokens
        if usage.total_tokens == usage.prompt_tokens + completion_tokens + written.reasoning_tokens:
            # xAI counts reasoning beside the completion, OpenAI within it. The total shows which.
            completion_tokens += written.reasoning_tokens

        audio_priced_apart = self.audio_input is not None and read.audio_tokens > 0
        if audio_priced_apart and (
            (self.cached_input is not None and read.cached_tokens > 0)
            or (self.cache_write is not None and read.cache_write_tokens > 0)
        ):
            return None

        prompt = _split(
            usage.prompt_tokens,
            self.input,
            (read.cached_tokens, self.cached_input),
            (read.cache_write_tokens, self.cache_write),
            (read.audio_tokens, self.audio_input),
        )
        completion = _split(
            completion_tokens,
            self.output,
            (written.reasoning_tokens, self.reasoning),
            (written.audio_tokens, self.audio_output),
        )
        if prompt is None or completion is None:
            return None
        return (prompt + completion) / 1_000_000 + self.per_request


def _split(whole: int, price: float, *parts: tuple[int, float | None]) -> float | None:
    """Return the cost of tokens, some parts of which have separate prices; `None` if the parts do not add up."""
    cost = 0.0
    for tokens, own_price in parts:
        if own_price is None:
            continue
        if tokens < 0:
            return None
        whole -= tokens
        cost += tokens * own_price
    if whole < 0:
        return None
    return cost + whole * price
