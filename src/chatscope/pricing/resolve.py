"""What users say about prices -> one function that answers what a request cost.

The adapter calls `resolve` once, and the function it returns once per finished task.
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


class PriceQuery(msgspec.Struct, kw_only=True, frozen=True):
    """A finished request, as a pricer sees it.

    Attributes:
        model: The model's name as the response gives it, or as it was asked for where the response gives none.
        usage: The tokens, as the server counted them.
        requested_model: The model's name as it was asked for.
        base_url: Where the request went.
        service_tier: The tier that the response names.
        when: When the request was made; `None` means now.
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
    """Turn the `prices` argument into the one function that prices requests.

    - `None`: the package's own table, `PriceTable.default()`.
    - A table, model name -> `Price` or a dict of its fields (USD per million tokens): its entries win, found by the
      name that was asked for or else by the name in the response, each exactly as written. They are standard prices:
      a request that ran in another service tier (flex, priority, ...) is not priced by them, its cost is `None`. The
      package's table answers for every model that is not in it.
    - A function from `PriceQuery` to US dollars or `None`: its answer is final, so `lambda query: None` switches
      prices off.

    Raises:
        TypeError: `prices` is none of these, or a price is no number.
        ValueError: a price is negative or not finite, is missing, or has a name that `Price` doesn't know.
    """
    if prices is None:
        return _from_package
    if isinstance(prices, Mapping):
        table = {model: _to_price(model, price) for model, price in prices.items()}
        return lambda query: _from_table(table, query)
    if inspect.iscoroutinefunction(prices):
        raise TypeError("prices must answer at once: a plain function, not an async one")
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
        raise TypeError(f"prices must be named by model (str), not {model!r}")
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
