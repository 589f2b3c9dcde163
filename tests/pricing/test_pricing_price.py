"""The arithmetic of one price, and values that are not prices."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.tables import row

from chatscope.pricing import Price
from chatscope.protocol.usage import CompletionTokensDetails, PromptTokensDetails, Usage

FULL = Price(
    input=1, output=10, cached_input=0.25, cache_write=2, audio_input=40, audio_output=80, reasoning=5, per_request=0.5
)


def usage(prompt: int, completion: int, total: int | None = None, **details: int) -> Usage:
    read = {name[5:]: count for name, count in details.items() if name.startswith("read_")}
    written = {name[8:]: count for name, count in details.items() if name.startswith("written_")}
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion if total is None else total,
        prompt_tokens_details=PromptTokensDetails(**read) if read else None,
        completion_tokens_details=CompletionTokensDetails(**written) if written else None,
    )


def test_each_part_at_its_own_price() -> None:
    rows: list[tuple[Usage, float]] = [
        (usage(1_000_000, 0), 1.5),
        (usage(0, 1_000_000), 10.5),
        (usage(0, 0), 0.5),
        (usage(1_000_000, 0, read_cached_tokens=400_000), 0.6 + 0.1 + 0.5),
        (usage(1_000_000, 0, read_cached_tokens=400_000, read_cache_write_tokens=600_000), 0.1 + 1.2 + 0.5),
        (usage(1_000_000, 0, read_audio_tokens=500_000), 0.5 + 20 + 0.5),
        (usage(0, 1_000_000, written_reasoning_tokens=600_000), 4 + 3 + 0.5),
        (usage(0, 1_000_000, written_audio_tokens=600_000), 4 + 48 + 0.5),
        (usage(0, 1_000_000, written_audio_tokens=600_000, written_reasoning_tokens=400_000), 48 + 2 + 0.5),
        (usage(1_000_000, 0, read_image_tokens=400_000, read_text_tokens=600_000), 1.5),
    ]
    for tokens, dollars in rows:
        with row(tokens, dollars):
            assert FULL.cost(tokens) == pytest.approx(dollars, rel=1e-12)


def test_a_part_without_a_price_of_its_own_costs_what_the_rest_costs() -> None:
    plain = Price(input=1, output=10)
    counted = usage(
        1_000_000,
        1_000_000,
        read_cached_tokens=300_000,
        read_cache_write_tokens=300_000,
        read_audio_tokens=300_000,
        written_reasoning_tokens=900_000,
        written_audio_tokens=100_000,
    )
    assert plain.cost(counted) == pytest.approx(11, rel=1e-12)


def test_reasoning_beside_the_completion_is_charged_as_output() -> None:
    price = Price(input=1, output=10)
    within = usage(1_000_000, 1_000_000, total=2_000_000, written_reasoning_tokens=500_000)
    beside = usage(1_000_000, 1_000_000, total=2_500_000, written_reasoning_tokens=500_000)
    untold = usage(1_000_000, 1_000_000, total=0, written_reasoning_tokens=500_000)
    other = usage(1_000_000, 1_000_000, total=2_600_000, written_reasoning_tokens=500_000)
    assert [price.cost(each) for each in (within, beside, untold, other)] == [11, 16, 11, 11]


def test_a_usage_that_does_not_say_it_has_no_cost() -> None:
    rows: list[Usage] = [
        usage(100, 0, read_cached_tokens=101),
        usage(100, 0, read_cached_tokens=60, read_cache_write_tokens=60),
        usage(100, 0, read_cached_tokens=-1),
        usage(0, 100, written_reasoning_tokens=101, total=100),
        usage(-1, 0),
        usage(0, -1),
        usage(100, 0, read_audio_tokens=50, read_cached_tokens=10),
        usage(100, 0, read_audio_tokens=50, read_cache_write_tokens=10),
    ]
    for tokens in rows:
        with row(tokens):
            assert FULL.cost(tokens) is None


def test_audio_and_cached_tokens_are_fine_where_only_one_is_priced_apart() -> None:
    both = usage(1_000_000, 0, read_audio_tokens=500_000, read_cached_tokens=500_000)
    assert Price(input=1, output=1, cached_input=0.5).cost(both) == pytest.approx(0.75)
    assert Price(input=1, output=1, audio_input=3).cost(both) == pytest.approx(2)


def test_no_price_is_negative_or_endless() -> None:
    rows: list[float] = [-0.1, float("nan"), float("inf")]
    fields: list[str] = ["input", "output", "cached_input", "per_request"]
    for value in rows:
        for field in fields:
            with row(value, field), pytest.raises(ValueError, match=f"price '{field}' must be finite and at least 0"):
                Price(**{"input": 1, "output": 1, field: value})


def test_a_price_is_a_number() -> None:
    rows: list[Any] = ["1", True, [1], object()]
    fields: list[str] = ["input", "audio_output"]
    for value in rows:
        for field in fields:
            with row(value, field), pytest.raises(TypeError, match=f"price '{field}' must be a number"):
                Price(**{"input": 1, "output": 1, field: value})


def test_none_is_for_prices_that_have_another_to_fall_back_on() -> None:
    rows: list[str] = ["input", "output", "per_request"]
    for field in rows:
        with row(field):
            nothing: Any = {field: None}
            with pytest.raises(TypeError, match=f"price '{field}' must be a number"):
                Price(**{"input": 1, "output": 1, **nothing})
            assert Price(input=1, output=1, cached_input=None).cached_input is None
