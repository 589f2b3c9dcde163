"""The `prices` argument: nothing, a table, a function, or a clear error."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from tests.support.tables import row

from chatscope.pricing import Price, PriceQuery, PriceTable, resolve
from chatscope.protocol.usage import PromptTokensDetails, Usage

USAGE = Usage(
    prompt_tokens=1_000_000,
    completion_tokens=100_000,
    total_tokens=1_100_000,
    prompt_tokens_details=PromptTokensDetails(cached_tokens=200_000),
)


def query(model: str = "my-model", **fields: Any) -> PriceQuery:
    return PriceQuery(model=model, usage=USAGE, **fields)


def test_nothing_given_is_the_package_s_table() -> None:
    asked = query("gpt-4o-mini", base_url="https://api.openai.com/v1", service_tier="default")
    theirs = PriceTable.default().cost(USAGE, "gpt-4o-mini", base_url="https://api.openai.com/v1")
    assert theirs is not None
    assert resolve()(asked) == resolve(None)(asked) == theirs


def test_an_entry_of_the_table_wins() -> None:
    rows: list[Any] = [Price(input=1, output=10, cached_input=0.5), {"input": 1, "output": 10, "cached_input": 0.5}]
    kinds: list[Any] = [dict, MappingProxyType]
    for entry in rows:
        for kind in kinds:
            with row(entry, kind):
                pricer = resolve(kind({"gpt-4o-mini": entry, "my-model": entry}))
                assert pricer(query()) == pytest.approx(0.8 + 0.1 + 1.0)
                assert pricer(query("gpt-4o-mini")) == pytest.approx(1.9)


def test_the_table_is_read_once() -> None:
    prices = {"my-model": Price(input=1, output=0)}
    pricer = resolve(prices)
    prices["my-model"] = Price(input=2, output=0)
    assert pricer(query()) == 1


def test_the_name_asked_for_comes_before_the_name_in_the_response() -> None:
    pricer = resolve({"alias": Price(input=1, output=0), "exact": Price(input=2, output=0)})
    assert pricer(query("exact", requested_model="alias")) == 1
    assert pricer(query("exact", requested_model="other")) == 2
    assert pricer(query("alias")) == 1
    assert pricer(query("Alias")) is None


def test_the_package_s_table_answers_for_models_that_are_not_in_it() -> None:
    pricer = resolve({"my-model": Price(input=1, output=10)})
    assert pricer(query("gpt-4o-mini")) == resolve()(query("gpt-4o-mini")) is not None
    assert resolve({})(query("gpt-4o-mini")) == resolve()(query("gpt-4o-mini"))
    assert pricer(query("nobody-s-model")) is None


def test_a_user_s_price_is_a_standard_price() -> None:
    rows: list[tuple[str | None, float | None]] = [
        (None, 1),
        ("auto", 1),
        ("default", 1),
        ("flex", None),
        ("scale", None),
    ]
    for tier, dollars in rows:
        with row(tier, dollars):
            assert resolve({"my-model": Price(input=1, output=0)})(query(service_tier=tier)) == dollars


def test_a_function_has_the_last_word() -> None:
    seen: list[PriceQuery] = []

    def pricer(asked: PriceQuery) -> float | None:
        seen.append(asked)
        return None

    asked = query("gpt-4o-mini", requested_model="gpt-4o-mini", base_url="http://127.0.0.1/v1", service_tier="flex")
    assert resolve(pricer)(asked) is None
    assert seen == [asked]


def test_an_async_function_is_refused() -> None:
    async def pricer(asked: PriceQuery) -> float | None:
        return None

    unfit: Any = pricer
    with pytest.raises(TypeError, match="prices must be a plain function, not an async one"):
        resolve(unfit)


def test_bad_prices_name_the_argument() -> None:
    rows: list[tuple[Any, type[Exception], str]] = [
        (3, TypeError, "prices must be a mapping of model names to prices or a callable, not int"),
        ([("m", 1)], TypeError, "prices must be a mapping .* not list"),
        (Price(input=1, output=1), TypeError, "prices must be a mapping .* not Price"),
        ({1: {"input": 1, "output": 1}}, TypeError, "the keys of prices must be names of models, not 1"),
        ({"m": 0.5}, TypeError, r"prices\['m'\] must be a Price or a dict of its fields, not float"),
        ({"m": {"input": 1}}, ValueError, r"prices\['m'\] lacks output"),
        ({"m": {}}, ValueError, r"prices\['m'\] lacks input, output"),
        (
            {"m": {"input": 1, "output": 1, "x": 1}},
            ValueError,
            r"prices\['m'\] has unknown x; a price has input, ",
        ),
        ({"m": {"input": 1, "output": 1, 7: 1}}, ValueError, r"prices\['m'\] has unknown 7"),
        ({"m": {"input": -1, "output": 1}}, ValueError, r"prices\['m'\]: price 'input' must be finite and at least 0"),
        ({"m": {"input": 1, "output": float("nan")}}, ValueError, r"prices\['m'\]: price 'output' must be finite"),
        ({"m": {"input": "1", "output": 1}}, TypeError, r"prices\['m'\]: price 'input' must be a number"),
        ({"m": {"input": None, "output": 1}}, TypeError, r"prices\['m'\]: price 'input' must be a number"),
    ]
    for prices, error, message in rows:
        with row(prices, error, message), pytest.raises(error, match=message):
            resolve(prices)


def test_a_mapping_that_can_be_called_is_a_table() -> None:
    class Callable(dict[str, Mapping[str, float | None]]):
        def __call__(self, asked: PriceQuery) -> float | None:
            raise AssertionError

    assert resolve(Callable({"my-model": {"input": 1, "output": 0}}))(query()) == 1
