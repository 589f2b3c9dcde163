"""The shape of `prices.json`: providers, their models, and the periods in which a price holds.

Matching follows genai-prices, whose data it is. Look-ups over several providers and their cache live in `table.py`.
`.ci/make_prices.py` writes the file: one model per line, a price as the array of `Price`'s fields in their order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time

import msgspec

from chatscope.pricing.price import Price
from chatscope.protocol.usage import Usage

# One name pattern: `name`, `start*`, `*end`, `*part*` or `re:expression`, against the name in lower case.
# A term is one pattern, or several that must all fit; a model is matched when any of its terms fits.
Term = str | tuple[str, ...]


class Period(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A price and when it holds; without `since` and `daily` it always does.

    Attributes:
        price: The price, or `None` where the source names the model without one that chat usage can be priced by.
        above: `(prompt tokens, price)`, rising: with more prompt tokens than that, *all* tokens cost this price.
        since: First day, in UTC.
        daily: Start and end of the hours of each day, in UTC; they may span midnight. The end is excluded.
    """

    price: Price | None = None
    above: tuple[tuple[int, Price], ...] = ()
    since: date | None = None
    daily: tuple[time, time] | None = None

    def holds(self, when: datetime) -> bool:
        """Say if the price holds at that moment (naive: UTC)."""
        if self.since is None and self.daily is None:
            return True
        if when.tzinfo is not None:
            when = when.astimezone(UTC)
        in_force = self.since is None or when.date() >= self.since
        return in_force and (self.daily is None or _within(when.time(), *self.daily))

    def cost(self, usage: Usage) -> float | None:
        """Return the US dollars that this usage costs, `None` where they are not known."""
        price = self.price
        for tokens, higher in self.above:
            if usage.prompt_tokens > tokens:
                price = higher
        return None if price is None else price.cost(usage)


class Model(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A model of a provider. Of its periods, and of a service tier's, the last that holds is the one.

    Attributes:
        id: The source's name for it.
        match: What it is called by; nothing: its id, in lower case.
        prices: The standard price. Empty: the source has none, and no other model answers to these names.
        tiers: The price of other service tiers, by the tier's name in the response.
    """

    id: str
    match: tuple[Term, ...] = ()
    prices: tuple[Period, ...] = ()
    tiers: dict[str, tuple[Period, ...]] = {}

    def answers_to(self, name: str) -> bool:
        """Say if this model is called by `name` (in lower case)."""
        return fits_any(self.match, name) if self.match else self.id == name


class Provider(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Someone who runs models.

    Attributes:
        id: The source's name for it.
        url: Regular expression for the start of its base URLs.
        named: The model names that mean this provider where the URL is nobody's.
        fallback: Ids of providers whose models it resells at their price, where it has no entry of its own.
        models: Its models; the first that answers to a name is the one.
    """

    id: str
    url: str
    named: tuple[Term, ...] = ()
    fallback: tuple[str, ...] = ()
    models: tuple[Model, ...] = ()

    def find(self, name: str) -> Model | None:
        """Return the model of this provider that is called by `name` (in lower case)."""
        return next((model for model in self.models if model.answers_to(name)), None)


class Snapshot(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The whole file.

    Attributes:
        source: The package that the prices come from.
        version: Its version.
        date: The day on which the file was made from it.
        notice: Its licence.
        providers: In the order in which a URL or a model's name is looked for.
    """

    source: str
    version: str
    date: date
    notice: str
    providers: tuple[Provider, ...]


def fits_any(terms: Sequence[Term], name: str) -> bool:
    """Say if any of the terms fits the name (in lower case)."""
    return any(_fits(term, name) if isinstance(term, str) else all(_fits(t, name) for t in term) for term in terms)


def _fits(pattern: str, name: str) -> bool:
    if pattern.startswith("re:"):
        return re.search(pattern[3:], name) is not None
    if pattern.startswith("*"):
        return pattern[1:-1] in name if pattern.endswith("*") else name.endswith(pattern[1:])
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else pattern == name


def _within(now: time, start: time, end: time) -> bool:
    return now >= start or now < end if end < start else start <= now < end
