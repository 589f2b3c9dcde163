"""US dollars for a request: a snapshot of published prices, and the prices that users bring.

Nothing here talks to the network: prices are as old as `PriceTable.default().snapshot.date`. An unknown price is
`None`, never a guess.
"""

from __future__ import annotations

from chatscope.pricing.price import Price
from chatscope.pricing.resolve import PriceQuery, Pricer, Prices, resolve
from chatscope.pricing.table import PriceTable

__all__ = ["Price", "PriceQuery", "PriceTable", "Pricer", "Prices", "resolve"]
