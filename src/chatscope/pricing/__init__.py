"""The price of a request in US dollars, from a snapshot of published prices and from the user's own prices.

Nothing here uses the network: prices are as old as `PriceTable.default().snapshot.date`. An unknown price is `None`,
never a guess.
"""

from __future__ import annotations

from chatscope.pricing.price import Price
from chatscope.pricing.resolve import PriceQuery, Pricer, Prices, resolve
from chatscope.pricing.table import PriceTable

__all__ = ["Price", "PriceQuery", "PriceTable", "Pricer", "Prices", "resolve"]
