"""Resolves the `prices` argument to one function that returns the cost of a request.

The adapter calls `resolve` once, and the returned function once per response.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from chatscope.pricing.price import Price
from chatscope.pricing.table import STANDARD_TIERS, PriceTable
from chatscope.protocol.usage import Usage


class PriceQuery(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """A finished request, as a pricer sees it.

    Attributes:
        model: The model's name in the response, or in the request if the response has none.
        usage: The tokens, as counted by the server.
        requested_model: The model's name in the request.
        base_url: The base URL of the request.
        service_tier: The tier in the response.
        when: The time of the request. `None` means now.
    """

    model: str
    usage: Usage
    requested_model: str | None = None
    base_url: str | None = None
    service_tier: str | None = None
    when: datetime | None = None


Pricer = Callable[[PriceQuery], float | None]
Prices = Mapping[str, Price | Mapping[str, float | None]] | Pricer

_FIELDS = frozenset(Price.__struct_fields__)
_REQUIRED = frozenset({"input", "output"})


def resolve(prices: Prices | None = None) -> Pricer:
    """Return the function that prices requests, made from the `prices` argument.

    - `None`: the package's own table, `PriceTable.default()`.
    - A mapping from model names to `Price`, or to a dict of its fields (USD per million tokens). Entries are looked up
      by the exact name in the request, then by the name in the response. They are standard prices: the cost of a
      request that ran in another service tier (flex, priority, ...) is `None`. The package's table prices models that
      are not in the mapping.
    - A function from `PriceQuery` to US dollars or `None`. Its result is final, so `lambda query: None` switches
      prices off.

    Raises:
        TypeError: `prices` is none of these, or a price is not a number.
        ValueError: a price is negative, not finite, missing, or not a field of `Price`.
    """
    if prices is None:
        return _from_package
    if isinstance(prices, Mapping):
        table = {model: _to_price(model, price) for model, price in prices.items()}
        return lambda query: _from_table(table, query)
    if inspect.iscoroutinefunction(prices):
        raise TypeError("prices must be a plain function, not an async one")
    if callable(prices):
        return prices
    raise TypeError(f"prices must be a mapping of model names to prices or a callable, not {type(prices).__name__}")


def _from_package(query: PriceQuery) -> float | None:
    return PriceTable.default().cost(
        query.usage, query.model, base_url=query.base_url, service_tier=query.service_tier, when=query.when
    )


def _from_table(table: Mapping[str, Price], query: PriceQuery) -> float | None:
    price = table.get(query.requested_model or query.model) or table.get(query.model)
    if price is None:
        return _from_package(query)
    return price.cost(query.usage) if query.service_tier in STANDARD_TIERS else None


def _to_price(model: object, price: Any) -> Price:
    where = f"prices[{model!r}]"
    if not isinstance(model, str):
        raise TypeError(f"the keys of prices must be names of models, not {model!r}")
    if isinstance(price, Price):
        return price
    if not isinstance(price, Mapping):
        raise TypeError(f"{where} must be a Price or a dict of its fields, not {type(price).__name__}")
    if unknown := sorted(map(str, price.keys() - _FIELDS)):
        raise ValueError(f"{where} has unknown {', '.join(unknown)}; a price has {', '.join(Price.__struct_fields__)}")
    if missing := sorted(_REQUIRED - price.keys()):
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    try:
        return Price(**price)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from None
